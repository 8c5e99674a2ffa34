"""What differs: every kind of change, the lines of it, and a patch that is the same everywhere."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from swarm_tui.errors import ReviewError, SetupError
from swarm_tui.handoff import Change
from swarm_tui.review import survey
from swarm_tui.review.blobs import MOST_SHOWN_BYTES, Blobs
from swarm_tui.review.diff import Span
from swarm_tui.review.git import Git
from swarm_tui.review.quarantine import Quarantine

from .corpus import Workshop, commit, run


async def changes(workshop: Workshop) -> dict[bytes, Change]:
    pulled = await workshop.pull()
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    return {change.path: change for change in told.changes}


async def patch(workshop: Workshop, head: str, base: str = "") -> bytes:
    pieces = [piece async for piece in workshop.quarantine.patch(base or workshop.base, head)]
    return b"".join(pieces)


async def test_every_kind_of_change(workshop: Workshop) -> None:
    folder = workshop.workspace
    workshop.write("new.py", "one\ntwo\n")
    (folder / "file0.py").unlink()
    (folder / "file1.py").rename(folder / "moved.py")
    workshop.write("file2.py", "print(2)\n" * 29 + "changed\n")
    (folder / "file3.py").chmod(0o755)
    (folder / "file4.py").unlink()
    (folder / "file4.py").symlink_to("file5.py")
    workshop.write("logo.png", b"\x89PNG\0" * 100)
    workshop.git("update-index", "--add", "--cacheinfo", f"160000,{workshop.base},module")
    (folder / "module").mkdir()
    run("clone", "-q", "--no-local", str(workshop.owner), "module", cwd=folder)
    found = await changes(workshop)
    assert {path: change.status for path, change in found.items()} == {
        b"file0.py": "deleted",
        b"file2.py": "modified",
        b"file3.py": "mode",
        b"file4.py": "retyped",
        b"logo.png": "new",
        b"module": "new",
        b"moved.py": "renamed",
        b"new.py": "new",
    }
    assert (found[b"new.py"].added, found[b"new.py"].removed) == (2, 0)
    assert (found[b"file2.py"].added, found[b"file2.py"].removed) == (1, 1)
    assert (found[b"file0.py"].new, found[b"file0.py"].new_size) == ("", None)
    assert found[b"moved.py"].old_path == b"file1.py"
    assert (found[b"logo.png"].added, found[b"logo.png"].new_size) == (None, 500)
    assert (found[b"module"].added, found[b"module"].new) == (None, workshop.base)


async def test_names_are_told_as_they_are(workshop: Workshop) -> None:
    names = [
        b":100644 100644 abc\tdef",
        b"-rf",
        b"-\t-\tbinary",
        b"1\t2\tcounted",
        b"two\nlines",
        b"\x1b]0;title\x07",
        "\u202egpj.exe".encode(),
        b"not utf-8 \xff\xfe",
        b'quoted "and" \\escaped',
        b"a -> b",
    ]
    for name in names:
        workshop.write(name.decode("utf-8", "surrogateescape"), b"content\n")
    workshop.git("mv", "file0.py", "moved\nto here")
    found = await changes(workshop)
    assert set(found) == {*names, b"moved\nto here"}
    assert all(found[name].added == 1 for name in names)
    assert found[b"moved\nto here"].old_path == b"file0.py"
    assert found[b"two\nlines"].name == "two␊lines"


async def test_a_module_that_is_named_like_an_option(workshop: Workshop) -> None:
    tree = workshop.tree(("160000", b"--upload-pack=touch canary", workshop.base))
    workshop.forge(workshop.adopt(tree))
    found = await changes(workshop)
    assert found[b"--upload-pack=touch canary"].new_mode == "160000"


async def test_what_commits_say_is_made_safe(workshop: Workshop) -> None:
    workshop.git("config", "i18n.commitEncoding", "ISO-2022-CN-EXT")
    workshop.git(
        *("-c", "user.name=\u202eEve\x1b[31m", "commit", "-q", "--allow-empty", "--author"),
        *("Mal\x1b[2J <m@example.org>", "-m", "\x1b]52;c;aGk=\x07 subject"),
    )
    pulled = await workshop.pull()
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    [made] = told.commits
    assert made.subject == "␛]52;c;aGk=␇ subject"
    assert made.author == "Mal␛[2J <m@example.org>"
    assert made.at == 1_700_000_000


# The patch and its digest


async def test_the_patch_is_what_git_would_show(workshop: Workshop) -> None:
    workshop.write("file0.py", "print(0)\n" * 29 + "changed\n")
    workshop.git("mv", "file1.py", "moved.py")
    head = workshop.commit()
    await workshop.pull()
    told = await patch(workshop, head)
    assert told.decode() == (
        workshop.git("diff", "--full-index", "--no-renames", workshop.base, head) + "\n"
    )
    digest = await workshop.quarantine.digest(workshop.base, head)
    assert digest == f"sha256:{hashlib.sha256(told).hexdigest()}"


async def test_the_patch_applies(workshop: Workshop) -> None:
    workshop.write("file0.py", "changed\n")
    workshop.write("odd\nname", "new\n")
    (workshop.workspace / "file1.py").chmod(0o755)
    (workshop.workspace / "file2.py").unlink()
    pulled = await workshop.pull()
    told = await patch(workshop, pulled.head)
    run("apply", "--index", cwd=workshop.owner, stdin=told)
    assert run("write-tree", cwd=workshop.owner) == workshop.git(
        "rev-parse", f"{pulled.head}^{{tree}}"
    )


async def test_the_patch_is_the_same_without_the_owners_repository(workshop: Workshop) -> None:
    workshop.write("file0.py", "changed\n")
    workshop.write("logo.png", b"\x89PNG\0" * 100)
    pulled = await workshop.pull()
    told = await patch(workshop, pulled.head)
    await workshop.quarantine.close()
    workshop.quarantine = Quarantine(workshop.folder / "alone")
    await workshop.pull()
    assert await patch(workshop, pulled.head) == told


@pytest.mark.parametrize("size", [1000, MOST_SHOWN_BYTES + 1])
async def test_every_byte_of_what_is_not_shown_counts(workshop: Workshop, size: int) -> None:
    content = b"\0" + b"x" * (size - 1)
    workshop.write("blob.bin", content)
    workshop.write("other.txt", "text\n")
    pulled = await workshop.pull()
    told = await patch(workshop, pulled.head)
    expected = hashlib.sha256(content).hexdigest()
    assert f"\nNew content: {size} bytes, sha256:{expected}\n".encode() in told
    assert b"+text" in told
    assert content not in told


async def test_a_file_that_plays_patch_gets_no_digest_line(workshop: Workshop) -> None:
    fake = "index 1234..5678\nBinary files a/x and b/x differ\n"
    workshop.write("file0.py", fake)
    pulled = await workshop.pull()
    assert b"New content" not in await patch(workshop, pulled.head)


class ChoppedGit(Git):
    """The real git, whose output comes in pieces of another size."""

    size: ClassVar[int] = 1

    async def stream(self, *arguments: str, **options: Any) -> AsyncGenerator[bytes, None]:
        output = b""
        async for chunk in super().stream(*arguments, **options):
            output += chunk
        for start in range(0, len(output), self.size):
            yield output[start : start + self.size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100, 1000])
async def test_how_the_pieces_come_makes_no_difference(
    workshop: Workshop, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(0, 12, 3):
        workshop.write(f"file{number}.py", b"\0%d" % number)
        workshop.write(f"file{number + 1}.py", "index 1..2\nBinary files\nno newline")
        (workshop.workspace / f"file{number + 2}.py").chmod(0o755)
    pulled = await workshop.pull()
    told = await patch(workshop, pulled.head)
    assert told.count(b"\nNew content: ") == 4
    monkeypatch.setattr(ChoppedGit, "size", size)
    chopped = ChoppedGit(workshop.folder / "quarantine/repository")
    blobs = Blobs(chopped)
    pieces = [piece async for piece in survey.patch(chopped, blobs, workshop.base, pulled.head)]
    await blobs.close()
    assert b"".join(pieces) == told


async def test_a_patch_may_be_left_half_read(workshop: Workshop) -> None:
    workshop.write("much.txt", "".join(f"line {number}\n" for number in range(300_000)))
    pulled = await workshop.pull()
    stream = workshop.quarantine.patch(workshop.base, pulled.head)
    assert (await anext(stream)).startswith(b"diff --git")
    await stream.aclose()
    assert await workshop.quarantine.digest(workshop.base, pulled.head)


# Contents and lines


async def oids(workshop: Workshop, old: bytes, new: bytes) -> tuple[str, str]:
    """Both contents in the quarantine."""
    workshop.write("old", old)
    workshop.write("new", new)
    found = await changes(workshop)
    return found[b"old"].new, found[b"new"].new


@pytest.mark.parametrize(
    ("old", "new", "spans"),
    [
        (b"a\nb\nc\n", b"a\nB\nc\n", [Span(1, 1, 1, 1)]),
        (b"a\nb\n", b"new\na\nb\n", [Span(0, 0, 0, 1)]),
        (b"a\nb\n", b"a\nb\nnew", [Span(2, 0, 2, 1)]),
        (b"a\nb\nc\n", b"a\nc\n", [Span(1, 1, 1, 0)]),
        (b"a\n", b"a", [Span(0, 1, 0, 1)]),
        (b"@@ -1,2 +3,4 @@\n", b"@@ -5,6 +7,8 @@\n@@ -1 +1 @@", [Span(0, 1, 0, 2)]),
        (b"a\r\nb\0\x0c\x85\n", b"a\nb\0\x0c\x85\n", [Span(0, 1, 0, 1)]),
        (b"a\nb\nc\nd\ne\n", b"A\nb\nc\nd\nE\n", [Span(0, 1, 0, 1), Span(4, 1, 4, 1)]),
        (b"", b"a\n", [Span(0, 0, 0, 1)]),
    ],
)
async def test_spans(workshop: Workshop, old: bytes, new: bytes, spans: list[Span]) -> None:
    old_oid, new_oid = await oids(workshop, old, new)
    assert list(await workshop.quarantine.spans(old_oid, new_oid)) == spans


async def test_spans_of_what_is_new_gone_or_the_same(workshop: Workshop) -> None:
    text, empty = await oids(workshop, b"a\nb\nno newline", b"")
    assert list(await workshop.quarantine.spans("", text)) == [Span(0, 0, 0, 3)]
    assert list(await workshop.quarantine.spans(text, "")) == [Span(0, 3, 0, 0)]
    assert list(await workshop.quarantine.spans(text, text)) == []
    assert list(await workshop.quarantine.spans("", empty)) == []


async def test_many_readers_at_once(workshop: Workshop) -> None:
    for number in range(20):
        workshop.write(f"file{number}.py", f"{number}\n" * 20_000)
    found = await changes(workshop)
    contents = await asyncio.gather(
        *(workshop.quarantine.blob(change.new) for change in found.values())
    )
    assert dict(zip(found, contents, strict=True)) == {
        b"file%d.py" % number: b"%d\n" % number * 20_000 for number in range(20)
    }


async def test_a_reader_that_gives_up_disturbs_no_other(workshop: Workshop) -> None:
    first, second = await oids(workshop, b"1" * 5_000_000, b"2" * 5_000_000)
    reading = asyncio.create_task(workshop.quarantine.blob(first))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await workshop.quarantine.blob(second) == b"2" * 5_000_000


async def test_what_is_too_large_is_not_shown(workshop: Workshop) -> None:
    large, small = await oids(workshop, b"x" * (MOST_SHOWN_BYTES + 1), b"y" * MOST_SHOWN_BYTES)
    assert await workshop.quarantine.blob(large) is None
    assert await workshop.quarantine.blob(small) == b"y" * MOST_SHOWN_BYTES
    with pytest.raises(ReviewError, match="too large"):
        await workshop.quarantine.spans(large, small)


@pytest.mark.parametrize("oid", ["HEAD", "--help", "ab" * 20, "x\ny", "12"])
async def test_what_is_no_object_is_told(workshop: Workshop, oid: str) -> None:
    await workshop.pull()
    with pytest.raises(ReviewError):
        await workshop.quarantine.blob(oid)


async def test_sha256_repositories_are_reviewed_too(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    shutil.rmtree(workshop.owner / ".git")
    shutil.rmtree(workshop.workspace)
    run("init", "-q", "--object-format=sha256", "--initial-branch=main", ".", cwd=workshop.owner)
    workshop.base = commit(workshop.owner, "Begin")
    run("clone", "-q", "--no-local", str(workshop.owner), "workspace", cwd=tmp_path)
    workshop.write("file0.py", "changed\n")
    workshop.write("logo.png", b"\x89PNG\0" * 100)
    pulled = await workshop.pull()
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    assert [change.path for change in told.changes] == [b"file0.py", b"logo.png"]
    assert await workshop.quarantine.digest(workshop.base, pulled.head)
    await workshop.quarantine.close()


async def test_without_git_it_says_what_to_install(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SetupError, match="git is missing"):
        await workshop.pull()


async def test_an_old_git_is_not_trusted(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workshop.folder / "old"
    folder.mkdir()
    (folder / "git").write_text("#!/bin/sh\necho git version 2.31.9\n")
    (folder / "git").chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{folder}:{path}")
    with pytest.raises(SetupError, match="too old"):
        await workshop.pull()
