"""What is kept of reviews: in the store that all supervisors share, but for git's own objects.

    <root>/<agent>/quarantine.git      objects taken from the agent, on this machine; made elsewhere
    <root>/<agent>/checked/<n>         digest of a review that was found true on this machine
    <root>/<agent>/verdicts/<n>.json   the signed bytes of a verdict that was given here, and
    <root>/<agent>/verdicts/<n>.json.sig   its signature, for `ssh-keygen -Y verify`

Everything here blocks.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from swarm_tui import durable
from swarm_tui.database import Database, Transaction, open_database
from swarm_tui.errors import NotFound, Refused, ReviewError, SwarmError
from swarm_tui.handoff import Comment, Drafts, Review, Verdict
from swarm_tui.model import AgentId, Judgement
from swarm_tui.review import inherited, record, verdict
from swarm_tui.review.packs import Packs

Step = Literal["landed", "delivered", "void"]
_STEPS: Final = ("landed", "delivered", "void")
_DONE: Final = {
    Judgement.APPROVE: "approved",
    Judgement.SEND_BACK: "sent back",
    Judgement.REJECT: "rejected",
}


class Shelf:
    """All reviews of all agents. For any thread. All methods raise StoreError, StorageFull."""

    def __init__(self, root: Path, database: Database | None = None) -> None:
        """`database`: None, one of its own below `root`, for who shares it with nobody."""
        self._root = root
        self._database = database or open_database(f"sqlite://{root.absolute()}/store.db")
        self._is_inherited = False
        self.packs = Packs(self._read, self._write)

    @contextmanager
    def _read(self) -> Iterator[Transaction]:
        self._inherit()
        with self._database.read() as transaction:
            yield transaction

    @contextmanager
    def _write(self) -> Iterator[Transaction]:
        self._inherit()
        with self._database.write() as transaction:
            yield transaction

    def _inherit(self) -> None:
        """Take over, once, what was kept in folders before there was a store."""
        if not self._is_inherited:
            inherited.take_over(self._root, self._database)
            self._is_inherited = True

    def folder(self, agent: AgentId) -> Path:
        """The agent's folder here; it may not exist. Raises NotFound for an id that is no name."""
        if not agent or "/" in agent or agent.startswith(".") or not agent.isprintable():
            raise NotFound("No such agent", repr(agent))
        return self._root / agent

    def quarantine(self, agent: AgentId) -> Path:
        """Where the agent's quarantine repository is, or will be, on this machine."""
        return self.folder(agent) / "quarantine.git"

    def remove(self, agent: AgentId) -> None:
        """Remove everything but reviews with a verdict. Nothing there is fine."""
        with durable.storage("remove the agent's reviews", ReviewError):
            durable.remove_folder(self.quarantine(agent))
            durable.remove_folder(self.folder(agent) / "checked")
        with self._write() as transaction:
            for table in ("comments", "viewed"):
                transaction.run(f"DELETE FROM {table} WHERE agent = ?", agent)
            self.packs.forget(transaction, agent)
            transaction.run(
                "DELETE FROM reviews WHERE agent = ? AND NOT EXISTS (SELECT 1 FROM verdicts"
                " WHERE verdicts.agent = reviews.agent AND verdicts.review = reviews.number)",
                agent,
            )

    def forget_packs(self, agent: AgentId, before: int) -> None:
        """Remove the objects of the agent's reviews of lower numbers from the store."""
        with self._write() as transaction:
            self.packs.forget(transaction, agent, before)

    # Reviews.

    def numbers(self, agent: AgentId) -> Sequence[int]:
        """Numbers of the agent's reviews, rising."""
        self.folder(agent)
        with self._read() as transaction:
            rows = transaction.rows(
                "SELECT number FROM reviews WHERE agent = ? ORDER BY number", agent
            )
        return [int(row[0]) for row in rows]

    def next_number(self, agent: AgentId) -> int:
        """One that no review has, nor a verdict."""
        self.folder(agent)
        with self._read() as transaction:
            row = transaction.row(
                "SELECT max(number) FROM (SELECT number FROM reviews WHERE agent = ?"
                " UNION SELECT review FROM verdicts WHERE agent = ?) AS used",
                agent,
                agent,
            )
        return (int(row[0]) if row and row[0] is not None else 0) + 1

    def write(self, review: Review) -> None:
        """Keep a new review. Raises Refused when there is one with this number."""
        agent = AgentId(review.agent)
        self.folder(agent)
        with self._write() as transaction:
            is_new = transaction.run(
                "INSERT INTO reviews (agent, number, base, content) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (agent, number) DO NOTHING",
                agent,
                review.number,
                review.base,
                record.encode_review(review).decode(),
            )
            transaction.touch("review", agent)
        if not is_new:
            raise Refused(
                f"Review {review.number} of {review.name} is there already",
                "Another session took one at the same time.",
                "Open that one, or ask for a review again.",
            )

    def note_checked(self, review: Review) -> None:
        """Remember, on this machine alone, that a review says what its objects are."""
        path = self._mark_of(review)
        with durable.storage("remember what was checked", ReviewError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            durable.write(path, _digest_of(review).encode(), 0o600)

    def is_checked(self, review: Review) -> bool:
        """Whether this very review was checked, or taken, on this machine."""
        try:
            return self._mark_of(review).read_text() == _digest_of(review)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise self._unreadable(str(self._mark_of(review)), str(error)) from error

    def _mark_of(self, review: Review) -> Path:
        return self.folder(AgentId(review.agent)) / "checked" / f"{review.number}"

    def read(self, agent: AgentId, number: int) -> Review:
        """Raises NotFound, and ReviewError when it is damaged."""
        with self._read() as transaction:
            row = transaction.row(
                "SELECT content FROM reviews WHERE agent = ? AND number = ?", agent, number
            )
        if row is None:
            raise NotFound(f"There is no review {number} of this agent", str(agent))
        what = f"review {number} of agent {agent}"
        try:
            review = record.decode_review(str(row[0]).encode())
        except ValueError as error:
            raise self._unreadable(what, str(error)) from error
        if (review.agent, review.number) != (agent, number):
            raise self._unreadable(what, f"it is review {review.number} of {review.agent}")
        return review

    def last(self, agent: AgentId) -> Review | None:
        """The newest review."""
        numbers = self.numbers(agent)
        return self.read(agent, numbers[-1]) if numbers else None

    def last_judged(self, agent: AgentId, before: int | None = None) -> Review | None:
        """The newest review with a verdict; with `before`, among those of lower numbers."""
        with self._read() as transaction:
            row = transaction.row(
                "SELECT max(number) FROM reviews JOIN verdicts ON verdicts.agent = reviews.agent"
                " AND verdicts.review = reviews.number WHERE reviews.agent = ? AND number < ?",
                agent,
                2**62 if before is None else before,
            )
        return self.read(agent, int(row[0])) if row and row[0] is not None else None

    # Drafts: comments belong to a review, viewed marks to the agent.

    def drafts(self, agent: AgentId, number: int) -> Drafts:
        """As all reviewers left them. Raises ReviewError when one is damaged."""
        with self._read() as transaction:
            comments = transaction.rows(
                "SELECT content FROM comments WHERE agent = ? AND review = ? ORDER BY place, id",
                agent,
                number,
            )
            keys = transaction.rows("SELECT key FROM viewed WHERE agent = ?", agent)
        try:
            read = [record.Fields(record.load(str(row[0]).encode())) for row in comments]
            found = tuple(record.decode_comment(fields) for fields in read)
        except ValueError as error:
            what = f"a comment on review {number} of agent {agent}"
            raise self._unreadable(what, str(error)) from error
        return Drafts(found, frozenset(str(row[0]) for row in keys))

    def comment(self, agent: AgentId, number: int, comment: Comment) -> None:
        """Add a comment, or replace the one with the same id."""
        self.folder(agent)
        with self._write() as transaction:
            inherited.insert_comment(transaction, agent, number, comment)

    def drop(self, agent: AgentId, number: int, comment: str) -> None:
        """Remove the comment with this id."""
        with self._write() as transaction:
            transaction.run(
                "DELETE FROM comments WHERE agent = ? AND review = ? AND id = ?",
                agent,
                number,
                comment,
            )

    def mark(self, agent: AgentId, key: str, *, is_viewed: bool) -> None:
        """Set or clear a viewed mark."""
        self.folder(agent)
        sql = (
            "INSERT INTO viewed (agent, key) VALUES (?, ?) ON CONFLICT (agent, key) DO NOTHING"
            if is_viewed
            else "DELETE FROM viewed WHERE agent = ? AND key = ?"
        )
        with self._write() as transaction:
            transaction.run(sql, agent, key)

    # Verdicts.

    def write_verdict(self, decided: Verdict) -> None:
        """Keep a verdict with its signature: the first one counts, whoever is quicker.

        Raises Refused when there is one, ReviewError when it is about other content than the
        review has.
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
        with self._write() as transaction:
            is_first = transaction.run(
                "INSERT INTO verdicts (agent, review, payload, signature) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (agent, review) DO NOTHING",
                agent,
                decided.review,
                decided.payload,
                decided.signature,
            )
            transaction.touch("review", agent)
        if not is_first:
            raise self._too_late(agent, decided.review)
        with suppress(SwarmError):  # only a copy, which `export` makes again
            self.export(agent, decided.review, self.folder(agent) / "verdicts")

    def verdict(self, agent: AgentId, number: int) -> Verdict | None:
        """None as long as nothing is decided. Raises ReviewError when it is damaged.

        Whether the signature holds is not looked at.
        """
        with self._read() as transaction:
            row = transaction.row(
                "SELECT payload, signature FROM verdicts WHERE agent = ? AND review = ?",
                agent,
                number,
            )
            words = transaction.rows(
                "SELECT step FROM verdict_steps WHERE agent = ? AND review = ?", agent, number
            )
        if row is None:
            return None
        steps = [step for step in _STEPS if (step,) in [tuple(word) for word in words]]
        what = f"the verdict on review {number} of agent {agent}"
        try:
            decided = verdict.parse(bytes(row[0]), str(row[1]), steps)
        except (ReviewError, TypeError) as error:
            raise self._unreadable(what, str(error)) from error
        if (decided.agent, decided.review) != (agent, number):
            why = f"it is about review {decided.review} of {decided.agent}"
            raise self._unreadable(what, why)
        return decided

    def note_step(self, agent: AgentId, number: int, step: Step) -> None:
        """Note what was done with the verdict. Noting it twice is fine."""
        with self._write() as transaction:
            transaction.run(
                "INSERT INTO verdict_steps (agent, review, step) VALUES (?, ?, ?)"
                " ON CONFLICT (agent, review, step) DO NOTHING",
                agent,
                number,
                step,
            )

    def export(self, agent: AgentId, number: int, folder: Path) -> Path:
        """Write a verdict's signed bytes, and its signature beside them, as files.

        Returns the first; the other has `.sig` behind its name. Raises NotFound, ReviewError.
        """
        decided = self.verdict(agent, number)
        if decided is None:
            raise NotFound(f"There is no verdict on review {number} of this agent", str(agent))
        with durable.storage("write the verdict", ReviewError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if decided.signature:
                durable.write(folder / f"{number}.json.sig", decided.signature.encode(), 0o600)
            durable.write(folder / f"{number}.json", decided.payload, 0o600)
        return folder / f"{number}.json"

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

    def _unreadable(self, what: str, why: str) -> ReviewError:
        place = self._database.place
        return ReviewError("A review cannot be read", f"{place}, {what}: {why}", "Mend the store.")


def _digest_of(review: Review) -> str:
    return hashlib.sha256(record.encode_review(review)).hexdigest()
