"""The audit log as a chain: what was altered, moved or removed is found, a crash is not blamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm_tui.audit import Audit, Outcome
from swarm_tui.audit.chain import Chain
from swarm_tui.errors import AuditError
from swarm_tui.model import Verb

from .standin import AGENT
from .steps import fork


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def write(path: Path, count: int) -> None:
    audit = Audit(path)
    for number in range(count):
        audit.intend(Verb.PAUSE, agent=AGENT, name=f"agent-{number}", host="local")


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_log_that_nobody_touched_holds(path: Path) -> None:
    assert Chain(path).verify().head is None
    write(path, 5)
    proof = Chain(path).verify()
    assert proof.head
    assert (proof.head.seq, proof.unchained, proof.torn) == (5, 0, ())


def changed(found: list[bytes]) -> list[bytes]:
    return [*found[:2], found[2].replace(b"pause", b"kill!"), *found[3:]]


def swapped(found: list[bytes]) -> list[bytes]:
    return [*found[:2], found[3], found[2], *found[4:]]


TAMPERING: list[tuple[Callable[[list[bytes]], list[bytes]], str]] = [
    (changed, "line 4: what stands before it, number 3, is not what was written"),
    (swapped, "line 3: 1 line is missing before it"),
    (lambda found: [*found[:1], *found[3:]], "line 2: 2 lines are missing before it"),
    (lambda found: found[1:], "line 1: 1 line is missing before it"),
    (lambda found: [*found[:3], *found[2:]], "line 4: number 3 is there again, behind 3"),
    (lambda found: [*found[:3], b"{}\n", *found[3:]], "line 4: it was not written as a part"),
    (lambda found: [*found[:3], b"x\n", *found[3:]], "line 5: what stands before it, number 3"),
    (lambda found: [b"x\n", *found], "line 2: what stands before it, number 0"),
    (lambda found: [*found, b"y" * (1 << 20) + b"\n"], "line 7: it is longer than any"),
]


@pytest.mark.parametrize(("tamper", "told"), TAMPERING)
def test_the_first_wrong_line_is_told(
    path: Path, tamper: Callable[[list[bytes]], list[bytes]], told: str
) -> None:
    write(path, 6)
    path.write_bytes(b"".join(tamper(lines(path))))
    with pytest.raises(AuditError) as raised:
        Chain(path).verify()
    assert told in raised.value.detail


def test_a_line_of_another_log_is_told(path: Path, tmp_path: Path) -> None:
    write(path, 2)
    write(tmp_path / "other", 3)
    path.write_bytes(path.read_bytes() + lines(tmp_path / "other")[2])
    with pytest.raises(AuditError) as raised:
        Chain(path).verify()
    assert "line 3: it is of another log" in raised.value.detail


def test_an_older_log_is_the_beginning_of_the_chain(path: Path) -> None:
    old = [json.dumps({"record": "intent", "id": str(number)}) + "\n" for number in range(3)]
    path.write_text("".join(old) + '{"record": "out')
    write(path, 2)
    proof = Chain(path).verify()
    assert proof.head
    assert (proof.head.seq, proof.unchained) == (2, 4)
    assert len(Audit(path).recent()) == 5
    path.write_bytes(path.read_bytes().replace(b'"id": "1"', b'"id": "7"'))
    with pytest.raises(AuditError) as raised:
        Chain(path).verify()
    assert "line 5: what stands before it" in raised.value.detail


@pytest.mark.parametrize("length", [1, 40, 150])
def test_what_a_crash_cut_short_is_no_tampering(path: Path, length: int) -> None:
    write(path, 2)
    whole = lines(path)
    path.write_bytes(whole[0] + whole[1][:length])
    proof = Chain(path).verify()
    assert proof.head
    assert (proof.head.seq, proof.torn) == (1, (2,))
    write(path, 2)
    proof = Chain(path).verify()
    assert proof.head
    assert (proof.head.seq, proof.torn) == (3, (2,))
    # The torn line is held by the next one, too: it cannot be taken away, nor the one before it.
    for gone in (0, 1):
        found = lines(path)
        Path(f"{path}-{gone}").write_bytes(b"".join(found[:gone] + found[gone + 1 :]))
        with pytest.raises(AuditError):
            Chain(Path(f"{path}-{gone}")).verify()


def test_a_line_that_only_lacks_its_end_counts(path: Path) -> None:
    write(path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    write(path, 1)
    proof = Chain(path).verify()
    assert proof.head
    assert (proof.head.seq, proof.torn) == (3, ())


def test_lines_may_be_longer_than_what_is_read_at_once(path: Path) -> None:
    audit = Audit(path)
    for size in (10, 300_000, 20, 70_000):
        audit.intend(Verb.SPAWN, agent="", name="", host="local", detail="ü" * size)
    proof = audit.verify().proof
    assert proof.head
    assert proof.head.seq == 4


def test_processes_make_one_chain(path: Path) -> None:
    children = []
    for _ in range(4):
        child = fork()
        if child == 0:
            write(path, 25)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    proof = Chain(path).verify()
    assert proof.head
    assert proof.head.seq == 100


def test_all_since_a_time_is_read(path: Path) -> None:
    old = json.dumps({"record": "intent", "id": "old", "at": 1000.0, "verb": "kill"})
    filler = json.dumps({"record": "intent", "id": "x", "detail": "y" * 1000})
    path.write_text(old + "\n" + f"{filler}\n" * 1100)
    audit = Audit(path)
    audit.conclude("old", Outcome.DONE)
    assert [act.verb for act in audit.since(999.0) if act.id == "old"] == ["kill"]
    assert not audit.since(1001.0)
