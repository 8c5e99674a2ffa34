"""Logging in to a host far away, by a real OpenSSH server, and starting our program there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm_tui.adapters.road.road import Road
from swarm_tui.errors import (
    ConfigError,
    HostDenied,
    HostError,
    HostKeyUnknown,
    HostUnreachable,
    SetupError,
)
from swarm_tui.model import AgentId
from swarm_tui.outpost import luggage, wire
from swarm_tui.outpost.process import find

from .openssh import SSHD, Server
from .travel import HOST, Travel, open_outpost, until

pytestmark = pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed")

SOURCE = Path(__file__).parents[2]
AGENT = AgentId("6f1c7b0e-0000-4000-8000-000000000001")


async def test_an_outpost_works_on_a_host_that_has_nothing_of_ours(travel: Travel) -> None:
    server = travel.start()
    outpost = await travel.outpost(server)
    here = find(os.getpid())
    assert (await outpost.measure({os.getpid(): ()}))[os.getpid()].process == here
    await outpost.keep(AGENT, "definition", "<domain/>")
    assert await outpost.kept("definition") == {AGENT: "<domain/>"}
    assert (server.home / "data/ledger" / AGENT / "definition").read_text() == "<domain/>"
    assert await outpost.holders([server.folder / "log"])
    assert await outpost.room(server.folder) > 0
    await outpost.close()
    await outpost.close()
    await until(lambda: not server.sessions())
    with pytest.raises(HostUnreachable, match="not connected"):
        await outpost.kept("definition")


# Host keys


async def test_a_key_that_nobody_vouches_for_is_told_and_can_be_trusted(travel: Travel) -> None:
    server = travel.start(is_known=False)
    with pytest.raises(HostKeyUnknown, match="not known") as caught:
        await travel.outpost(server)
    assert server.fingerprint in caught.value.detail
    assert "swarm-tui host add" in caught.value.hint
    assert caught.value.entry == server.entry
    travel.trusted.write_text(f"# a comment\nnonsense\n{caught.value.entry}\n")
    await travel.outpost(server)


async def test_a_key_that_changed_is_refused(travel: Travel) -> None:
    server = travel.start()
    server.stop()
    server.change_key()
    server.start()
    with pytest.raises(HostDenied, match="has changed") as caught:
        await travel.outpost(server)
    assert not isinstance(caught.value, HostKeyUnknown)
    assert server.fingerprint in caught.value.detail


@pytest.mark.parametrize("option", ["UserKnownHostsFile none", "StrictHostKeyChecking no"])
async def test_no_configuration_switches_the_check_off(travel: Travel, option: str) -> None:
    server = travel.start(is_known=False)
    travel.configure("Host *", option)
    with pytest.raises(HostKeyUnknown):
        await travel.outpost(server)


async def test_a_revoked_key_is_refused(travel: Travel) -> None:
    server = travel.start()
    travel.trusted.write_text(f"@revoked * {server.public_key}\n")
    with pytest.raises(HostDenied, match="must"):
        await travel.outpost(server)


# As ssh would go


def block(name: str, server: Server, *lines: str) -> list[str]:
    """What ~/.ssh/config says of a host."""
    place = [f"HostName {server.address}", f"Port {server.port}", f"User {server.user}"]
    return [f"Host {name}", *place, f"IdentityFile {server.identity}", *lines]


async def test_a_host_may_be_named_as_in_the_users_configuration(travel: Travel) -> None:
    server = travel.start()
    travel.configure(*block("Lab", server, "RemoteCommand exit 3", "RequestTTY force"))
    await travel.outpost(server, "qemu+ssh://Lab/system")


async def test_a_jump_is_gone_by_and_checked_too(travel: Travel) -> None:
    server, jump = travel.start(), travel.start(is_known=False)
    inner = block("inner", server, "ProxyJump outer")
    travel.configure(*inner, *block("outer", jump, "UserKnownHostsFile none"))
    road = travel.road(server, "qemu+ssh://inner/system")
    with pytest.raises(HostKeyUnknown, match="outer") as caught:
        await open_outpost(road)
    assert caught.value.entry == jump.entry
    assert server.sessions() == []
    travel.configure(*inner, *block("outer", jump))
    travel.vouch(jump)
    outpost = await open_outpost(road)
    assert len(jump.sessions()) == len(server.sessions()) == 1
    await outpost.close()
    await until(lambda: not jump.sessions() and not server.sessions())


async def test_jumps_in_a_circle_come_to_an_end(travel: Travel) -> None:
    server = travel.start()
    travel.configure("Host a", "ProxyJump b", "Host b", "ProxyJump me@a:22")
    with pytest.raises(ConfigError, match="too many jumps"):
        await travel.outpost(server, "qemu+ssh://a/system")


async def test_a_login_that_is_refused_says_what_must_work(travel: Travel) -> None:
    server = travel.start()
    (server.folder / "authorized_keys").write_text("")
    with pytest.raises(HostDenied, match="does not let us in") as caught:
        await travel.outpost(server)
    assert "ssh -o BatchMode=yes" in caught.value.hint


def encrypt(key: Path) -> None:
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)]
    subprocess.run(command, check=True, capture_output=True)


async def test_nobody_is_asked_for_a_passphrase(travel: Travel) -> None:
    server = travel.start()
    encrypt(server.identity)
    with pytest.raises(HostDenied) as caught:
        await travel.outpost(server)
    assert "agent" in caught.value.hint


async def test_nobody_listens(travel: Travel) -> None:
    server = travel.start()
    server.stop()
    with pytest.raises(HostUnreachable, match=r"[Rr]efused"):
        await travel.outpost(server)
    with pytest.raises(HostUnreachable):
        await travel.outpost(server, "qemu+ssh://no-such-host.invalid/system")


async def test_the_users_agent_is_not_lent_to_the_host(
    travel: Travel, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = travel.start()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(travel.home / "agent"))
    travel.configure("Host *", "ForwardAgent yes", "ForwardX11 yes")
    await travel.outpost(server)
    programs = descendants(*server.sessions())
    (ours,) = [pid for pid in programs if "memfd_create" in told(pid, "cmdline")]
    environment = told(ours, "environ")
    assert "SWARM_TUI_HOME" in environment
    assert "SSH_AUTH_SOCK" not in environment
    assert "DISPLAY" not in environment


def told(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


def descendants(*parents: int) -> list[int]:
    children = [
        int(child)
        for parent in parents
        for child in told(parent, f"task/{parent}/children").split()
    ]
    return children + (descendants(*children) if children else [])


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://lab/system?no_verify=1",
        "qemu+ssh://lab/system?command=/bin/ssh",
        "qemu+ssh://lab:port/system",
        "qemu+ssh:///system",
        "qemu+ssh://lab/",
        "lab",
    ],
)
def test_a_uri_that_leads_nowhere_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Road(HOST, uri, tmp_path / "trusted")


# What the host can do


async def test_a_host_without_python_is_told(travel: Travel) -> None:
    server = travel.start(f"SetEnv PATH={travel.home}")
    with pytest.raises(SetupError, match="no python3") as caught:
        await travel.outpost(server)
    assert "3.11" in caught.value.hint


async def test_a_login_that_may_run_nothing_is_told(travel: Travel) -> None:
    server = travel.start("ForceCommand /usr/sbin/nologin")
    with pytest.raises(HostDenied, match="runs no command") as caught:
        await travel.outpost(server)
    assert "not available" in caught.value.detail


async def test_a_login_may_greet_its_user(travel: Travel) -> None:
    server = travel.start('ForceCommand echo "Welcome!"; exec sh -c "$SSH_ORIGINAL_COMMAND"')
    outpost = await travel.outpost(server)
    assert await outpost.measure({}) == {}


LIAR = """
import sys
from swarm_tui.outpost import wire
from swarm_tui.outpost.serve import READY
sys.stdout.buffer.write(READY + wire.pack({"number": 0, "result": None}))
sys.stdout.flush()
sys.stdin.buffer.read(int(sys.argv[1]) + 1)
sys.stdout.buffer.write(%r)
sys.stdout.flush()
sys.stdin.buffer.read()
"""


def start_liar(travel: Travel, said: bytes) -> Server:
    """A host whose outpost begins as it should, and answers the first call so."""
    liar = travel.folder / "liar.py"
    liar.write_text(LIAR % said)
    begun = len(luggage.archive()) + len(wire.pack({"snapshots": None}))
    return travel.start(f"ForceCommand PYTHONPATH={SOURCE} exec {sys.executable} {liar} {begun}")


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\3[1]",
        wire.pack({"number": {}}),
        wire.pack({"number": 1, "error": [1, 2]}),
        wire.pack({"number": 1, "error": ["HostKeyUnknown"]}),
    ],
)
async def test_a_host_that_answers_nonsense_is_given_up(travel: Travel, said: bytes) -> None:
    outpost = await travel.outpost(start_liar(travel, said))
    with pytest.raises(HostUnreachable, match="nonsense"):
        await outpost.measure({})
    with pytest.raises(HostUnreachable):
        await outpost.measure({})


async def test_a_host_that_cannot_keep_anything_for_us_says_why(travel: Travel) -> None:
    server = travel.start()
    server.home.parent.mkdir(exist_ok=True)
    server.home.write_text("a file where a folder must be")
    with pytest.raises(SetupError, match="folder cannot be made"):
        await travel.outpost(server)


async def test_a_wrong_answer_is_an_error_of_its_own_call(travel: Travel) -> None:
    said = wire.pack({"number": 1, "result": [[1, {"process": "\x1b[31m"}]]})
    outpost = await travel.outpost(start_liar(travel, said))
    with pytest.raises(HostError, match="nonsense"):
        await outpost.measure({1: ()})
