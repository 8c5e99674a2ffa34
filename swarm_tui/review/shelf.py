"""What is kept of reviews on disk: one folder an agent, shared by every process that reviews.

    <root>/<agent>/quarantine.git               objects taken from the agent; made elsewhere
    <root>/<agent>/drafts.jsonl                 what reviewers noted so far, one operation a line
    <root>/<agent>/reviews/<n>/review.json      written once
    <root>/<agent>/reviews/<n>/verdict.json     the signed bytes, written once
    <root>/<agent>/reviews/<n>/verdict.json.sig
    <root>/<agent>/reviews/<n>/steps            what was done with the verdict so far

Everything here blocks: reads briefly, writes as long as the disk takes to sync.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from swarm_tui import durable
from swarm_tui.errors import NotFound, Refused, ReviewError
from swarm_tui.handoff import Comment, Drafts, Review, Verdict
from swarm_tui.model import AgentId, Judgement
from swarm_tui.review import record, verdict

Step = Literal["landed", "delivered", "void"]
_STEPS: Final = ("landed", "delivered", "void")
_DONE: Final = {
    Judgement.APPROVE: "approved",
    Judgement.SEND_BACK: "sent back",
    Judgement.REJECT: "rejected",
}
_REVIEW: Final = "review.json"
_VERDICT: Final = "verdict.json"
_SIGNATURE: Final = "verdict.json.sig"
"""Beside the payload, so that `ssh-keygen -Y verify` finds both."""

_Version = tuple[int, int, int]
_Operation = Mapping[str, Any]


class Shelf:
    """The folder of all reviews."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[AgentId, tuple[_Version, Sequence[_Operation]]] = {}
        """Operations on drafts, for as long as their file is the same."""

    def agents(self) -> Sequence[AgentId]:
        """Agents of which something is kept."""
        return [AgentId(name) for name in _names(self._root)]

    def folder(self, agent: AgentId) -> Path:
        """The agent's folder; it may not exist. Raises NotFound for an id that is no name."""
        if not agent or "/" in agent or agent.startswith("."):
            raise NotFound("No such agent", repr(agent))
        return self._root / agent

    def quarantine(self, agent: AgentId) -> Path:
        """Where the agent's quarantine repository is, or will be."""
        return self.folder(agent) / "quarantine.git"

    def remove(self, agent: AgentId) -> None:
        """Remove everything but reviews with a verdict. Nothing there is fine."""
        folder = self.folder(agent)
        with durable.storage("remove the agent's reviews", ReviewError):
            if not folder.exists():
                return
            durable.remove_folder(self.quarantine(agent))
            (folder / "drafts.jsonl").unlink(missing_ok=True)
            for name in _names(folder / "reviews"):
                if not (folder / "reviews" / name / _VERDICT).exists():
                    durable.remove_folder(folder / "reviews" / name)
            if not _names(folder / "reviews"):
                durable.remove_folder(folder)

    # Reviews.

    def numbers(self, agent: AgentId) -> Sequence[int]:
        """Numbers of the agent's reviews, rising."""
        folder = self.folder(agent) / "reviews"
        return [number for number in _numbers(folder) if (folder / f"{number}/{_REVIEW}").exists()]

    def next_number(self, agent: AgentId) -> int:
        """One that was not used before, also not by a review that came to nothing."""
        return max(_numbers(self.folder(agent) / "reviews"), default=0) + 1

    def write(self, review: Review) -> None:
        """Keep a new review. Raises Refused when there is one with this number, StorageFull."""
        folder = self._of(AgentId(review.agent), review.number)
        with durable.storage("write the review", ReviewError):
            _make_folder(folder)
            try:
                _create(folder / _REVIEW, record.encode_review(review))
            except FileExistsError as error:
                raise Refused(
                    f"Review {review.number} of {review.name} is there already",
                    "Another session took one at the same time.",
                    "Open that one, or ask for a review again.",
                ) from error

    def read(self, agent: AgentId, number: int) -> Review:
        """Raises NotFound, and ReviewError when the file is damaged."""
        path = self._of(agent, number) / _REVIEW
        content = _content(path)
        if content is None:
            raise NotFound(f"There is no review {number} of this agent", str(agent))
        try:
            review = record.decode_review(content)
        except ValueError as error:
            raise _unreadable(path, str(error)) from error
        if (review.agent, review.number) != (agent, number):
            raise _unreadable(path, f"it is review {review.number} of {review.agent}")
        return review

    def last(self, agent: AgentId) -> Review | None:
        """The newest review."""
        numbers = self.numbers(agent)
        return self.read(agent, numbers[-1]) if numbers else None

    def last_judged(self, agent: AgentId, before: int | None = None) -> Review | None:
        """The newest review with a verdict; with `before`, among those of lower numbers."""
        for number in reversed(self.numbers(agent)):
            is_before = before is None or number < before
            if is_before and (self._of(agent, number) / _VERDICT).exists():
                return self.read(agent, number)
        return None

    # Drafts: comments belong to a review, viewed marks to the agent.

    def drafts(self, agent: AgentId, number: int) -> Drafts:
        """As all processes left them. Raises ReviewError when the file is damaged."""
        comments: dict[str, Comment] = {}
        viewed: set[str] = set()
        path = self.folder(agent) / "drafts.jsonl"
        try:
            for raw in self._operations(agent, path):
                fields = record.Fields(raw)
                match fields.text("op"):
                    case "comment" if fields.whole("review") == number:
                        comment = record.decode_comment(record.Fields(raw.get("comment")))
                        comments[comment.id] = comment
                    case "drop" if fields.whole("review") == number:
                        comments.pop(fields.text("id"), None)
                    case "viewed":
                        viewed.add(fields.text("key"))
                    case "unviewed":
                        viewed.discard(fields.text("key"))
        except ValueError as error:
            raise _unreadable(path, str(error)) from error
        return Drafts(tuple(comments.values()), frozenset(viewed))

    def comment(self, agent: AgentId, number: int, comment: Comment) -> None:
        """Add a comment, or replace the one with the same id. Raises StorageFull."""
        content = record.encode_comment(comment)
        self._note(agent, {"op": "comment", "review": number, "comment": content})

    def drop(self, agent: AgentId, number: int, comment: str) -> None:
        """Remove the comment with this id. Raises StorageFull."""
        self._note(agent, {"op": "drop", "review": number, "id": comment})

    def mark(self, agent: AgentId, key: str, *, is_viewed: bool) -> None:
        """Set or clear a viewed mark. Raises StorageFull."""
        self._note(agent, {"op": "viewed" if is_viewed else "unviewed", "key": key})

    def _note(self, agent: AgentId, operation: _Operation) -> None:
        with durable.storage("keep the draft", ReviewError):
            _make_folder(self.folder(agent))
            _append(self.folder(agent) / "drafts.jsonl", json.dumps(operation))

    def _operations(self, agent: AgentId, path: Path) -> Sequence[_Operation]:
        with durable.storage("read the drafts", ReviewError):
            try:
                status = os.stat(path)
            except FileNotFoundError:
                return []
        version = (status.st_size, status.st_mtime_ns, status.st_ino)
        known = self._read.get(agent)
        if known is None or known[0] != version:
            known = (version, _parsed(_content(path) or b""))
            self._read[agent] = known
        return known[1]

    # Verdicts.

    def write_verdict(self, decided: Verdict) -> None:
        """Keep a verdict with its signature: the first one counts.

        Raises Refused when there is one, ReviewError when it is about other content than the
        review has, StorageFull.
        """
        agent = AgentId(decided.agent)
        review = self.read(agent, decided.review)
        if (review.base, review.head, review.tree, review.digest) != (
            decided.base,
            decided.head,
            decided.tree,
            decided.digest,
        ):
            raise ReviewError("The verdict is about something else than the review")
        folder = self._of(agent, decided.review)
        with durable.storage("write the verdict", ReviewError), durable.locked(folder):
            if (folder / _VERDICT).exists():
                raise self._too_late(agent, decided.review)
            # The signature first: a verdict that is there is whole.
            (folder / _SIGNATURE).unlink(missing_ok=True)
            if decided.signature:
                _create(folder / _SIGNATURE, decided.signature.encode())
            _create(folder / _VERDICT, decided.payload)

    def verdict(self, agent: AgentId, number: int) -> Verdict | None:
        """None as long as nothing is decided. Raises ReviewError when a file is damaged.

        Whether the signature holds is not looked at.
        """
        folder = self._of(agent, number)
        payload = _content(folder / _VERDICT)
        if payload is None:
            return None
        signature = _content(folder / _SIGNATURE) or b""
        words = (_content(folder / "steps") or b"").decode("ascii", "replace").split("\n")[:-1]
        steps = [step for step in _STEPS if step in words]
        try:
            decided = verdict.parse(payload, signature.decode("ascii"), steps)
        except (ReviewError, UnicodeDecodeError) as error:
            raise _unreadable(folder / _VERDICT, str(error)) from error
        if (decided.agent, decided.review) != (agent, number):
            why = f"it is about review {decided.review} of {decided.agent}"
            raise _unreadable(folder / _VERDICT, why)
        return decided

    def note_step(self, agent: AgentId, number: int, step: Step) -> None:
        """Note what was done with the verdict. Noting it twice is fine. Raises StorageFull."""
        with durable.storage("note what was done with the verdict", ReviewError):
            _append(self._of(agent, number) / "steps", step)

    def _too_late(self, agent: AgentId, number: int) -> Refused:
        earlier = self.verdict(agent, number)
        if earlier is None:
            return Refused("The verdict was removed just now")
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(earlier.at))
        return Refused(
            f"Review {number} of {earlier.name} was decided already",
            f"{earlier.reviewer} {_DONE[earlier.judgement]} it at {when}.",
            "Your comments are kept; ask for a new review if the verdict was wrong.",
        )

    def _of(self, agent: AgentId, number: int) -> Path:
        return self.folder(agent) / "reviews" / str(number)


def _names(folder: Path) -> Sequence[str]:
    with durable.storage("read the reviews", ReviewError):
        try:
            return sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []


def _numbers(folder: Path) -> Sequence[int]:
    return sorted(int(name) for name in _names(folder) if name.isascii() and name.isdigit())


def _content(path: Path) -> bytes | None:
    """None when there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, str(error)) from error


def _parsed(content: bytes) -> Sequence[_Operation]:
    """The whole lines; one that a crash cut short is no JSON, and was never acknowledged."""
    found = []
    for line in content.splitlines():
        try:
            raw = record.load(line)
        except ValueError:
            continue
        if isinstance(raw, dict):
            found.append(raw)
    return found


def _make_folder(folder: Path) -> None:
    """As `durable.make_folder`, private, and fine with one that is there."""
    if folder.exists():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True, mode=0o700)
    durable.sync_folder(folder.parent)


def _create(path: Path, content: bytes) -> None:
    """Write a file that must not be there; it appears whole. Raises FileExistsError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    durable.sync_folder(path.parent)


def _append(path: Path, line: str) -> None:
    """Add a line that is on the disk when this returns; it is there as a whole, or not at all."""
    is_new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        is_torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        content = ("\n" * is_torn + line + "\n").encode()
        try:
            if os.write(handle, content) != len(content):
                raise OSError(errno.ENOSPC, "the line was cut short", str(path))  # noqa: TRY301
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    if is_new:
        durable.sync_folder(path.parent)


def _unreadable(path: Path, why: str) -> ReviewError:
    return ReviewError("A review cannot be read", f"{path}: {why}", "Mend or move that file away.")
