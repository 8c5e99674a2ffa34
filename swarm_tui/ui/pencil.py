"""The drafts of a review: comments are asked for, and kept on disk at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import uuid4

from swarm_tui.errors import SwarmError
from swarm_tui.handoff import Comment, Drafts
from swarm_tui.review.desk import Reading
from swarm_tui.text import join, literal, sanitize
from swarm_tui.ui.about import describe
from swarm_tui.ui.dialogs import Confirm
from swarm_tui.ui.editor import CommentDialog
from swarm_tui.ui.question import Question
from swarm_tui.ui.screen import SwarmScreen

_LINES_AT_MOST: Final = 6


class Pencil:
    """Of one review."""

    def __init__(self, screen: SwarmScreen, reading: Reading, on_kept: Callable[[], None]) -> None:
        """`on_kept` is called after each change."""
        self._screen = screen
        self._reading = reading
        self._on_kept = on_kept
        self._told = ""

    def read(self) -> Drafts | None:
        """The drafts as they are now; None when they cannot be read, which is told once."""
        try:
            return self._reading.drafts()
        except SwarmError as error:
            if str(error) != self._told:  # it is looked at again and again
                self._told = str(error)
                self._screen.context.show_error(error)
            return None

    def write(self, comment: Comment) -> None:
        """Let a comment be written or, with an id, be changed."""
        title = join((literal("Comment on"), describe(comment)))

        def answered(text: str | None) -> None:
            if text is not None:
                said = replace(comment, id=comment.id or uuid4().hex, text=text)
                self.keep(lambda: self._reading.comment(said))

        dialog = CommentDialog(title, sanitize(comment.quote), comment.text)
        self._screen.app.push_screen(dialog, answered)

    def drop(self, comment: Comment) -> None:
        """Ask, then remove a comment: what was typed is not lost by one key."""
        lines = [sanitize(line) for line in comment.text.split("\n")[:_LINES_AT_MOST]]
        title = join((literal("Remove the comment on "), describe(comment), literal("?")), "")

        def answered(is_yes: bool | None) -> None:
            if is_yes:
                self.keep(lambda: self._reading.drop(comment.id))

        question = Question(title, lines, [], "remove it")
        self._screen.app.push_screen(Confirm(question, self._screen.context.monotonic), answered)

    def keep(self, change: Callable[[], None]) -> bool:
        """Change the drafts on disk; False when that failed, which is told."""
        try:
            change()
        except SwarmError as error:
            self._screen.refuse(error.title, join((error.detail, error.hint), "\n"))
            return False
        self._on_kept()
        return True
