"""What a guest sends, from harmless to hostile: taken, refused with a reason, never run."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm_tui.errors import Busy, GuestFailed, ReviewError
from swarm_tui.review import survey
from swarm_tui.review.quarantine import Quarantine

from . import corpus
from .corpus import Workshop


@pytest.fixture(params=["lent", "alone"])
async def workshop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Workshop]:
    """With the owner's repository at hand, and without."""
    made = Workshop(tmp_path, is_lent=request.param == "lent")
    yield made
    await made.quarantine.close()
    assert not made.canary.exists()


@pytest.fixture
async def lent(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path)
    await made.quarantine.prepare(made.base)
    yield made
    await made.quarantine.close()
    assert not made.canary.exists()


async def refused(workshop: Workshop, reason: str, limit_bytes: int = 8 << 20) -> str:
    """The pull is refused for this reason, leaves nothing, and the next one works."""
    before, outside = workshop.kept(), set(workshop.listing())
    with pytest.raises((ReviewError, GuestFailed)) as caught:
        await workshop.pull(7, limit_bytes=limit_bytes)
    assert re.search(reason, str(caught.value))
    assert workshop.kept() == before
    assert set(workshop.listing()) == outside
    assert await workshop.quarantine.head_of(7) is None
    await still_works(workshop)
    return str(caught.value)


async def still_works(workshop: Workshop) -> None:
    forged, workshop.guest.forged = workshop.guest.forged, None
    workshop.write("honest.txt", "honest\n")
    try:
        pulled = await workshop.pull(8)
    finally:
        workshop.guest.forged = forged
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    assert b"honest.txt" in [change.path for change in told.changes]


# Taking


async def test_commits_and_uncommitted_work_are_taken(workshop: Workshop) -> None:
    workshop.write("file0.py", "changed\n")
    own = workshop.commit("Change a file")
    workshop.write("new.txt", "new\n")
    pulled = await workshop.pull()
    assert pulled.is_uncommitted
    assert await workshop.quarantine.head_of(1) == pulled.head
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    assert [change.path for change in told.changes] == [b"file0.py", b"new.txt"]
    assert [commit.oid for commit in told.commits] == [pulled.head, own]
    assert told.is_descended


async def test_work_that_goes_on_is_taken_again(workshop: Workshop) -> None:
    workshop.write("new.txt", "first\n")
    first = await workshop.pull(1)
    workshop.write("new.txt", "second\n")
    second = await workshop.pull(2)
    between = await workshop.quarantine.survey(first.head, second.head)
    assert [change.path for change in between.changes] == [b"new.txt"]
    assert not between.is_descended


async def test_nothing_done_is_no_change(workshop: Workshop) -> None:
    pulled = await workshop.pull()
    assert pulled.head == workshop.base
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    assert (told.changes, told.commits, told.commit_count) == ((), (), 0)


async def test_an_agent_that_went_back_is_seen(workshop: Workshop) -> None:
    early = workshop.base
    workshop.write("more.txt", "more\n")
    workshop.base = workshop.commit("More")
    corpus.run("fetch", "-q", str(workshop.workspace), workshop.base, cwd=workshop.owner)
    workshop.git("reset", "-q", "--hard", early)
    pulled = await workshop.pull()
    told = await workshop.quarantine.survey(workshop.base, pulled.head)
    assert pulled.head == early
    assert [change.status for change in told.changes] == ["deleted"]
    assert not told.is_descended


async def test_a_history_without_the_base_is_seen(lent: Workshop) -> None:
    lent.git("checkout", "-q", "--orphan", "other")
    lent.commit("Everything anew")
    pulled = await lent.pull()
    told = await lent.quarantine.survey(lent.base, pulled.head)
    assert (told.changes, told.is_descended, told.commit_count) == ((), False, 1)


async def test_a_guest_without_the_base_sends_all_that_it_has(lent: Workshop) -> None:
    lent.git("checkout", "-q", "--orphan", "other")
    lent.write("other.txt", "other\n")
    lent.commit("Everything anew")
    lent.git("branch", "-D", "main")
    lent.git("remote", "remove", "origin")
    lent.git("reflog", "expire", "--expire=now", "--all")
    lent.git("gc", "-q", "--prune=now")
    pulled = await lent.pull()
    told = await lent.quarantine.survey(lent.base, pulled.head)
    assert [change.path for change in told.changes] == [b"other.txt"]
    assert not told.is_descended


async def test_forgetting_frees_what_no_other_review_needs(workshop: Workshop) -> None:
    workshop.write("first.bin", bytes(range(256)) * 1000)
    first = await workshop.pull(1)
    workshop.write("first.bin", "small\n")
    second = await workshop.pull(2)
    large = workshop.git("rev-parse", f"{first.head}:first.bin")
    assert await workshop.quarantine.blob(large)
    await workshop.quarantine.forget(1)
    await workshop.quarantine.close()
    assert await workshop.quarantine.head_of(1) is None
    with pytest.raises(ReviewError):
        await workshop.quarantine.blob(large)
    await workshop.quarantine.survey(workshop.base, second.head)
    await workshop.quarantine.forget(1)


async def test_two_sessions_do_not_take_at_the_same_time(lent: Workshop) -> None:
    other = Quarantine(lent.folder / "quarantine", lent.lender)
    with lent.quarantine._alone(), pytest.raises(Busy):
        await other.forget(1)
    await other.forget(1)


async def test_what_a_killed_session_left_is_removed(lent: Workshop) -> None:
    left = lent.folder / "quarantine" / "incoming" / "left"
    left.mkdir()
    (left / "pack").write_bytes(b"half")
    os.utime(left, (1, 1))
    await lent.pull()
    assert not left.exists()


async def test_a_base_that_is_no_commit_is_told(lent: Workshop) -> None:
    lent.base = ""
    with pytest.raises(ReviewError, match="what the agent began with"):
        await lent.pull()


# Owners' repositories of other kinds


@pytest.mark.parametrize("kind", ["shallow", "partial", "linked", "bare", "none", "lacking"])
async def test_whatever_the_owner_has_the_work_can_be_taken(tmp_path: Path, kind: str) -> None:
    workshop = Workshop(tmp_path)
    workshop.write("file0.py", "second\n")
    workshop.base = workshop.commit("Second, where the agent begins")
    run = corpus.run
    run("pull", "-q", str(workshop.workspace), "main", cwd=workshop.owner)
    run("config", "uploadpack.allowFilter", "true", cwd=workshop.owner)
    lender = tmp_path / "lender"
    source = f"file://{workshop.owner}"
    match kind:
        case "shallow":
            run("clone", "-q", "--depth=1", source, str(lender), cwd=tmp_path)
        case "partial":
            run("clone", "-q", "--filter=blob:none", "-n", source, str(lender), cwd=tmp_path)
        case "linked":
            run("worktree", "add", "-q", str(lender), cwd=workshop.owner)
        case "bare":
            run("clone", "-q", "--bare", str(workshop.owner), str(lender), cwd=tmp_path)
        case "none":
            lender.mkdir()
        case "lacking":
            run("init", "-q", str(lender), cwd=tmp_path)
    workshop.write("file0.py", "third\n")
    head = workshop.commit("Third")
    await workshop.quarantine.close()
    workshop.quarantine = Quarantine(tmp_path / "quarantine", lender)
    await workshop.pull()
    told = await workshop.quarantine.survey(workshop.base, head)
    assert [(change.path, change.added) for change in told.changes] == [(b"file0.py", 1)]
    assert (told.commit_count, told.is_descended) == (1, True)
    patch = [piece async for piece in workshop.quarantine.patch(workshop.base, head)]
    assert b"-second\n+third\n" in b"".join(patch)
    if kind not in ("none", "lacking"):
        await workshop.quarantine.land(lender, workshop.base, head, "swarm/ember/1", {})
        assert run("rev-parse", "swarm/ember/1", cwd=lender) == head
    await workshop.quarantine.close()


async def test_a_shallow_workspace_is_taken(workshop: Workshop) -> None:
    workshop.write("file0.py", "second\n")
    workshop.base = workshop.commit("Second, where the agent begins")
    corpus.run("pull", "-q", str(workshop.workspace), "main", cwd=workshop.owner)
    shallow = workshop.folder / "shallow"
    source = f"file://{workshop.owner}"
    corpus.run("clone", "-q", "--depth=1", source, str(shallow), cwd=workshop.folder)
    workshop.workspace = shallow
    workshop.write("file0.py", "third\n")
    head = workshop.commit("Third")
    await workshop.pull()
    told = await workshop.quarantine.survey(workshop.base, head)
    assert (len(told.changes), told.commit_count, told.is_descended) == (1, 1, True)
    await workshop.quarantine.land(workshop.owner, workshop.base, head, "swarm/ember/1", {})


# Refused packs


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "does not begin with the header"),
        (b"\x1b]52;c;aGk=\x07 garbage\n" * 100, "does not begin with the header"),
        (b"swarm-pack 1 HEAD clean packed\nPACK", "does not begin with the header"),
        (b"swarm-pack 1 --upload-pack=x clean packed\n", "does not begin with the header"),
        (b"swarm-pack 1 " + b"a" * 40 + b" clean packed\n", "there is no pack"),
        (
            b"swarm-pack 1 " + b"a" * 40 + b" clean packed\nPACK\0\0\0\x02\xff\xff\xff\xff",
            "objects",
        ),
        (
            b"swarm-pack 1 " + b"a" * 40 + b" clean packed\nPACK\0\0\0\x02\0\0\0\x02xx",
            "damaged|cut",
        ),
        (b"swarm-pack 1 " + b"a" * 40 + b" clean empty\n", "does not send it"),
        (
            b"swarm-pack 1 " + b"a" * 40 + b" clean packed\n" + corpus.raw_pack((3, b"blob")),
            "aaaa, which the agent names as its head, is not in it",
        ),
    ],
)
async def test_what_is_no_pack(lent: Workshop, sent: bytes, reason: str) -> None:
    lent.guest.forged = sent
    await refused(lent, reason)


async def test_a_pack_that_was_cut_short(lent: Workshop) -> None:
    lent.write("new.bin", bytes(range(256)) * 50)
    lent.forge(lent.commit())
    assert lent.guest.forged
    lent.guest.forged = lent.guest.forged[:-200]
    await refused(lent, "cut short")


async def test_a_pack_with_a_flipped_bit(lent: Workshop) -> None:
    lent.write("new.bin", bytes(range(256)) * 50)
    lent.forge(lent.commit())
    assert lent.guest.forged
    sent = bytearray(lent.guest.forged)
    sent[len(sent) // 2] ^= 4
    lent.guest.forged = bytes(sent)
    await refused(lent, "damaged|breaks|not in it|does not hold|cut short")


async def test_more_than_the_limit(lent: Workshop) -> None:
    lent.guest.forged = b"swarm-pack 1 " + b"a" * 40 + b" clean packed\n" + bytes(10_000)
    await refused(lent, "more than allowed", limit_bytes=9_000)


async def test_a_pack_on_another_base(lent: Workshop) -> None:
    lent.write("hidden.txt", "never sent\n")
    hidden = lent.commit("Hidden")
    lent.write("shown.txt", "sent\n")
    lent.forge(lent.commit("Shown"), f"^{hidden}")
    await refused(lent, "does not hold")


async def test_a_file_that_is_named_but_not_sent(lent: Workshop) -> None:
    tree = lent.tree(("100644", b"ghost", "12" * 20))
    lent.send_only(lent.adopt(tree), tree)
    await refused(lent, "does not hold")


async def test_a_head_that_is_not_in_the_pack(lent: Workshop) -> None:
    lent.write("new.txt", "new\n")
    lent.forge(lent.commit(), claim="ab" * 20)
    await refused(lent, "abab, which the agent names as its head, is not in it")


@pytest.mark.parametrize("kind", ["blob", "tag", "tree"])
async def test_a_head_that_is_no_commit(lent: Workshop, kind: str) -> None:
    lent.write("new.txt", "new\n")
    lent.commit()
    lent.git("tag", "-a", "v1", "-m", "a tag")
    names = {"blob": "HEAD:new.txt", "tree": "HEAD^{tree}", "tag": "v1"}
    head = lent.git("rev-parse", names[kind])
    lent.forge(head, f"^{lent.base}", "HEAD")
    await refused(lent, f"is a {kind}, not a commit")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"..", "hasDotdot.*|lead out of the tree"),
        (b".", "named “.”"),
        (b".git", "take for “.git”"),
        (b".GIT", "take for “.git”"),
        (b"GIT~1", "take for “.git”"),
        (".g\u200cit".encode(), "take for “.git”"),
        (b".git\\config", "take for “.git”"),
        (b"/etc/passwd", "slash in its name"),
        (b"../outside", "slash in its name"),
        (b"", "without a name|breaks git's rules"),
    ],
)
async def test_a_name_that_leads_elsewhere(lent: Workshop, name: bytes, reason: str) -> None:
    blob = lent.put("blob", b"owned\n")
    inner = lent.tree(("100644", b"config", blob))
    for mode, oid in (("100644", blob), ("40000", inner)):
        tree = lent.tree((mode, name, oid))
        lent.send_only(lent.adopt(tree), tree, inner, blob)
        await refused(lent, reason)


async def test_two_entries_of_one_name(lent: Workshop) -> None:
    one, two = lent.put("blob", b"shown\n"), lent.put("blob", b"hidden\n")
    lent.forge(lent.adopt(lent.tree(("100644", b"a", one), ("100644", b"a", two))))
    await refused(lent, "two entries of one name")


@pytest.mark.parametrize(
    "text",
    [
        '[submodule "x"]\n\tpath = x\n\turl = -u./payload\n',
        '[submodule "../../hooks"]\n\tpath = x\n\turl = https://example.org\n',
        '[submodule "x"]\n\tpath = -x\n\turl = https://example.org\n',
        '[submodule "x"]\n\tpath = x\n\turl = https://example.org\n\tupdate = !touch canary\n',
        '[submodule "x"]\n\tpath = x\n\turl = "ext::sh -c touch% canary"\n\tupdate = !sh\n',
    ],
)
async def test_submodules_that_would_run_or_write(lent: Workshop, text: str) -> None:
    blob = lent.put("blob", text.encode())
    tree = lent.tree(("100644", b".gitmodules", blob), ("160000", b"x", lent.base))
    lent.forge(lent.adopt(tree))
    await refused(lent, "could run a command or write elsewhere")


async def test_a_gitmodules_that_is_a_link(lent: Workshop) -> None:
    blob = lent.put("blob", b"/etc/passwd")
    lent.forge(lent.adopt(lent.tree(("120000", b".gitmodules", blob))))
    await refused(lent, "symbolic link")


# Bombs


async def test_a_blob_of_a_gigabyte(lent: Workshop) -> None:
    lent.send(corpus.zeros(1 << 30), "ab" * 20)
    await refused(lent, "of 1,048,576 KiB; 262,144 KiB are allowed|takes too much")


async def test_a_delta_of_gigabytes(lent: Workshop) -> None:
    lent.send(corpus.delta_bomb(4 << 30), "ab" * 20)
    await refused(lent, "takes too much|damaged|does not hold")


async def test_a_commit_message_of_megabytes(lent: Workshop) -> None:
    lent.git("commit", "-q", "--allow-empty", "-F", "-", stdin=b"long " * 100_000)
    lent.forge("HEAD", claim=lent.git("rev-parse", "HEAD"))
    lent.git("reset", "-q", "--hard", lent.base)
    await refused(lent, "a commit of 488 KiB")


async def test_a_tree_that_unfolds_without_end(lent: Workshop) -> None:
    oid, mode = lent.put("blob", b"boom\n"), "100644"
    for _ in range(12):
        oid = lent.tree(*((mode, b"%d" % number, oid) for number in range(10)))
        mode = "40000"
    lent.forge(lent.adopt(oid))
    await refused(lent, "more than 1,000,000 files")


async def test_a_hundred_thousand_files(lent: Workshop) -> None:
    blob = lent.put("blob", b"one of many\n")
    entries = [("100644", b"%06d" % number, blob) for number in range(100_000)]
    lent.forge(lent.adopt(lent.tree(*entries)))
    await refused(lent, "More than 10,000 files differ")


async def test_folders_without_end_of_depth(lent: Workshop) -> None:
    oid, mode = lent.put("blob", b"deep\n"), "100644"
    for _ in range(3_000):
        oid, mode = lent.tree((mode, b"d", oid)), "40000"
    lent.forge(lent.adopt(oid))
    pulled = await _taken_or_refused(lent)
    if pulled:
        told = await lent.quarantine.survey(lent.base, pulled)
        assert len(told.changes[0].path) + len(told.changes[-1].path) > 6_000


async def test_many_commits_are_counted_and_the_newest_shown(lent: Workshop) -> None:
    tree = lent.git("rev-parse", "HEAD^{tree}")
    head = lent.base
    for _ in range(300):
        head = lent.adopt(tree, head)
    lent.forge(head)
    await lent.pull()
    told = await lent.quarantine.survey(lent.base, head)
    assert (told.commit_count, len(told.commits)) == (300, survey.MOST_COMMITS_SHOWN)
    assert told.commits[0].oid == head


async def _taken_or_refused(workshop: Workshop) -> str | None:
    try:
        return (await workshop.pull()).head
    except ReviewError:
        await still_works(workshop)
        return None
