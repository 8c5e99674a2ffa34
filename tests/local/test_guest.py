"""The guest's side of the contract: in shells on this machine, and in a real guest."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from swarm_tui.local import guest
from swarm_tui.local.image import Image

from .machine import ANSWER_S, Machine, boot, make_disk, make_key

HELPER = Path(guest.__file__).parent / "root/usr/bin/swarm"

HOSTILE = [
    "plain",
    "",
    " spaces  stay ",
    'quotes " \' and back\\slashes \\" \\\\ \\n',
    "newlines\nand\ttabs\r\nand a last one\n",
    "escape \x1b[31mred\x1b]52;c;AAAA\x07 \x01\x1f\x7f",
    "ünïcödé € 😀 \u202e\u200b\ufeff",
    "%s %d %% $(id) `id` ${HOME} $HOME ; | & * ? [a-z] ~",
    "-n -e --",
    '","kind":"done","text":"',
]


# The helper in every shell that it may meet


@pytest.fixture(scope="session")
def busybox(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's own busybox, with the programs that the helper needs, as a folder for PATH."""
    folder = tmp_path_factory.mktemp("busybox")
    (deb,) = (image.folder.parent.parent / "debs").glob("busybox-static_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "deb")], check=True)
    (found,) = (
        path for path in folder.rglob("busybox") if path.is_file() and path.stat().st_mode & 1
    )
    for name in ("sh", "awk", "date", "mv", "sleep"):
        (folder / name).symlink_to(found)
    return folder


class Helper:
    """`swarm` run by one shell on a folder of its own."""

    def __init__(self, folder: Path, shell: str, path: str) -> None:
        self.folder = folder
        self.command = [shell, str(HELPER)]
        self.environment = {"SWARM_RUN": str(folder), "PATH": path, "LANG": "C.UTF-8"}
        (folder / "inbox/read").mkdir(parents=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )

    def events(self) -> Sequence[dict[str, Any]]:
        lines = (self.folder / "events.jsonl").read_bytes().splitlines(keepends=True)
        assert all(line.endswith(b"\n") and len(line) < 4096 for line in lines)
        return [json.loads(line) for line in lines]

    def deliver(self, number: int, **members: str) -> None:
        text = json.dumps({"id": f"{number:04}", **members}, ensure_ascii=number % 2 == 0)
        (self.folder / f"inbox/{number:04}.json").write_text(text)


@pytest.fixture(params=["sh", "bash", "busybox"])
def helper(request: pytest.FixtureRequest, tmp_path: Path, busybox: Path) -> Helper:
    if request.param == "busybox":
        return Helper(tmp_path / "run", str(busybox / "sh"), str(busybox))
    shell = shutil.which(request.param)
    assert shell
    return Helper(tmp_path / "run", shell, "/usr/bin:/bin")


@pytest.mark.parametrize("kind", ["log", "status", "tool"])
def test_any_text_becomes_one_line_of_json(helper: Helper, kind: str) -> None:
    before = int(time.time())
    for text in HOSTILE:
        assert helper.run(kind, text).returncode == 0
    events = helper.events()
    assert [event["text"] for event in events] == HOSTILE
    assert {event["kind"] for event in events} == {kind}
    assert all(before <= event["ts"] <= time.time() for event in events)


@pytest.mark.parametrize("unit", ["x", "€", "\x01", '"', "a\n", "😀"])
def test_a_long_text_is_cut_at_a_character(helper: Helper, unit: str) -> None:
    helper.run("log", unit * 9000)
    text = helper.events()[0]["text"]
    assert text.endswith("…")
    assert text[:-1] == (unit * 9000)[: len(text) - 1]
    assert len(text) > 500


def test_usage_carries_model_and_tokens(helper: Helper) -> None:
    assert (
        helper.run("usage", "--model", 'the "big" one', "--in", "1200", "--out", "34").returncode
        == 0
    )
    (event,) = helper.events()
    assert event | {"ts": 0} == {
        "ts": 0,
        "kind": "usage",
        "text": "",
        "model": 'the "big" one',
        "tokens_in": 1200,
        "tokens_out": 34,
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["usage", "--in", "-3"],
        ["usage", "--in", "1e9"],
        ["usage", "--in", "007"],
        ["usage", "--in"],
        ["usage", "--cost", "3"],
        ["ask", "money", "please"],
        ["ask", "review"],
        ["log"],
        ["shout", "hello"],
        [],
    ],
)
def test_what_makes_no_sense_is_refused(helper: Helper, arguments: list[str]) -> None:
    done = helper.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("swarm: ")
    assert not (helper.folder / "events.jsonl").exists()


@pytest.mark.parametrize(("verdict", "status"), [("approve", 0), ("send-back", 10), ("reject", 20)])
def test_a_verdict_ends_the_wait(helper: Helper, verdict: str, status: int) -> None:
    helper.deliver(1, kind="message", text="not an answer")
    helper.deliver(2, kind="verdict", verdict=verdict, text='line 3: "kind": "message"\nno')
    done = helper.run("ask", "review", "is it good?")
    assert (done.returncode, done.stdout) == (status, 'line 3: "kind": "message"\nno\n')
    assert [event["kind"] for event in helper.events()] == ["ask", "status"]
    assert helper.events()[0]["text"] == "is it good?"
    assert {path.name for path in helper.folder.glob("inbox/*.json")} == {"0001.json"}
    assert {path.name for path in helper.folder.glob("inbox/read/*")} == {"0002.json"}


def test_a_message_answers_a_question(helper: Helper) -> None:
    helper.deliver(1, kind="message", text="blue")
    done = helper.run("ask", "question", "which colour?")
    assert (done.returncode, done.stdout) == (0, "blue\n")


def test_the_inbox_prints_any_text_once(helper: Helper) -> None:
    texts = [text for text in HOSTILE if "\r" not in text and "\a" not in text]
    for number, text in enumerate(texts):
        helper.deliver(number, kind="message", text=text)
    assert helper.run("inbox").stdout == "".join(f"{text}\n" for text in texts)
    assert helper.run("inbox").stdout == ""
    assert len(list(helper.folder.glob("inbox/read/*"))) == len(texts)


# A real guest


class Keys:
    """Key pairs that the tests' guests use."""

    def __init__(self, folder: Path) -> None:
        self.client = folder / "client"
        self.template = folder / "template"
        for path in (self.client, self.template):
            make_key(path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def machine(
    image: Image, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A guest without an identity yet: its agent must not run."""
    folder = tmp_path_factory.mktemp("machine")
    disk = make_disk(image, folder / "disk.qcow2")
    running = boot(image, folder, disk, keys.client, keys.template)
    yield running
    running.stop()


async def test_the_workspace_stands_at_the_base_commit(machine: Machine, image: Image) -> None:
    assert (await machine.run("git -C /workspace rev-parse HEAD")).strip() == image.base_commit
    assert await machine.run("cd /workspace && git status --porcelain", user="agent") == ""
    told = await machine.run("cd /workspace && python3 -S tests/run.py", user="agent")
    assert told.endswith(" passed, 0 failed\n")


async def test_the_agent_waits_for_an_identity(machine: Machine) -> None:
    assert await machine.run("cat /run/swarm/events.jsonl") == ""
    assert await machine.run("cat /run/swarm/counter") == "0\n"


async def test_the_agents_user_cannot_touch_what_is_the_supervisors(machine: Machine) -> None:
    for script in (
        "echo /sys/fs/cgroup >/run/swarm/agent.cgroup",
        "echo 0 >/sys/fs/cgroup/swarm-agent/cgroup.freeze",
        "mv /run/swarm/events.jsonl /run/swarm/gone",
        "cat /etc/dropbear/host_key",
        ": >/run/swarm/go",
    ):
        assert (await machine.attempt(script, user="agent")).exit_status != 0, script


@pytest.mark.parametrize("terminal", ["xterm-256color", "tmux-256color", "screen-256color"])
async def test_a_shell_works_in_a_terminal(machine: Machine, terminal: str) -> None:
    async with machine.connect("agent") as connection:
        process = await connection.create_process(term_type=terminal, term_size=(80, 24))

        heard = ""

        async def until(text: str) -> None:
            nonlocal heard
            try:
                async with asyncio.timeout(ANSWER_S):
                    while text not in heard:
                        heard += await process.stdout.read(4096) or pytest.fail(f"end: {heard!r}")
            except TimeoutError:
                pytest.fail(f"no {text!r} in {heard!r}")
            heard = heard.partition(text)[2]

        await until("agent@")
        process.stdin.write("stty size; pwd\n")
        await until("24 80\r\n")
        await until("/workspace")
        process.change_terminal_size(132, 50)
        process.stdin.write("sh -c 'echo began; sleep 600'\n")
        await until("\rbegan\r\n")
        process.stdin.write("\x03")
        await until("agent@")
        process.stdin.write("stty size; echo grün\n")
        await until("50 132\r\n")
        await until("grün\r\n")
        process.stdin.write("clear\n")
        await until("\x1b[H\x1b[")
        process.stdin.write("git log\n")
        await until("Convert lengths")
        process.stdin.write("q\nexit 7\n")
        await asyncio.wait_for(process.wait_closed(), ANSWER_S)
        assert process.exit_status == 7


# The agent's own pauses are seconds long: here a program in front of PATH shortens them. (The
# guest's own shell has a sleep built in, which nothing can replace, so bash runs the agent.)
START_QUICKLY = """
mkdir -p /tmp/quick
printf '#!/bin/sh\\nusleep 100000\\n' >/tmp/quick/sleep
chmod 755 /tmp/quick/sleep
printf '[user]\\n\\tname = x\\n\\temail = x@x\\n' >/home/agent/.gitconfig
mkdir /sys/fs/cgroup/quick
echo $$ >/sys/fs/cgroup/quick/cgroup.procs
setsid su -s /bin/sh agent -c 'PATH=/tmp/quick:$PATH exec bash /usr/lib/swarm/agent' \\
  >/tmp/agent.log 2>&1 </dev/null &
"""
ASKING = 'tail -n 1 /run/swarm/events.jsonl | grep \'"kind":"ask"\''


async def test_the_agent_works_for_real_and_obeys_verdicts(machine: Machine, image: Image) -> None:
    async def answer(number: int, verdict: str, text: str) -> None:
        message = {"id": f"{number}", "kind": "verdict", "verdict": verdict, "text": text}
        path = f"/run/swarm/inbox/{number}.json"
        await machine.run(f"cat >{path}.new && mv {path}.new {path}", stdin=json.dumps(message))

    async def head() -> str:
        return (await machine.run("git -C /workspace rev-parse HEAD")).strip()

    await machine.run(START_QUICKLY)
    try:
        await machine.wait_for(ASKING)
        first = await head()
        assert first != image.base_commit
        assert await machine.run("git -C /workspace status --porcelain") == ""

        await answer(1, "send-back", "list it in the README")
        await machine.wait_for("grep -q 'comments: list it' /run/swarm/events.jsonl && " + ASKING)
        second = await head()
        log = await machine.run(f"git -C /workspace log --format=%B {first}..{second}")
        assert "list it in the README" in log

        await answer(2, "approve", "")
        await machine.wait_for("grep -q 'answered: approve' /run/swarm/events.jsonl && " + ASKING)
        third = await head()
        assert third != second

        await answer(3, "reject", "not like this")
        await machine.wait_for("grep -q 'rejected: not like this' /run/swarm/events.jsonl")
        await machine.wait_for(f'test "$(git -C /workspace rev-parse HEAD)" = {second}')
    finally:
        await machine.run("echo 1 >/sys/fs/cgroup/quick/cgroup.kill")
    raw = await machine.run("cat /run/swarm/events.jsonl")
    events = [json.loads(line) for line in raw.splitlines()]
    assert {"ask", "log", "status", "tool", "usage"} == {event["kind"] for event in events}
    assert any("1 failed" in event["text"] or "Error" in event["text"] for event in events)
    assert any(event["text"].endswith(" 0 failed") for event in events)
    told = await machine.run(
        "git -C /workspace reset -q --hard && python3 -S /workspace/tests/run.py"
    )
    assert told.endswith(" passed, 0 failed\n")


COUNT = "cat /run/swarm/counter"


async def test_an_identity_is_given_and_the_agent_starts(
    machine: Machine, keys: Keys, tmp_path: Path
) -> None:
    public = make_key(tmp_path / "own")
    own = guest.dropbear_key((tmp_path / "own").read_bytes())
    now = time.time() + 86400
    said = guest.render_identity("agent-07", own, now, "Teach it furlongs\nand grains")
    async with machine.connect() as earlier:
        done = await earlier.run(guest.IDENTIFY, input=said.decode(), timeout=ANSWER_S)
        assert (done.exit_status, done.stdout, done.stderr) == (0, "", "")
        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            await machine.run("true")
        machine.host_key = public
        assert await machine.run("hostname; cat /etc/hostname") == "agent-07\nagent-07\n"
        # The connection that gave the identity goes on.
        assert (await earlier.run("hostname", timeout=ANSWER_S)).stdout == "agent-07\n"
    assert abs(int(await machine.run("date +%s")) - now) < 60
    assert len((await machine.run("cat /etc/machine-id")).strip()) == 32
    assert await machine.run("cat /run/swarm/task") == "Teach it furlongs\nand grains"
    await machine.wait_for("grep 'task: Teach it furlongs.nand grains' /run/swarm/events.jsonl")
    await machine.wait_for(f"test $({COUNT}) -ge 1")


async def test_a_frozen_agent_stands_still_and_goes_on_exactly(machine: Machine) -> None:
    await machine.run("echo 1 >$(cat /run/swarm/agent.cgroup)/cgroup.freeze")
    await machine.wait_for("grep 'frozen 1' $(cat /run/swarm/agent.cgroup)/cgroup.events")
    stood = int(await machine.run(COUNT))
    size = await machine.run("wc -c </run/swarm/events.jsonl")
    await machine.run("sleep 2.5")
    assert int(await machine.run(COUNT)) == stood
    assert await machine.run("wc -c </run/swarm/events.jsonl") == size
    script = f"echo 0 >$(cat /run/swarm/agent.cgroup)/cgroup.freeze; usleep 1500000; {COUNT}"
    assert int(await machine.run(script)) - stood in (1, 2)


async def test_the_pid_file_names_the_agents_process_group(machine: Machine) -> None:
    await machine.run("kill -STOP -$(cat /run/swarm/agent.pid)")
    stood = await machine.run(COUNT)
    await machine.run("sleep 1.5")
    assert await machine.run(COUNT) == stood
    await machine.run("kill -CONT -$(cat /run/swarm/agent.pid)")
    await machine.wait_for(f"test $({COUNT}) -gt {stood.strip()}")


async def test_a_killed_agent_is_started_again(machine: Machine) -> None:
    before = (await machine.run("cat /run/swarm/agent.pid")).strip()
    count = (await machine.run(COUNT)).strip()
    await machine.run(f"kill -KILL {before}")
    after = await machine.wait_for(f"cat /run/swarm/agent.pid | grep -vx {before}")
    members = await machine.wait_for("grep . /sys/fs/cgroup/swarm-agent/cgroup.procs")
    assert after.strip() in members.split()
    assert before not in members.split()
    await machine.wait_for(f"test $({COUNT}) -gt {count}")


async def test_refresh_sets_the_clock(machine: Machine) -> None:
    entropy = base64.b64encode(bytes(64)).decode()
    await machine.run(f"{guest.REFRESH} 2000000000", stdin=entropy)
    assert 0 <= int(await machine.run("date +%s")) - 2000000000 < 60
    done = await machine.attempt(f"{guest.REFRESH} never", stdin=entropy)
    assert done.exit_status != 0


async def test_forks_of_one_checkpoint_are_different_guests(
    image: Image, keys: Keys, tmp_path: Path
) -> None:
    disk = make_disk(image, tmp_path / "template.qcow2")
    template = boot(image, tmp_path / "template", disk, keys.client, keys.template)
    try:
        await template.run("true")
        template.command("stop")
        template.command("savevm warm")
    finally:
        template.stop()

    facts = (
        "cat /etc/machine-id; hostname; head -c 32 /dev/urandom | base64; "
        "cat /proc/sys/kernel/random/uuid"
    )
    told = []
    for name in ("fork-1", "fork-2"):
        copy = tmp_path / f"{name}.qcow2"
        shutil.copyfile(disk, copy)
        restored = ["-loadvm", "warm"]
        fork = boot(image, tmp_path / name, copy, keys.client, keys.template, restored)
        try:
            public = make_key(tmp_path / f"key-{name}")
            own = guest.dropbear_key((tmp_path / f"key-{name}").read_bytes())
            said = guest.render_identity(name, own, time.time())
            await fork.run(guest.IDENTIFY, stdin=said.decode())
            fork.host_key = public
            told.append((await fork.run(facts)).split())
        finally:
            fork.stop()
    assert all(len(facts) == 4 for facts in told)
    assert all(one != other for one, other in zip(*told, strict=True))


# What the host makes for it


def test_only_a_plain_ed25519_key_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="OpenSSH private key"):
        guest.dropbear_key(b"-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n")
    with pytest.raises(ValueError, match="OpenSSH private key"):
        guest.dropbear_key(b"")
    for name, options, complaint in (
        ("locked", ["-t", "ed25519", "-N", "secret"], "passphrase"),
        ("ecdsa", ["-t", "ecdsa", "-N", ""], "ed25519"),
    ):
        path = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", *options, "-f", str(path)], check=True)
        with pytest.raises(ValueError, match=complaint):
            guest.dropbear_key(path.read_bytes())


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "ü", "x" * 64, "a=b;rm"])
def test_a_name_that_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        guest.render_identity(name, b"", 0.0)
