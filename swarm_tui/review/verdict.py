"""A decision as bytes to sign, and what the agent is told with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from swarm_tui.errors import ReviewError, UsageError
from swarm_tui.handoff import Comment, Drafts, Flag, Review, Verdict
from swarm_tui.model import Judgement
from swarm_tui.review.diff import FileDiff
from swarm_tui.review.record import Fields, load
from swarm_tui.text import sanitize

FORMAT: Final = "swarm-verdict 1"
MESSAGE_BYTES: Final = 64 << 10
_FILE_BYTES: Final = 1 << 20
_QUOTE_CELLS: Final = 200

BranchName = Callable[[str, int], str]
"""The branch for an agent's name and the number of a review."""


def compose(
    review: Review,
    judgement: Judgement,
    *,
    reviewer: str,
    drafts: Drafts,
    message: str,
    at: float,
    branch_name: BranchName,
) -> Verdict:
    """A verdict about a review, not signed yet; the same input gives the same bytes.

    Raises UsageError as `write_message` does.
    """
    verdict = Verdict(
        judgement=judgement,
        agent=review.agent,
        name=review.name,
        review=review.number,
        reviewer=sanitize(reviewer),
        base=review.base,
        head=review.head,
        tree=review.tree,
        digest=review.digest,
        at=round(float(at), 3),
        flags=tuple(sorted({seen(flag) for flag in review.flags})),
        message=write_message(judgement, message, drafts.comments),
        branch=branch_name(review.name, review.number) if judgement is Judgement.APPROVE else "",
    )
    return replace(verdict, payload=_payload(verdict))


def seen(flag: Flag) -> str:
    """A flag as a verdict names it: kind, path and line."""
    place = f" {sanitize(flag.path)}" if flag.path else ""
    return f"{flag.kind}{place}{f':{flag.line}' if flag.line else ''}"


def _payload(verdict: Verdict) -> bytes:
    content: dict[str, Any] = {
        "format": FORMAT,
        "judgement": verdict.judgement,
        "agent": verdict.agent,
        "name": verdict.name,
        "review": verdict.review,
        "reviewer": verdict.reviewer,
        "base": verdict.base,
        "head": verdict.head,
        "tree": verdict.tree,
        "digest": verdict.digest,
        "at": verdict.at,
        "flags": list(verdict.flags),
        "message": verdict.message,
        "message_sha256": hashlib.sha256(verdict.message.encode()).hexdigest(),
        "branch": verdict.branch,
    }
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def parse(payload: bytes, signature: str = "", steps: Sequence[str] = ()) -> Verdict:
    """The verdict that these exact bytes are. Raises ReviewError for anything else.

    Whether the signature holds is for `ports.Signer.check` to say.
    """
    try:
        fields = Fields(load(payload))
        if fields.text("format") != FORMAT:
            raise ValueError(f"it is not of the format {FORMAT!r}")  # noqa: TRY301
        verdict = Verdict(
            judgement=Judgement(fields.text("judgement")),
            agent=fields.text("agent"),
            name=fields.safe("name"),
            review=fields.whole("review", least=1),
            reviewer=fields.safe("reviewer"),
            base=fields.oid("base"),
            head=fields.oid("head"),
            tree=fields.oid("tree"),
            digest=fields.digest("digest"),
            at=fields.time("at"),
            flags=tuple(str(flag) for flag in fields.items("flags")),
            message=fields.text("message"),
            branch=fields.text("branch"),
            payload=payload,
            signature=signature,
            steps=tuple(steps),
        )
        # One verdict has one form: this finds a wrong sha256, added fields and everything else.
        if _payload(verdict) != payload:
            raise ValueError("it does not have the form in which verdicts are written")  # noqa: TRY301
    except ValueError as error:
        raise ReviewError(
            "This is not a verdict", str(error), "It was altered, or made by something else."
        ) from error
    return verdict


def prove(
    verdict: Verdict,
    *,
    head: str,
    tree: str,
    branch: str,
    base: str | None = None,
    digest: str | None = None,
) -> None:
    """Raise ReviewError unless the verdict approves exactly this.

    `base` and `digest` are compared where they are known.
    """
    if verdict.judgement is not Judgement.APPROVE:
        raise ReviewError("This was not approved", f"The verdict is: {verdict.judgement}.")
    for what, found, approved in (
        ("commit", head, verdict.head),
        ("tree", tree, verdict.tree),
        ("branch", branch, verdict.branch),
        ("base", base, verdict.base),
        ("digest", digest, verdict.digest),
    ):
        if found is not None and found != approved:
            raise ReviewError(
                f"The {what} is not the one that was approved",
                f"There is {found or 'none'}, and {approved or 'none'} was approved.",
                "Do not trust this branch: it was moved, or the verdict belongs to another.",
            )


# What the agent reads.


def write_message(judgement: Judgement, overall: str, comments: Sequence[Comment]) -> str:
    """The overall text, then the comments by place, numbered.

    Raises UsageError when nothing is said to an agent that is to do something else, and when it
    is more than `MESSAGE_BYTES`.
    """
    if judgement is not Judgement.APPROVE and not (overall.strip() or comments):
        raise UsageError(
            "Nothing is said",
            "The agent would not know what is wrong.",
            "Say why, in a message or in a comment on a line.",
        )
    general = [comment.text for comment in comments if not comment.path]
    placed = sorted(
        (comment for comment in comments if comment.path),
        key=lambda comment: (comment.path, comment.first, comment.last, comment.side, comment.id),
    )
    parts = [text for text in map(clean, [overall, *general]) if text]
    parts += [_numbered(number, comment) for number, comment in enumerate(placed, 1)]
    message = "\n\n".join(parts)
    size = len(message.encode())
    if size > MESSAGE_BYTES:
        raise UsageError(
            "The message is too long",
            f"It has {size:,} bytes with all comments; {MESSAGE_BYTES:,} can be delivered.",
            "Send back what matters most first.",
        )
    return message


def clean(text: str) -> str:
    """Text that can be encoded, with one kind of line ends."""
    encodable = text.encode("utf-8", "replace").decode()
    return encodable.replace("\r\n", "\n").replace("\r", "\n").strip()


def _numbered(number: int, comment: Comment) -> str:
    place = str(sanitize(comment.path))
    if comment.first:
        place += f":{comment.first}"
    if comment.last > comment.first:
        place += f"-{comment.last}"
    if comment.first and comment.side == "old":
        place += " (before the change)"
    lines = [f"{number}. {place}"]
    if comment.first:
        lines.append(f"   > {sanitize(comment.quote, max_cells=_QUOTE_CELLS)}".rstrip())
    lines += [f"   {line}".rstrip() for line in clean(comment.text).split("\n")]
    return "\n".join(lines)


def quoted(comment: Comment, diff: FileDiff) -> Comment:
    """A comment with the line it is about. Raises UsageError when the file has no such line."""
    lines = diff.old if comment.side == "old" else diff.new
    if not comment.first:
        return comment
    if comment.last > len(lines):
        raise UsageError(
            "There is no such line",
            f"{sanitize(comment.path)} has {len(lines)} lines that can be commented on, "
            f"not {comment.last}.",
        )
    line = lines[comment.first - 1].decode("utf-8", "replace")
    return replace(comment, quote=line[: 4 * _QUOTE_CELLS])


# What a reviewer wrote in a file.

_PLACE: Final = re.compile(r"(?P<path>[^\s:]+):(?P<first>\d{1,9})(?:-(?P<last>\d{1,9}))?:(?=\s|$)")
_KEYS: Final = ("path", "line", "last", "side", "text")


def read_comments(file: bytes) -> Sequence[Comment]:
    """Comments from a file that a person or a tool wrote. Raises UsageError with the line.

    Either a JSON list of objects with "path", "line", "last", "side" and "text" (only "text" is
    needed), or lines "path:line: text" and "path:first-last: text", with more lines of the same
    comment indented. What stands before the first of these is about the review as a whole: a
    comment without a path.
    """
    if len(file) > _FILE_BYTES:
        raise _wrong(f"It is larger than {_FILE_BYTES:,} bytes.")
    try:
        text = file.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = file.count(b"\n", 0, error.start) + 1
        raise _wrong(f"Line {line} is not UTF-8.") from error
    found = list(_from_json(text) if re.match(r"\s*\[\s*[{\]]", text) else _from_text(text))
    if not found:
        raise _wrong("There is nothing in it.")
    return [replace(comment, id=f"file-{number}") for number, comment in enumerate(found, 1)]


def _from_json(text: str) -> Iterator[Comment]:
    try:
        raw = load(text.encode())
    except json.JSONDecodeError as error:
        raise _wrong(f"Line {error.lineno}: {error.msg}.") from error
    except ValueError as error:
        raise _wrong(f"{error}.") from error
    if not isinstance(raw, list):
        raise _wrong("It is not a list.")
    for number, item in enumerate(raw, 1):
        try:
            yield _from_object(Fields(item))
        except ValueError as error:
            raise _wrong(f"Comment {number}: {error}.") from error


def _from_object(fields: Fields) -> Comment:
    fields.only(*_KEYS)
    first = fields.whole("line", least=1) if fields.has("line") else 0
    last = fields.whole("last", least=1) if fields.has("last") else first
    path = fields.path("path") if fields.has("path") else b""
    if last < first or (last and not first):
        raise ValueError("the last line is before the first")
    if first and not path:
        raise ValueError("there is a line, but no path")
    text = fields.text("text")
    if not text.strip():
        raise ValueError("nothing is said")
    side = fields.side("side") if fields.has("side") else "new"
    return Comment("", text, path, side, first, last)


def _from_text(text: str) -> Iterator[Comment]:
    comment = Comment("", "")
    began = 1
    for number, line in enumerate([*text.split("\n"), None], 1):
        place = None if line is None else _PLACE.match(line)
        if line is None or place is not None:
            if comment.text.strip():
                yield replace(comment, text=comment.text.strip())
            elif comment.path:
                raise _wrong(f"Line {began}: nothing is said.")
        if line is None:
            return
        if place is not None:
            comment, began = _placed(number, place, line), number
        elif comment.path and line.strip() and not line[0].isspace():
            raise _wrong(
                f'Line {number} is neither "path:line: text" nor indented, so it belongs to no '
                "comment."
            )
        else:
            added = line.strip() if comment.path else line
            comment = replace(comment, text=f"{comment.text}\n{added}")


def _placed(number: int, place: re.Match[str], line: str) -> Comment:
    first = int(place["first"])
    last = int(place["last"] or first)
    if not 1 <= first <= last:
        raise _wrong(f"Line {number}: {first}-{last} are no lines of a file.")
    return Comment("", line[place.end() :].strip(), place["path"].encode(), "new", first, last)


def _wrong(why: str) -> UsageError:
    return UsageError("The file of comments cannot be read", why)
