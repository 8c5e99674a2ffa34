"""Reviews from the time before the store, when each agent had a folder: taken over once.

    <root>/<agent>/drafts.jsonl                   what reviewers noted, one operation a line
    <root>/<agent>/reviews/<n>/review.json
    <root>/<agent>/reviews/<n>/verdict.json       the signed bytes, beside them verdict.json.sig
    <root>/<agent>/reviews/<n>/steps              what was done with the verdict

The folder is renamed to `reviews.taken-over` once the store has what is in it; to take it over
twice makes no difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from swarm_tui import durable
from swarm_tui.database import Database, Transaction
from swarm_tui.errors import ReviewError
from swarm_tui.handoff import Comment
from swarm_tui.review import record

_DRAFTS: Final = "drafts.jsonl"
_BEHIND: Final = ".taken-over"


def take_over(root: Path, database: Database) -> None:
    """Raises StoreError, StorageFull, ReviewError."""
    for agent in _names(root):
        folder = root / agent
        if not ((folder / "reviews").is_dir() or (folder / _DRAFTS).exists()):
            continue
        with database.write() as transaction:
            for name in _names(folder / "reviews"):
                if name.isascii() and name.isdigit():
                    _insert(transaction, agent, int(name), folder / "reviews" / name)
            _replay(transaction, agent, _content(folder / _DRAFTS) or b"")
        with durable.storage("put away the reviews that were taken over", ReviewError):
            for name in ("reviews", _DRAFTS):
                if (folder / name).exists():
                    os.rename(folder / name, folder / f"{name}{_BEHIND}")
            durable.sync_folder(folder)


def insert_comment(transaction: Transaction, agent: str, number: int, comment: Comment) -> None:
    """Add a comment behind all others, or replace the one with the same id."""
    transaction.run(
        "INSERT INTO comments (agent, review, id, place, content)"
        " SELECT CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS TEXT), COALESCE(MAX(place), 0) + 1,"
        " CAST(? AS TEXT) FROM comments WHERE agent = ? AND review = ?"
        " ON CONFLICT (agent, review, id) DO UPDATE SET content = excluded.content",
        agent,
        number,
        comment.id,
        json.dumps(record.encode_comment(comment)),
        agent,
        number,
    )


def _insert(transaction: Transaction, agent: str, number: int, folder: Path) -> None:
    review = _content(folder / "review.json")
    if review is not None:
        # A damaged one comes along, too: who opens it is told.
        transaction.run(
            "INSERT INTO reviews (agent, number, base, content) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (agent, number) DO NOTHING",
            agent,
            number,
            "",
            _text(review),
        )
    payload = _content(folder / "verdict.json")
    if payload is None:
        return
    transaction.run(
        "INSERT INTO verdicts (agent, review, payload, signature) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (agent, review) DO NOTHING",
        agent,
        number,
        payload,
        _text(_content(folder / "verdict.json.sig") or b""),
    )
    # Without its end a line does not count: it was never acknowledged.
    for step in _text(_content(folder / "steps") or b"").split("\n")[:-1]:
        transaction.run(
            "INSERT INTO verdict_steps (agent, review, step) VALUES (?, ?, ?)"
            " ON CONFLICT (agent, review, step) DO NOTHING",
            agent,
            number,
            step,
        )


def _replay(transaction: Transaction, agent: str, content: bytes) -> None:
    for line in content.splitlines():
        try:
            _replay_one(transaction, agent, record.load(line))
        except ValueError:
            continue  # one that a crash cut short, and was never acknowledged


def _replay_one(transaction: Transaction, agent: str, raw: Any) -> None:
    """Raises ValueError before anything is changed."""
    fields = record.Fields(raw)
    match fields.text("op"):
        case "comment":
            comment = record.decode_comment(record.Fields(raw.get("comment")))
            insert_comment(transaction, agent, fields.whole("review"), comment)
        case "drop":
            transaction.run(
                "DELETE FROM comments WHERE agent = ? AND review = ? AND id = ?",
                agent,
                fields.whole("review"),
                fields.text("id"),
            )
        case "viewed":
            transaction.run(
                "INSERT INTO viewed (agent, key) VALUES (?, ?) ON CONFLICT (agent, key) DO NOTHING",
                agent,
                fields.text("key"),
            )
        case "unviewed":
            transaction.run(
                "DELETE FROM viewed WHERE agent = ? AND key = ?", agent, fields.text("key")
            )


def _text(content: bytes) -> str:
    """What any database takes as text."""
    return content.decode("utf-8", "replace").replace("\0", "\ufffd")


def _content(path: Path) -> bytes | None:
    with durable.storage("read the reviews", ReviewError):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


def _names(folder: Path) -> list[str]:
    with durable.storage("read the reviews", ReviewError):
        try:
            return sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
