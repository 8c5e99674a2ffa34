"""The head of the review screen: whose review, how far one has come, and what is true now."""

from __future__ import annotations

import time
from collections.abc import Collection

from rich.segment import Segment

from swarm_tui.handoff import Change, Review
from swarm_tui.model import AgentId
from swarm_tui.text import EMPTY, Safe, literal, sanitize
from swarm_tui.ui.about import OID, count_lines
from swarm_tui.ui.bar import Bar
from swarm_tui.ui.figures import plural
from swarm_tui.ui.glyphs import STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.marks import Marks
from swarm_tui.ui.screen import Context


class Standing(Bar):
    """Two lines, and a third one when something is not as it was."""

    def __init__(self, context: Context, agent: AgentId, review: Review, marks: Marks) -> None:
        super().__init__(id="summary")
        self._swarm = context
        self._agent_id = agent
        self._review = review
        self._marks = marks
        self._since: tuple[Review, Safe] | None = None

    def update(self) -> None:
        self.styles.height = 2 + bool(self.gone()) + bool(self._since)
        self.refresh()

    def show_since(self, previous: Review | None, changes: Collection[Change]) -> None:
        """Say that only what came after an earlier review is shown; None: all is shown."""
        self._since = (previous, count_lines(changes)) if previous else None
        self.update()

    def gone(self) -> Safe:
        """Why this review cannot be given a verdict any more; empty when it can."""
        agent = self._swarm.store.agent(self._agent_id)
        if agent is None:
            return literal("the agent is gone; esc: back")
        record = agent.record
        if agent.operation:
            return literal(f"{agent.operation.verb} is at work on it")
        if record is None or record.review is None:
            return literal("this review had its verdict elsewhere, or the agent was resumed")
        if record.review != self._review.number:
            return literal(f"review {record.review} was taken meanwhile; esc, then r opens it")
        if record.verdict:
            return literal(f"{record.verdict} was given elsewhere, and is being carried out")
        return EMPTY

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        if y == 0:
            return self._draw_who(ink, width)
        if y == 1:
            return self._draw_progress(ink), []
        if y == 2 and self._since:
            previous, count = self._since
            return [
                Segment(" ↺ ", ink.accent),
                Segment(f"only what changed since review {previous.number}", ink.accent),
                Segment(f"  {count}   i: all changes", ink.muted),
            ], []
        return [Segment(" ⚑ ", ink.bad), Segment(self.gone(), ink.bad)], []

    def _draw_who(self, ink: Ink, width: int) -> tuple[Line, Line]:
        review, agent = self._review, self._swarm.store.agent(self._agent_id)
        right = []
        if self._swarm.banner and width >= 70:
            right.append(Segment(f"  {self._swarm.banner}", ink.warning))
        clock = time.strftime("%H:%M", time.localtime(self._swarm.now()))
        right.append(Segment(f"  {clock} ", ink.muted))
        state = (
            [Segment(f" {STATE_GLYPHS[agent.state]} ", ink.states[agent.state])]
            if agent
            else [Segment(" ", ink.text)]
        )
        why = review.why.replace("\n", " ")
        return [
            *state,
            Segment(review.name, ink.strong),
            Segment(f"  review {review.number}", ink.accent),
            Segment(f"  {sanitize(review.head[:OID])}", ink.muted),
            Segment(f"  {why}", ink.text),
        ], right

    def _draw_progress(self, ink: Ink) -> Line:
        review, marks = self._review, self._marks
        count, flags, comments = len(review.changes), len(review.flags), len(marks.drafts.comments)
        viewed, seen = marks.viewed, flags - len(marks.unseen())
        line = [
            Segment(f"   {count_lines(review.changes)}", ink.muted),
            Segment(f" · viewed {viewed:,}/{count:,}", ink.good if viewed == count else ink.text),
        ]
        if flags:
            style = ink.good if seen == flags else ink.warning
            line.append(Segment(f" · ⚑ flags seen {seen:,}/{flags:,}", style))
        else:
            line.append(Segment(" · no flags", ink.muted))
        told = plural(comments, "comment")
        line.append(Segment(f" · {told}", ink.accent if comments else ink.muted))
        return line
