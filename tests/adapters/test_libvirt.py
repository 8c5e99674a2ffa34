"""What is libvirt's own about the libvirt adapter: URIs, lost connections, foreign text, errors."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from swarm_tui.adapters.connection import Deadlines, without_prompts
from swarm_tui.adapters.domain import XML_CAP, counters_of, parse_definition, power_of
from swarm_tui.adapters.fault import Code, Fault, to_error
from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.errors import (
    AgentGone,
    Busy,
    ConfigError,
    DeadlineExceeded,
    HostDenied,
    HostError,
    HostUnreachable,
    Refused,
    StorageFull,
    SwarmError,
    Unsupported,
)
from swarm_tui.local.daemon import place
from swarm_tui.model import Counters, Hint, Power

from .backends import DATA, HOST, shared_daemon

WAIT_S = 10.0
AGENT = "<uuid>00000000-0000-4000-8000-000000000001</uuid>"


async def until_heard(hints: list[Hint], kind: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while kind not in [hint.kind for hint in hints]:  # noqa: ASYNC110 - libvirt's thread adds
            await asyncio.sleep(0.01)


# URIs


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://host/system?no_verify=1",
        "qemu+ssh://host/system?socket=/s&NO_VERIFY=1",
        "qemu+ssh://host/system?socket=/s;no_verify=1",
        "qemu+ssh://host/system?no%5Fverify=1",
        "qemu+tls://host/system?no_verify",
        "an-alias-for-anything",
        "",
    ],
)
def test_refuses_a_uri_that_trusts_anybody(uri: str) -> None:
    with pytest.raises(ConfigError):
        LibvirtHypervisor(HOST, uri)


@pytest.mark.parametrize(
    ("uri", "quiet"),
    [
        ("qemu+ssh://host/system", "qemu+ssh://host/system?no_tty=1"),
        ("qemu+ssh://host/system?socket=/s", "qemu+ssh://host/system?socket=/s&no_tty=1"),
        ("qemu+ssh://host/system?no_tty=1", "qemu+ssh://host/system?no_tty=1"),
        ("qemu:///system", "qemu:///system"),
        ("test:///default", "test:///default"),
    ],
)
def test_ssh_never_asks_on_our_terminal(uri: str, quiet: str) -> None:
    assert without_prompts(uri) == quiet


# Daemons that are not there, or not any more


async def test_no_daemon_is_out_of_reach(tmp_path: Path) -> None:
    hypervisor = LibvirtHypervisor(HOST, f"qemu+unix:///system?socket={tmp_path}/none")
    with pytest.raises(HostUnreachable) as caught:
        await hypervisor.open(lambda _: None)
    assert "libvirtd" in caught.value.hint
    with pytest.raises(HostUnreachable):
        await hypervisor.list()
    await hypervisor.close()


async def test_a_daemon_that_never_answers_is_given_up(short_folder: Path) -> None:
    path = short_folder / "silent"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        hypervisor = LibvirtHypervisor(
            HOST, f"qemu+unix:///system?socket={path}", deadlines=Deadlines(open_s=0.3)
        )
        with pytest.raises(DeadlineExceeded):
            await hypervisor.open(lambda _: None)
        with pytest.raises(HostUnreachable):
            await hypervisor.list()
        await hypervisor.close()


class Wire:
    """A socket to the real daemon that can be cut, or go silent."""

    def __init__(self, path: Path, uri: str, target: Path) -> None:
        self.path = path
        self.uri = uri.replace("qemu:", "qemu+unix:") + f"?socket={path}"
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []
        self._is_open = asyncio.Event()
        self._is_open.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        self._writers += [writer, far_writer]
        with suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._is_open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    def hush(self) -> None:
        self._is_open.clear()

    def speak(self) -> None:
        self._is_open.set()

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Sockets have at most 107 characters."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture
async def wire(short_folder: Path) -> AsyncIterator[Wire]:
    uri = shared_daemon()
    made = Wire(short_folder / "wire", uri, place()[1] / "libvirt-sock")
    server = await asyncio.start_unix_server(made.accept, made.path)
    yield made
    made.speak()
    made.cut()
    server.close()


async def test_a_lost_connection_is_told_and_opened_again(wire: Wire) -> None:
    hints: list[Hint] = []
    hypervisor = LibvirtHypervisor(HOST, wire.uri)
    await hypervisor.open(hints.append)
    await hypervisor.list()
    wire.cut()
    await until_heard(hints, "closed")
    assert hints[-1] == Hint(None, "closed")
    with pytest.raises(HostUnreachable):
        await hypervisor.list()
    hints.clear()
    await hypervisor.open(hints.append)
    await hypervisor.list()
    assert hints == []
    await hypervisor.close()


async def test_a_connection_cut_under_a_call_is_out_of_reach(wire: Wire) -> None:
    hypervisor = LibvirtHypervisor(HOST, wire.uri)
    await hypervisor.open(lambda _: None)
    wire.hush()
    asking = asyncio.ensure_future(hypervisor.list())
    done, _ = await asyncio.wait({asking}, timeout=0.2)
    assert done == set()
    wire.cut()
    with pytest.raises(HostUnreachable):
        await asking
    await hypervisor.close()


async def test_a_silent_host_blocks_no_later_call_for_ever(wire: Wire) -> None:
    hypervisor = LibvirtHypervisor(
        HOST,
        wire.uri,
        deadlines=Deadlines(read_s=0.2, act_s=0.2),
    )
    await hypervisor.open(lambda _: None)
    wire.hush()
    for _ in range(4):  # more than may be in flight
        with pytest.raises(DeadlineExceeded):
            await hypervisor.list()
    wire.speak()
    await _list_at_last(hypervisor)
    await hypervisor.close()


async def _list_at_last(hypervisor: LibvirtHypervisor) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await hypervisor.list()
            except DeadlineExceeded:
                continue
            return


# Text that others wrote


def test_a_definition_of_entities_is_not_read() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    with pytest.raises(HostError):
        parse_definition(f"{bomb}<domain>{AGENT}<name>&b;</name></domain>")


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain>",
        f"<network>{AGENT}</network>",
        "<domain><name>x</name></domain>",
        "<domain><uuid>../../etc</uuid></domain>",
        f"<domain>{AGENT}{' ' * XML_CAP}</domain>",
    ],
    ids=["empty", "torn", "network", "no-uuid", "bad-uuid", "long"],
)
def test_what_is_no_definition_is_not_read(xml: str) -> None:
    with pytest.raises(HostError):
        parse_definition(xml)


def test_a_hostile_name_is_made_safe() -> None:
    definition = parse_definition(f"<domain>{AGENT}<name>a\u202eb&#x9b;31m</name></domain>")
    assert "\u202e" not in definition.name
    assert "\x9b" not in definition.name
    assert definition.tag is None


def test_reads_what_it_uses_of_a_definition() -> None:
    host = (DATA / "host.xml").read_text()
    first = re.findall("<domain .*?</domain>", host, re.DOTALL)[0]
    definition = parse_definition(first)
    assert definition.memory_bytes == 256 << 20
    assert definition.vcpus == 1
    assert definition.disks == (Path("/disks/agent-01.qcow2"),)
    assert definition.tag
    assert definition.tag.address
    assert definition.tag.address.port == 22101


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        ("<memory unit='KiB'>4</memory>", 4096),
        ("<memory>4</memory>", 4096),
        ("<memory unit='parsecs'>4</memory>", None),
        ("<memory>-4</memory>", None),
        ("<memory>99999999999999999999999</memory>", None),
        ("", None),
    ],
)
def test_a_size_that_cannot_be_read_is_unknown(memory: str, size: int | None) -> None:
    assert parse_definition(f"<domain>{AGENT}{memory}</domain>").memory_bytes == size


async def test_a_changed_definition_is_seen() -> None:
    hypervisor = LibvirtHypervisor(HOST, f"test://{DATA / 'host.xml'}")
    await hypervisor.open(lambda _: None)
    vm, *_ = sorted(await hypervisor.list(), key=lambda vm: vm.name)
    definition = await hypervisor.definition(vm.id)
    await hypervisor.destroy(vm.id)
    await hypervisor.define(definition.replace("Sort the imports", "Sort them again"))
    assert {vm.id: vm for vm in await hypervisor.list()}[vm.id].tag.task == "Sort them again"
    await hypervisor.close()


# Numbers and words of libvirt's


def test_counters_are_bytes_and_totals() -> None:
    told = {
        "cpu.time": 12,
        "balloon.current": 262144,
        "balloon.available": 240000,
        "balloon.usable": 200000,
        "balloon.rss": 150000,
        "block.count": 2,
        "block.0.rd.bytes": 1,
        "block.0.wr.bytes": 10,
        "block.1.rd.bytes": 2,
        "net.count": 1,
        "net.0.rx.bytes": 7,
        "net.0.tx.bytes": 8,
    }
    assert counters_of(told, 1.5) == Counters(
        monotonic=1.5,
        cpu_ns=12,
        memory_used=40000 << 10,
        memory_given=256 << 20,
        memory_host=150000 << 10,
        disk_read=3,
        disk_written=10,
        net_received=7,
        net_sent=8,
    )
    assert counters_of({"net.count": 0}, 2.0) == Counters(monotonic=2.0)


@pytest.mark.parametrize(
    ("state", "reason", "power", "words"),
    [
        (1, 5, Power.RUNNING, "resumed"),
        (1, 7, Power.RUNNING, "saving failed"),
        (3, 3, Power.PAUSED, "saving"),
        (3, 5, Power.PAUSED, "I/O error"),
        (3, 10, Power.CRASHED, "crashed"),
        (5, 3, Power.CRASHED, "crashed"),
        (5, 5, Power.OFF, "saved"),
        (6, 1, Power.CRASHED, "guest panic"),
        (7, 0, Power.PAUSED, "asleep"),
        (0, 0, Power.UNKNOWN, ""),
        (99, 1, Power.UNKNOWN, ""),
        (5, 99, Power.OFF, ""),
    ],
)
def test_a_state_is_told_in_our_words(state: int, reason: int, power: Power, words: str) -> None:
    assert power_of(state, reason) == (power, words)


FORWARD = "Could not set up host forwarding rule 'tcp:127.0.0.1:22101-:22'"


@pytest.mark.parametrize(
    ("fault", "error", "hint"),
    [
        (Fault(Code.NO_DOMAIN, -1, "Domain not found"), AgentGone, ""),
        (Fault(Code.NO_SUPPORT, -1, "not supported by the driver"), Unsupported, ""),
        (Fault(Code.ARGUMENT_UNSUPPORTED, -1, "no such flag"), Unsupported, ""),
        (Fault(Code.CONFIG_UNSUPPORTED, -1, "no such device"), Unsupported, ""),
        (Fault(Code.OPERATION_INVALID, -1, "domain is not running"), Refused, ""),
        (Fault(9, -1, "domain 'a' already exists with uuid 1-2"), Refused, ""),
        (Fault(Code.OPERATION_TIMEOUT, -1, "cannot acquire state change lock"), Busy, "again"),
        (Fault(Code.ACCESS_DENIED, -1, "access denied"), HostDenied, "libvirt"),
        (Fault(Code.SYSTEM_ERROR, errno.EACCES, "cannot open /x"), HostDenied, "libvirt"),
        (Fault(Code.SYSTEM_ERROR, errno.ENOSPC, "kann nicht schreiben"), StorageFull, "space"),
        (Fault(9, -1, "failure with /x: No space left on device"), StorageFull, "space"),
        (Fault(1, -1, f"process exited: {FORWARD}"), HostError, "22101"),
        (Fault(1, -1, "cannot set up guest memory: Cannot allocate memory"), HostError, "memory"),
        (Fault(38, 2, "Failed to connect socket to virtlogd-sock"), HostError, "virtlogd"),
        (Fault(1, -1, "who knows"), HostError, ""),
        (Fault(None, None, ""), HostError, ""),
    ],
)
def test_a_failed_call_is_told_in_our_words(
    fault: Fault, error: type[SwarmError], hint: str
) -> None:
    told = to_error(fault, HOST, "save the VM", is_connected=True)
    assert type(told) is error
    assert hint in told.hint
    assert sanitized(fault.message) in told.detail


@pytest.mark.parametrize(
    ("fault", "error", "hint"),
    [
        (Fault(38, errno.ENOENT, "Failed to connect socket"), HostUnreachable, "libvirtd"),
        (Fault(38, errno.ECONNREFUSED, "Connection refused"), HostUnreachable, "libvirtd"),
        (Fault(38, errno.EACCES, "Failed to connect socket"), HostDenied, "group libvirt"),
        (Fault(Code.AUTH_UNAVAILABLE, -1, "polkit: no agent"), HostDenied, "polkit"),
        (Fault(38, 104, "End of file: Permission denied (publickey)"), HostDenied, "ssh"),
        (Fault(38, 104, "End of file: Host key verification failed."), HostDenied, "ssh"),
        (Fault(Code.INVALID_CONN, -1, "invalid connection"), HostUnreachable, ""),
        (Fault(1, -1, "client socket is closed"), HostUnreachable, ""),
        (Fault(Code.NO_CONNECT, -1, "no connection driver"), Unsupported, ""),
    ],
)
def test_a_host_out_of_reach_is_told_with_the_cure(
    fault: Fault, error: type[SwarmError], hint: str
) -> None:
    told = to_error(fault, HOST, "connect", is_connected=False)
    assert type(told) is error
    assert hint in told.hint


def sanitized(message: str) -> str:
    return message.splitlines()[0] if message else ""
