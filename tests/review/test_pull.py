"""What runs in the guest: it takes everything, touches nothing of the agent's, and ends in time."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from adapters.sshd import StandInGuest, until

from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import GuestFailed, GuestUnreachable, ReviewError
from swarm_tui.review.pull import head_now, pull

from .corpus import Workshop, run

_SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def state(workshop: Workshop) -> dict[str, object]:
    """All of the agent's repository but objects and refs of ours."""
    found: dict[str, object] = {}
    for path in sorted(workshop.workspace.rglob("*")):
        name = str(path.relative_to(workshop.workspace))
        if path.is_file() and not name.startswith((".git/objects/", ".git/refs/swarm/")):
            found[name] = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
    return found


async def contents(workshop: Workshop, head: str) -> dict[str, bytes]:
    """The files that the head changes, as the quarantine has them."""
    told = await workshop.quarantine.survey(workshop.base, head)
    found = {}
    for change in told.changes:
        content = await workshop.quarantine.blob(change.new) if change.new else b"(deleted)"
        assert content is not None
        found[change.path.decode()] = content
    return found


def make_a_mess(workshop: Workshop) -> None:
    """Every kind of uncommitted work."""
    workshop.write(".gitignore", "*.log\n")
    workshop.commit("Ignore logs")
    workshop.write("file0.py", "staged\n")
    workshop.git("add", "file0.py")
    workshop.write("file0.py", "staged, and changed again\n")
    workshop.write("file1.py", "not staged\n")
    workshop.git("rm", "-q", "--cached", "file2.py")
    (workshop.workspace / "file3.py").unlink()
    workshop.write("folder/new.txt", "untracked\n")
    workshop.write("noise.log", "ignored\n")


@pytest.mark.parametrize("shell", _SHELLS)
async def test_all_work_is_taken_and_nothing_of_it_touched(workshop: Workshop, shell: str) -> None:
    workshop.guest.interpreter = shell
    make_a_mess(workshop)
    before = state(workshop)
    pulled = await workshop.pull()
    assert state(workshop) == before
    assert await contents(workshop, pulled.head) == {
        ".gitignore": b"*.log\n",
        "file0.py": b"staged, and changed again\n",
        "file1.py": b"not staged\n",
        "file3.py": b"(deleted)",
        "folder/new.txt": b"untracked\n",
    }
    assert pulled.is_uncommitted
    assert workshop.git("rev-parse", "refs/swarm/1") == pulled.head
    assert workshop.git("log", "-1", "--format=%an %s %P", pulled.head) == (
        f"swarm-tui Uncommitted work {workshop.git('rev-parse', 'HEAD')}"
    )


async def test_work_that_is_all_committed_is_taken_as_it_is(workshop: Workshop) -> None:
    workshop.write("file0.py", "changed\n")
    head = workshop.commit()
    pulled = await workshop.pull()
    assert (pulled.head, pulled.is_uncommitted, pulled.remark) == (head, False, "")
    assert not workshop.git("for-each-ref", "refs/swarm")


async def test_a_change_that_keeps_size_and_second_is_seen(workshop: Workshop) -> None:
    workshop.write("file0.py", "print(1)\n" * 30)
    workshop.commit()
    index = workshop.workspace / ".git/index"
    workshop.write("file0.py", "print(2)\n" * 30)
    stamp = index.stat().st_mtime_ns
    os.utime(workshop.workspace / "file0.py", ns=(stamp, stamp))
    pulled = await workshop.pull()
    assert (await contents(workshop, pulled.head))["file0.py"] == b"print(2)\n" * 30


async def test_the_same_content_has_the_same_head(workshop: Workshop) -> None:
    make_a_mess(workshop)
    pulled = await workshop.pull(1)
    again = await workshop.pull(2)
    assert pulled.head == again.head
    assert await head_now(workshop.guest, workshop.address, workshop.base) == pulled.head
    workshop.write("folder/new.txt", "moved on\n")
    assert await head_now(workshop.guest, workshop.address, workshop.base) != pulled.head


async def test_a_look_at_the_head_leaves_no_trace(workshop: Workshop) -> None:
    make_a_mess(workshop)
    before = state(workshop)
    await head_now(workshop.guest, workshop.address, workshop.base)
    assert state(workshop) == before
    assert not workshop.git("for-each-ref", "refs/swarm")


async def test_other_shapes_of_a_workspace(workshop: Workshop) -> None:
    make_a_mess(workshop)
    plain = (await workshop.pull()).head
    workshop.git("checkout", "-q", "--detach")
    assert (await workshop.pull()).head == plain
    linked = workshop.folder / "linked"
    workshop.git("worktree", "add", "-q", str(linked), "HEAD")
    (linked / "new.txt").write_text("in a linked work tree\n")
    workshop.workspace = linked
    pulled = await workshop.pull()
    assert (await contents(workshop, pulled.head))["new.txt"] == b"in a linked work tree\n"


async def test_locks_of_a_git_that_stands_still_do_not_matter(workshop: Workshop) -> None:
    make_a_mess(workshop)
    for name in ("index.lock", "HEAD.lock", "packed-refs.lock", "refs/heads/main.lock"):
        (workshop.workspace / ".git" / name).write_text("half-written")
    pulled = await workshop.pull()
    assert "folder/new.txt" in await contents(workshop, pulled.head)


async def test_a_conflict_that_is_not_resolved_is_shown_as_it_stands(workshop: Workshop) -> None:
    workshop.write("file0.py", "ours\n")
    workshop.commit()
    workshop.git("checkout", "-q", "-b", "other", workshop.base)
    workshop.write("file0.py", "theirs\n")
    workshop.commit()
    with pytest.raises(subprocess.CalledProcessError):
        workshop.git("merge", "-q", "main")
    pulled = await workshop.pull()
    assert b"<<<<<<<" in (await contents(workshop, pulled.head))["file0.py"]


async def test_files_that_cannot_be_added_are_told(workshop: Workshop) -> None:
    workshop.write("good.txt", "good\n")
    (workshop.workspace / "empty-repository").mkdir()
    run("init", "-q", ".", cwd=workshop.workspace / "empty-repository")
    pulled = await workshop.pull()
    assert list(await contents(workshop, pulled.head)) == ["good.txt"]
    assert "empty-repository" in pulled.remark
    assert "not part of it" in pulled.remark


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the workspace's owner")
@pytest.mark.parametrize("owner", ["nobody", 54321])
async def test_what_is_written_belongs_to_the_owner_of_the_workspace(
    workshop: Workshop, owner: str | int
) -> None:
    make_a_mess(workshop)
    for folder in [workshop.folder, *workshop.folder.parents][:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    shutil.chown(workshop.workspace, owner)
    for path in workshop.workspace.rglob("*"):
        shutil.chown(path, owner)
    pulled = await workshop.pull()
    written = [path for path in workshop.workspace.rglob("*") if path.stat().st_uid == 0]
    assert not written
    assert "file0.py" in await contents(workshop, pulled.head)


# What cannot be taken


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("no workspace", "There is no workspace"),
        ("no repository", "not a git repository"),
        ("no commit", "there may be none yet"),
        ("no ref of ours", "refs/swarm"),
    ],
)
async def test_what_is_missing_is_told(workshop: Workshop, trouble: str, reason: str) -> None:
    match trouble:
        case "no workspace":
            shutil.rmtree(workshop.workspace)
        case "no repository":
            shutil.rmtree(workshop.workspace / ".git")
        case "no commit":
            workshop.git("checkout", "-q", "--orphan", "empty")
        case "no ref of ours":
            workshop.write("new.txt", "new\n")
            (workshop.workspace / ".git/refs/swarm").write_text("in the way")
    with pytest.raises(ReviewError, match=reason):
        await workshop.pull()


async def test_a_filter_that_hangs_is_ended_with_all_that_it_started(workshop: Workshop) -> None:
    mark = "86397"
    workshop.git("config", "filter.slow.clean", f"sh -c 'sleep {mark}; cat'")
    workshop.write(".gitattributes", "*.txt filter=slow\n")
    workshop.write("new.txt", "new\n")
    with pytest.raises(ReviewError, match="not done after 1 s"):
        await workshop.pull(timeout_s=2)
    looked = await asyncio.to_thread(
        subprocess.run, ["pgrep", "-f", f"sleep {mark}"], stdout=subprocess.DEVNULL, check=False
    )
    assert looked.returncode == 1


# Configuration, attributes and hooks: the guest may run them, the host never does


async def test_nothing_that_the_repository_names_is_run_on_the_host(workshop: Workshop) -> None:
    trap = str(workshop.trap)
    for key in (
        *("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass"),
        *("diff.external", "diff.evil.command", "diff.evil.textconv", "filter.evil.clean"),
        *("filter.evil.smudge", "filter.evil.process", "gpg.program", "credential.helper"),
        *("core.alternateRefsCommand", "uploadpack.packObjectsHook", "merge.evil.driver"),
    ):
        workshop.git("config", key, trap)
    workshop.git("config", "filter.evil.process", "")
    workshop.git("config", "core.fsmonitor", "false")
    for hook in ("post-index-change", "reference-transaction", "pre-commit", "post-commit"):
        shutil.copy(workshop.trap, workshop.workspace / ".git/hooks" / hook)
    workshop.write(".gitattributes", "* diff=evil filter=evil merge=evil\n")
    workshop.write("file0.py", "import os\nos.system('bad')\n")
    workshop.git("add", "--all")
    workshop.git("commit", "-q", "-m", "Work")
    workshop.write("file1.py", "more\n")
    pulled = await workshop.pull()
    assert await shown(workshop, pulled.head, b"+os.system('bad')")
    target = workshop.owner
    await workshop.quarantine.land(target, workshop.base, pulled.head, "swarm/x/1", {})


@pytest.mark.parametrize(
    "attributes", ["*.py -diff", "*.py binary", "* -text -diff", "*.py diff=none export-ignore"]
)
async def test_attributes_hide_nothing(workshop: Workshop, attributes: str) -> None:
    workshop.write(".gitattributes", f"{attributes}\n")
    workshop.write(".git/info/attributes", f"{attributes}\n")
    workshop.write("file0.py", "import os\nos.system('bad')\n")
    pulled = await workshop.pull()
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    assert {change.path: change.added for change in told.changes}[b"file0.py"] == 2
    assert await shown(workshop, pulled.head, b"+os.system('bad')")


async def shown(workshop: Workshop, head: str, line: bytes) -> bool:
    pieces = [piece async for piece in workshop.quarantine.patch(workshop.base, head)]
    return line in b"".join(pieces).split(b"\n")


async def test_a_git_that_lies_in_the_guest_changes_no_fact(workshop: Workshop) -> None:
    """It may name another head; what is reviewed is then that head's content, and nothing else."""
    workshop.write("harmless.txt", "harmless\n")
    harmless = workshop.commit("Harmless")
    workshop.write("file0.py", "bad\n")
    bad = workshop.commit("Bad")
    liar = workshop.folder / "bin"
    liar.mkdir()
    git = shutil.which("git")
    (liar / "git").write_text(f'#!/bin/sh\nexec {git} "$@" | sed "s/{bad}/{harmless}/"\n')
    (liar / "git").chmod(0o755)
    workshop.guest.path = f"{liar}:{workshop.guest.path}"
    pulled = await workshop.pull()
    assert pulled.head == harmless
    assert list(await contents(workshop, harmless)) == ["harmless.txt"]
    workshop.forge(bad, claim=harmless)
    assert (await workshop.pull()).head == harmless
    assert list(await contents(workshop, harmless)) == ["harmless.txt"]


async def test_replaced_commits_are_not_what_is_reviewed(workshop: Workshop) -> None:
    workshop.write("file0.py", "harmless\n")
    harmless = workshop.commit()
    workshop.git("reset", "-q", "--hard", workshop.base)
    workshop.write("file0.py", "bad\n")
    bad = workshop.commit()
    workshop.git("replace", bad, harmless)
    pulled = await workshop.pull()
    assert pulled.head == bad
    assert await contents(workshop, pulled.head) == {"file0.py": b"bad\n"}


async def test_a_grafted_history_is_not_believed(workshop: Workshop) -> None:
    workshop.write("one.txt", "1\n")
    first = workshop.commit("First")
    workshop.write("two.txt", "2\n")
    second = workshop.commit("Second")
    (workshop.workspace / ".git/info").mkdir(exist_ok=True)
    (workshop.workspace / ".git/info/grafts").write_text(f"{second} {workshop.base}\n")
    with pytest.raises(ReviewError, match="does not hold"):
        await workshop.pull()
    (workshop.workspace / ".git/info/grafts").unlink()
    (workshop.workspace / ".git/shallow").write_text(f"{second}\n")
    with pytest.raises(ReviewError, match="does not hold"):
        await workshop.pull()
    assert first


async def test_objects_borrowed_in_the_guest_are_sent(workshop: Workshop) -> None:
    store = workshop.folder / "store"
    run("init", "-q", "--bare", str(store), cwd=workshop.folder)
    (workshop.workspace / ".git/objects/info").mkdir(exist_ok=True)
    blob = run("hash-object", "-w", "--stdin", cwd=store, stdin=b"borrowed\n")
    alternates = workshop.workspace / ".git/objects/info/alternates"
    alternates.write_text(f"{store}/objects\n")
    workshop.git("update-index", "--add", "--cacheinfo", f"100644,{blob},new.txt")
    workshop.git("commit", "-q", "-m", "Borrow")
    workshop.git("checkout", "-q", "--", "new.txt")
    pulled = await workshop.pull()
    shutil.rmtree(store)
    assert await contents(workshop, pulled.head) == {"new.txt": b"borrowed\n"}


async def test_links_out_of_the_tree_are_text(workshop: Workshop) -> None:
    secret = workshop.folder / "secret"
    secret.write_text("secret of the host\n")
    (workshop.workspace / "link").symlink_to(secret)
    (workshop.workspace / "up").symlink_to("../../../../etc/passwd")
    pulled = await workshop.pull()
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    assert [change.new_mode for change in told.changes] == ["120000", "120000"]
    found = await contents(workshop, pulled.head)
    assert found == {"link": str(secret).encode(), "up": b"../../../../etc/passwd"}


# Over SSH


@pytest.fixture
async def over_ssh(tmp_path: Path) -> AsyncIterator[tuple[StandInGuest, SshGuest]]:
    stand_in = StandInGuest(tmp_path / "guest")
    await stand_in.start()
    guest = SshGuest(str(stand_in.run_folder))
    yield stand_in, guest
    await guest.close()
    await stand_in.stop()


async def test_it_all_goes_over_ssh(
    workshop: Workshop, over_ssh: tuple[StandInGuest, SshGuest]
) -> None:
    stand_in, guest = over_ssh
    address = replace(stand_in.address, workspace=str(workshop.workspace))
    make_a_mess(workshop)
    steps: list[str] = []
    pulled = await pull(
        *(guest, address, workshop.quarantine, 1, workshop.base),
        lambda step, _: steps.append(step),
    )
    assert await head_now(guest, address, workshop.base) == pulled.head
    assert "folder/new.txt" in await contents(workshop, pulled.head)
    assert {"taking the work", "checking the work"} <= set(steps)


async def test_a_connection_that_is_cut_or_floods(
    workshop: Workshop, over_ssh: tuple[StandInGuest, SshGuest]
) -> None:
    stand_in, guest = over_ssh
    address = replace(stand_in.address, workspace=str(workshop.workspace))
    workshop.write("big.bin", os.urandom(300_000))
    arguments = (guest, address, workshop.quarantine, 1, workshop.base)
    with pytest.raises(GuestFailed, match="more than allowed"):
        await pull(*arguments, lambda *_: None, limit_bytes=100_000)
    await until(lambda: not stand_in.running)
    workshop.git("config", "filter.slow.clean", "sleep 3")
    workshop.write(".gitattributes", "*.txt filter=slow\n")
    workshop.write("new.txt", "new\n")
    pulling = asyncio.create_task(pull(*arguments, lambda *_: None))
    await until(lambda: stand_in.running)
    await stand_in.cut()
    with pytest.raises(GuestUnreachable):
        await pulling
    assert await workshop.quarantine.head_of(1) is None
    assert not list((workshop.folder / "quarantine/incoming").iterdir())
