"""The outpost's loop as it runs on a host: sent as an archive to a Python with nothing of ours.

Only SSH is missing here: the login shell is this machine's `sh`, with pipes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm_tui.errors import Busy, HostError, HostKeyUnknown, SnapshotError, SwarmError
from swarm_tui.model import AgentId, HostName, Record, Snapshot, SnapshotId
from swarm_tui.outpost import luggage, process, wire
from swarm_tui.outpost.desk import NAMES
from swarm_tui.outpost.ledger import Ledger
from swarm_tui.outpost.serve import READY
from swarm_tui.premises import Footprint, Process
from swarm_tui.snapshot import Draft, Snapshots
from swarm_tui.text import literal

AGENT = AgentId("6f1c7b0e-0000-4000-8000-000000000001")
OTHER = AgentId("6f1c7b0e-0000-4000-8000-000000000002")
MAKER = "CH 52.0.0"


class Far:
    """An outpost in a process of its own, and what it needs to be asked."""

    def __init__(self, home: Path, snapshots: Path | None = None) -> None:
        self.process = subprocess.Popen(
            ["sh", "-c", luggage.command()],
            cwd="/",
            env={"PATH": os.environ["PATH"], "SWARM_TUI_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._number = 0
        self._send(luggage.archive())
        self._send(wire.pack({"snapshots": wire.encode(snapshots)}))

    def begin(self) -> None:
        assert self.process.stdout
        assert self.process.stdout.read(len(READY)) == READY
        assert self.receive() == {"number": 0, "result": None}

    def call(self, call: Callable[..., Any], *arguments: object) -> int:
        """Ask without waiting; returns the number that the answer will bear."""
        self._number += 1
        encoded = wire.encode_arguments(arguments)
        message = {"number": self._number, "call": NAMES[call], "arguments": encoded}
        self._send(wire.pack(message))
        return self._number

    def ask(self, call: Callable[..., Any], *arguments: object) -> Any:
        number = self.call(call, *arguments)
        answer = self.receive()
        assert answer["number"] == number
        if "error" in answer:
            raise wire.decode_error(answer["error"])
        return wire.decode_result(call, answer["result"])

    def receive(self) -> Any:
        assert self.process.stdout
        size = wire.length(self.process.stdout.read(wire.LENGTH.size))
        return wire.unpack(self.process.stdout.read(size))

    def hang_up(self) -> None:
        """As a cut connection does."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()

    def end(self) -> int:
        self.hang_up()
        return self.process.wait(30)

    def _send(self, content: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(content)
        self.process.stdin.flush()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    far = Far(tmp_path / "home")
    far.begin()
    yield far
    assert far.end() == 0


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk.img"
    disk.write_text("the agent's work")
    return disk


def plan(far: Far, disk: Path, agent: AgentId = AGENT) -> Draft:
    draft: Draft = far.ask(Snapshots.draft, agent)
    record = Record(agent, literal("ember"), HostName("lab"), is_frozen=True)
    far.ask(Snapshots.plan, draft, record, "<domain/>", MAKER, [disk])
    return draft


def test_only_what_is_needed_is_sent() -> None:
    """Whatever the loop imports of ours is in the archive, and nothing else is."""
    script = (
        "import sys, swarm_tui.outpost.serve\n"
        "for name, module in sys.modules.items():\n"
        "    if name.partition('.')[0] == 'swarm_tui': print(module.__file__)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    root = Path(luggage.__file__).parents[1]
    assert sorted(str(Path(file).relative_to(root)) for file in loaded) == sorted(luggage.MODULES)
    assert len(luggage.archive()) < 100_000


def test_nothing_is_written_but_in_our_folder(far: Far, tmp_path: Path) -> None:
    far.ask(Ledger.keep, AGENT, "facts", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"home"}
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"data"}
    assert not Path(f"/proc/{far.process.pid}/cwd/swarm_tui").exists()


def test_calls_are_answered_as_they_would_be_here(far: Far, tmp_path: Path) -> None:
    here = process.find(os.getpid())
    footprints: dict[int, Footprint] = far.ask(process.measure, {os.getpid(): ["lo"]})
    assert footprints[os.getpid()].process == here
    assert far.ask(process.holders, [tmp_path / "nowhere"]) == {}
    assert far.ask(process.end, Process(os.getpid(), 1)) is None
    far.ask(Ledger.keep, AGENT, "facts", "grün \x00")
    assert far.ask(Ledger.kept, "facts") == {AGENT: "grün \x00"}


def test_a_snapshot_is_made_and_restored_there(far: Far, disk: Path, tmp_path: Path) -> None:
    draft = plan(far, disk)
    assert not far.ask(Snapshots.has_memory, draft)
    draft.memory.write_text("all that it thinks")
    assert far.ask(Snapshots.has_memory, draft)
    assert far.ask(Snapshots.drafts, AGENT) == [draft]
    assert far.ask(Snapshots.is_torn, draft) is False
    made: Snapshot = far.ask(Snapshots.seal, AGENT, draft)
    assert made == Snapshots(tmp_path / "home/data/snapshots").read(AGENT, made.id)
    assert far.ask(Snapshots.ids, AGENT) == [made.id]
    assert not disk.exists()
    far.ask(Snapshots.verify, AGENT, made.id, MAKER)
    memory: Path = far.ask(Snapshots.stage, AGENT, made.id)
    assert memory.read_text() == "all that it thinks"
    assert disk.read_text() == "the agent's work"
    with pytest.raises(SnapshotError, match="another hypervisor version"):
        far.ask(Snapshots.verify, AGENT, made.id, "CH 51.0.0")
    assert far.ask(Snapshots.prune, AGENT, [made.id]) == [made.id]


def test_snapshots_are_kept_where_it_is_said(tmp_path: Path, disk: Path) -> None:
    far = Far(tmp_path / "home", tmp_path / "elsewhere")
    far.begin()
    draft = plan(far, disk)
    assert draft.folder.parent == tmp_path / "elsewhere" / AGENT
    assert far.end() == 0


def test_what_had_begun_is_finished_after_a_cut(tmp_path: Path, disk: Path) -> None:
    """And the next outpost waits for it, instead of coming in between."""
    far = Far(tmp_path / "home")
    next_one = Far(tmp_path / "home")
    far.begin()
    next_one.begin()
    draft = plan(far, disk)
    with open(draft.memory, "wb") as memory:
        memory.write(os.urandom(1 << 20) * 256)
    far.call(Snapshots.seal, AGENT, draft)
    while disk.exists():  # it begins with the disk
        time.sleep(0.001)
    far.process.send_signal(signal.SIGSTOP)
    far.hang_up()
    assert draft.folder.exists()
    number = next_one.call(Snapshots.ids, AGENT)
    assert next_one.ask(process.measure, {}) == {}
    far.process.send_signal(signal.SIGCONT)
    assert next_one.receive() == {"number": number, "result": [draft.id]}
    assert next_one.end() == 0
    assert far.process.wait(30) == 0


def test_many_calls_are_at_work_at_once(far: Far, disk: Path) -> None:
    """A slow one holds up nobody else."""
    draft = plan(far, disk)
    with open(draft.memory, "wb") as memory:
        memory.write(os.urandom(1 << 20) * 256)
    slow = far.call(Snapshots.seal, AGENT, draft)
    numbers = [far.call(process.measure, {os.getpid(): ()}) for _ in range(20)]
    answered = [far.receive()["number"] for _ in range(21)]
    assert sorted(answered) == [slow, *numbers]
    assert answered[-1] == slow


def test_errors_come_back_as_they_were(far: Far) -> None:
    with pytest.raises(SnapshotError) as caught:
        far.ask(Snapshots.read, AGENT, SnapshotId("20260101T000000Z-abc"))
    assert caught.value.title == "The snapshot is not whole"
    assert "manifest.json" in caught.value.detail
    assert "look at" in caught.value.hint


def test_no_call_can_leave_the_snapshots(far: Far) -> None:
    for agent, snapshot in ((AgentId("../x"), "y"), (AGENT, "../y"), (AGENT, ".")):
        with pytest.raises(HostError, match="failed at a call"):
            far.ask(Snapshots.read, agent, SnapshotId(snapshot))


def test_a_message_that_makes_no_sense_ends_it(tmp_path: Path) -> None:
    far = Far(tmp_path / "home")
    far.begin()
    far._send(wire.LENGTH.pack(3) + b"[1]")
    assert far.process.wait(30) != 0
    far.hang_up()


def test_an_old_python_is_told(tmp_path: Path) -> None:
    """A stand-in for one: it says so of itself, and is not one."""
    fake = tmp_path / "bin/python3"
    fake.parent.mkdir()
    old = "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2'; exec(sys.argv.pop(1))"
    fake.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -I -c "{old}" "$@"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", luggage.command()],
        env={"PATH": f"{fake.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (luggage.OLD_PYTHON, b"3.9.2\n")


def test_whoever_asks_at_once_waits_in_turn(far: Far, tmp_path: Path) -> None:
    """Drafts of one agent by two outposts are made one after the other, of two agents freely."""
    second = Far(tmp_path / "home")
    second.begin()
    made: list[Draft] = []
    threads = [
        threading.Thread(target=lambda o=outpost, a=agent: made.append(o.ask(Snapshots.draft, a)))
        for outpost, agent in ((far, AGENT), (second, AGENT))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert far.ask(Snapshots.drafts, AGENT) == sorted(made, key=lambda draft: draft.id)
    assert second.ask(Snapshots.drafts, OTHER) == []
    assert second.end() == 0


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (int, True),
        (int, 1 << 63),
        (int, 1.0),
        (float, "1"),
        (str, 1),
        (Path, "a\0b"),
        (type(None), 0),
        (Process, {"pid": 1}),
        (Process, {"pid": 1, "started": 2, "more": 3}),
        (Process, {"pid": 1, "started": "2"}),
        (SnapshotId, "../x"),
        (AgentId, "a/b"),
        (AgentId, ""),
    ],
)
def test_what_is_not_of_its_type_is_not_taken(kind: Any, raw: object) -> None:
    with pytest.raises(wire.Garbled):
        wire.decode(kind, raw)


@pytest.mark.parametrize(
    "raw", [b"[" * 100_000, b"\xff", b"[]", b'{"a": NaN}', b"{", b'{"a": 1' + b"0" * 5000 + b"}"]
)
def test_no_message_breaks_the_reader(raw: bytes) -> None:
    with pytest.raises(wire.Garbled):
        wire.unpack(raw)


def test_foreign_text_is_made_safe_on_its_way() -> None:
    raw = wire.encode(Snapshot(SnapshotId("x"), AGENT, literal("x"), 1.0, 2, "CH", False, {}))
    raw["name"] = "\x1b[31mred"
    assert wire.decode(Snapshot, raw).name == "␛[31mred"
    told = wire.decode_error(["Busy", "\x1b[31m", "", ""])
    assert (type(told), told.title) == (Busy, "␛[31m")


@pytest.mark.parametrize("name", ["Nonsense", "SwarmError", "Exception", "HostKeyUnknown"])
def test_an_error_of_no_known_class_is_one_of_the_host(name: str) -> None:
    told = wire.decode_error([name, "title", "", ""])
    assert isinstance(told, SwarmError)
    assert not isinstance(told, HostKeyUnknown)
