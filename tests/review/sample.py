"""A review as it is taken from an agent, for tests that need some review."""

from __future__ import annotations

from swarm_tui.handoff import Change, Comment, Commit, Drafts, Flag, FlagKind, Review, Verdict
from swarm_tui.model import AgentId, Judgement
from swarm_tui.review.verdict import compose
from swarm_tui.text import sanitize

AGENT = AgentId("5a4f3a52-6f0d-4c59-9d51-0d2a1c9c6c11")
ODD_PATH = b"caf\xe9/\x1b[2J.py"
COMMENT = Comment("c1", "Why not `sum`?", b"src/total.py", "new", 12, 14, "for item in items:")


def review(number: int = 1, head: str = "b" * 40) -> Review:
    return Review(
        agent=AGENT,
        name=sanitize("spruce"),
        number=number,
        taken=1763900000.25,
        base="a" * 40,
        head=head,
        tree="c" * 40,
        digest="sha256:" + "d" * 64,
        changes=(
            Change(b"src/total.py", "100644", "100755", "1" * 40, "2" * 40, None, 3, 1, 90, 120),
            Change(ODD_PATH, "000000", "100644", "", "3" * 40, b"old\xff", None, None, None, 4),
        ),
        flags=(
            Flag(FlagKind.MODE, sanitize("became executable"), b"src/total.py"),
            Flag(FlagKind.HIDDEN, sanitize("U+202E"), ODD_PATH, 7),
            Flag(FlagKind.HISTORY, sanitize("the base is not in it")),
        ),
        commits=(Commit("b" * 40, sanitize("Sum it up"), sanitize("Agent <a@example.org>"), 17.5),),
        is_uncommitted=True,
        why=sanitize("ready"),
    )


def verdict(judgement: Judgement = Judgement.APPROVE, number: int = 1, by: str = "ann") -> Verdict:
    return compose(
        review(number),
        judgement,
        reviewer=f"{by}@example.org",
        drafts=Drafts((COMMENT,)),
        message="Nearly there.",
        at=1763900100.5,
        branch_name=lambda name, count: f"swarm/{name}/{count}",
    )
