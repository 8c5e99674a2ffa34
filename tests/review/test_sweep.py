"""Many files at once: read and compared as they are one by one, and looked at for flags."""

from __future__ import annotations

import pytest

from swarm_tui.handoff import Flag, FlagKind
from swarm_tui.review import sweep
from swarm_tui.review.desk import find_flags, read_file
from swarm_tui.review.diff import make

from .corpus import Workshop, commit

LINES = [f"line {number}\n" for number in range(200)]
SIGNS = "@@ -1,2 +3,4 @@\nindex 1234567..89abcde\ndiff --git a/x b/x\n--- a\n+++ b\n"


def begin(workshop: Workshop, name: str, content: str | bytes) -> None:
    """A file that is in the base."""
    raw = content if isinstance(content, bytes) else content.encode()
    (workshop.owner / name).write_bytes(raw)
    workshop.base = commit(workshop.owner, "Begin")
    workshop.git("pull", "-q", str(workshop.owner), "HEAD")


async def of_all_kinds(workshop: Workshop) -> str:
    """Work with every kind of change; its head."""
    for name in ("one.txt", "two.txt"):
        begin(workshop, name, "".join(LINES))
        workshop.write(name, "".join([*LINES[1:50], "new\n", *LINES[60:]]))  # the same twice
    begin(workshop, "signs.txt", SIGNS + "old\n" + SIGNS)
    workshop.write("signs.txt", SIGNS + SIGNS + SIGNS + "new")
    begin(workshop, "end.txt", "last")
    workshop.write("end.txt", "last\n")
    begin(workshop, "binary", b"\0one")
    workshop.write("binary", b"\0two")
    begin(workshop, "was.txt", "x\n" + "".join(LINES))
    workshop.git("mv", "was.txt", "moved\nonce.txt")
    workshop.write("moved\nonce.txt", "y\n" + "".join(LINES[:-1]))
    workshop.write("large.txt", b"large\n" * (2 << 20))
    workshop.write("empty", "")
    (workshop.workspace / "file0.py").unlink()
    (workshop.workspace / "file1.py").unlink()
    (workshop.workspace / "file1.py").symlink_to("file2.py")
    (workshop.workspace / "file3.py").chmod(0o755)
    workshop.write("file4.py", "print(4)\r\n" * 30)
    workshop.commit()
    return (await workshop.pull()).head


@pytest.mark.parametrize("most_spans", [sweep.MOST_SPANS, 3, 0])
async def test_all_are_told_as_each_one_is(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, most_spans: int
) -> None:
    monkeypatch.setattr(sweep, "MOST_SPANS", most_spans)
    monkeypatch.setattr(sweep, "_PORTION", 4)
    head, quarantine = await of_all_kinds(workshop), workshop.quarantine
    changes = (await quarantine.survey(workshop.base, head)).changes
    assert {change.status for change in changes} >= {"new", "deleted", "renamed", "retyped", "mode"}
    portions = [each async for each in quarantine.contents(workshop.base, head, changes)]
    assert len(portions) == -(-len(changes) // 4)
    sides = [side for portion in portions for side in portion]
    assert [side.change for side in sides] == list(changes)
    for side in sides:
        assert make(side.change, side.old, side.new, side.spans) == await read_file(
            quarantine, side.change
        ), side.change.name


async def test_files_are_not_compared_one_by_one(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2, 20):
        begin(workshop, f"file{number}.py", "".join(LINES) * 40)
        changed = [f"{line[:-1]} changed\n" if at % 9 else line for at, line in enumerate(LINES)]
        workshop.write(f"file{number}.py", "".join(changed) + "".join(LINES) * 39)
    workshop.commit()
    head = (await workshop.pull()).head
    changes = (await workshop.quarantine.survey(workshop.base, head)).changes

    async def alone(*_: object) -> None:
        raise AssertionError("a file was compared by itself")

    monkeypatch.setattr("swarm_tui.review.survey.spans", alone)
    portions = [each async for each in workshop.quarantine.contents(workshop.base, head, changes)]
    counts = [len(side.spans) for portion in portions for side in portion]
    assert counts == [23] * 18


async def flags_of(workshop: Workshop) -> list[Flag]:
    head = (await workshop.pull()).head
    survey = await workshop.quarantine.survey(workshop.base, head)
    return list(await find_flags(workshop.quarantine, survey, workshop.base, head))


async def test_flags_are_found_in_every_file(workshop: Workshop) -> None:
    for number in range(20):
        workshop.write(f"file{number}.py", f"print('\u202e{number}')\n")
    found = await flags_of(workshop)
    assert {flag.path for flag in found} == {b"file%d.py" % number for number in range(20)}
    assert {flag.kind for flag in found} == {FlagKind.HIDDEN}


async def test_a_new_name_that_clashes_with_an_unchanged_file_is_flagged(
    workshop: Workshop,
) -> None:
    workshop.write("File7.py", "print('another')\n")
    [flag] = await flags_of(workshop)
    assert (flag.kind, flag.path) == (FlagKind.CASE_CLASH, b"File7.py")
    assert "file7.py" in flag.detail


async def test_a_tree_with_too_many_names_to_compare_is_flagged(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "MOST_PATHS", 5)
    workshop.write("new.py", "print()\n")
    [flag] = await flags_of(workshop)
    assert (flag.kind, flag.path) == (FlagKind.CASE_CLASH, b"")
    assert "only 5 files" in flag.detail
