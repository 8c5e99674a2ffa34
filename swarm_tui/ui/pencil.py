"""The drafts of a review: comments are asked for, and kept in the store at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
_AT_ONCE_S: Final = 0.03
"""About a frame: a store that is near has answered by then."""


class Pencil:
    """Of one review."""

    def __init__(self, screen: SwarmScreen, reading: Reading, on_kept: Callable[[], None]) -> None:
        """`on_kept` is called after each change."""
        self._screen = screen
        self._reading = reading
        self._on_kept = on_kept
        self._told = ""
        # One after the other: what was written first is kept first.
        self._thread = ThreadPoolExecutor(1, "drafts")
        self._look: Future[Drafts] | None = None

    def read(self) -> Drafts | None:
        """The drafts as they are now.

        None when they are not there yet, or cannot be read, which is told once.
        """
        look = self._look or self._thread.submit(self._reading.drafts)
        self._look = None
        try:
            return look.result(_AT_ONCE_S)
        except TimeoutError:
            self._look = look  # the store takes its time, or is away: the next look takes it
            return None
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
        """Change the drafts in the store; False when that failed, or takes long.

        A failure is told, whenever it comes; the keyboard does not wait for a store that is slow.
        """
        loop, kept = asyncio.get_running_loop(), self._thread.submit(change)
        try:
            kept.result(_AT_ONCE_S)
        except TimeoutError:
            self._screen.footer.say("not kept yet")
            kept.add_done_callback(lambda done: loop.call_soon_threadsafe(self._settle, done))
            return False
        except SwarmError as error:
            self._refuse(error)
            return False
        self._look = None
        self._on_kept()
        return True

    def _settle(self, kept: Future[None]) -> None:
        if not self._screen.is_attached:
            return  # whoever opens it again sees what was kept
        error = kept.exception()
        if isinstance(error, SwarmError):
            self._refuse(error)
        elif error:
            self._screen.context.show_error(error)
        else:
            self._look = None
            self._on_kept()

    def _refuse(self, error: SwarmError) -> None:
        self._screen.refuse(error.title, join((error.detail, error.hint), "\n"))
