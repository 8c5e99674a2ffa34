"""One review: its files, their diffs, what is said about them, and the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping, Sequence
from typing import ClassVar, Final, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical

from swarm_tui.command import Verdict
from swarm_tui.errors import SwarmError
from swarm_tui.handoff import Change, Comment, Flag
from swarm_tui.model import AgentId, Judgement
from swarm_tui.review.desk import Reading
from swarm_tui.text import Safe, join, literal, sanitize
from swarm_tui.ui.about import tell_file, tell_review, tell_title
from swarm_tui.ui.actions import at
from swarm_tui.ui.court import Court, Terms
from swarm_tui.ui.diffs import Diffs
from swarm_tui.ui.field import Field
from swarm_tui.ui.figures import plural
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.logs import PaneTitle
from swarm_tui.ui.marks import ABOUT, Marks
from swarm_tui.ui.page import Page
from swarm_tui.ui.patch import Patch
from swarm_tui.ui.pencil import Pencil
from swarm_tui.ui.screen import Context, OneAgentScreen
from swarm_tui.ui.sheet import Para, Words
from swarm_tui.ui.standing import Standing
from swarm_tui.ui.tree import FileTree

_WIDE_CELLS: Final = 100
"""From so many on the files are beside the diff."""
_SLOW_S: Final = 0.15
"""A file that takes longer is said to be read."""
_LOOK_EVERY: Final = 10
"""Ticks between looks at the drafts, which somebody else may change."""

Direction = Literal[-1, 1]


class ReviewScreen(OneAgentScreen):
    """Everything stays as it is when it is left: drafts are on disk, the agent stays saved."""

    PLACE = "review"
    KEPT = ("help",)  # what blocks an approval matters more than how to quit
    BINDINGS: ClassVar[list[BindingType]] = bindings("review")

    def __init__(
        self,
        context: Context,
        agent: AgentId,
        reading: Reading,
        terms: Terms,
        messages: MutableMapping[Judgement, str],
        on_verdict: Callable[[Verdict], None],
    ) -> None:
        """`messages` is what was typed with verdicts on it that were not given; it is kept up."""
        super().__init__(context, agent)
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (_WIDE_CELLS, "-wide")]
        self._reading = reading
        self._marks = Marks(reading.review, reading.begun())
        self._standing = Standing(context, agent, reading.review, self._marks)
        self._court = Court(self, reading.review, terms, self._standing.gone, messages, on_verdict)
        self._pencil = Pencil(self, reading, self._take_drafts)
        self._tree = FileTree()
        self._title = PaneTitle()
        self._patch = Patch()
        self._input = Field(id="search", placeholder="search all files", on_submit=self._search)
        self._index = ABOUT
        self._diffs = Diffs(reading)
        self._jobs: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[None] | None = None
        self._ticks = 0

    def compose(self) -> ComposeResult:
        yield self._standing
        with Horizontal(id="body"):
            yield self._tree
            with Vertical(id="side"):
                yield self._title
                yield self._patch
        yield self._input
        yield self.footer

    def on_mount(self) -> None:
        self._input.display = False
        self.set_class(self.app.size.width < _WIDE_CELLS, "-narrow")  # at once, not a frame later
        self._take_changes(self._reading.review.changes, is_since=False)
        self.set_focus(self._patch)
        unviewed = self._marks.next_unviewed(ABOUT) if self._marks.is_viewed(ABOUT) else None
        self._open(ABOUT if unviewed is None else unviewed)
        self.catch_up()

    async def on_unmount(self) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._reading.close()

    # News

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        self._ticks += 1
        if self.agent_id in dirty or hosts_changed:
            self.catch_up()
        elif self._ticks % _LOOK_EVERY == 0:
            self._standing.update()
            self._take_drafts()

    def catch_up(self) -> None:
        self._take_drafts()
        self._show_signs()
        denied = (
            action.id
            for action in at("review")
            if action.verb and (self._standing.gone() or self.context.deny(action, self.agent_id))
        )
        self.footer.show(frozenset(denied), {})

    def _take_drafts(self) -> None:
        drafts = self._pencil.read()
        if drafts is not None and drafts != self._marks.drafts:
            self._marks.drafts = drafts
            self._show_signs()
            self._show_page()

    def _show_signs(self) -> None:
        self._tree.show_signs(*self._marks.signs())
        self._standing.update()
        self._show_title()

    # What is shown

    @property
    def _change(self) -> Change | None:
        """The file that is shown; None: what is about the review."""
        return self._tree.changes[self._index] if self._index >= 0 else None

    def _open(self, index: int, then: Callable[[], None] | None = None) -> None:
        """Show a file, or what is about the review; `then` something, when it is there."""
        if self._opening:
            self._opening.cancel()
        self._index = index
        self._tree.show_open(index)
        self.remove_class("-tree")
        change = self._change
        if change is None or self._diffs.has(change):
            self._show_page()
            if then:
                then()
            self._read_ahead()
        else:
            self._opening = self._start(self._read(change, then), "read file")
        self._show_title()

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        job = asyncio.create_task(work, name=name)
        self._jobs.add(job)
        job.add_done_callback(self._settle)
        return job

    def _settle(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()):
            self.context.show_error(error)

    async def _read(self, change: Change, then: Callable[[], None] | None) -> None:
        slow = self.set_timer(_SLOW_S, lambda: self._say_page(literal("reading …"), "muted"))
        try:
            await self._diffs.get(change)
        except SwarmError as error:
            self._say_page(join((error.title, error.detail, error.hint), ": "), "bad")
            return
        finally:
            slow.stop()
        self._show_page()
        if then:
            then()
        self._read_ahead()

    def _say_page(self, text: Safe, role: Literal["muted", "bad"]) -> None:
        self._patch.show(Page(f"{self._marks.key(self._index)}-{role}", [Para(text, role)]))

    def _read_ahead(self) -> None:
        """The next file is at hand before it is asked for."""
        following = self._index + 1
        if following < len(self._tree.changes):
            change = self._tree.changes[following]
            if not self._diffs.has(change):
                self._start(self._diffs.prepare(change), "read ahead")

    def _show_page(self) -> None:
        change = self._change
        comments = self._marks.comments(self._index)
        if change is None:
            review = self._reading.review
            told = tell_review(review, self.context.now())
            self._patch.show(Page(review.about, told, comments=comments))
        elif diff := self._diffs.at_hand(change):
            head = tell_file(change, self._marks.flags(self._index), diff.note)
            self._patch.show(Page(change.key, head, diff, comments))
        self._show_title()

    @on(Patch.Moved)
    def _show_title(self) -> None:
        change, patch = self._change, self._patch
        parts = []
        if patch.needle:
            parts.append(f"/{sanitize(patch.needle, max_cells=20)}")
        if patch.pivot is not None and (target := patch.target()):
            parts.append(plural(target.last - target.first + 1, "line") + " selected")
        number, count, percent = patch.where()
        if count:
            parts.append(f"change {number}/{count}" if number else plural(count, "change"))
        parts.append(f"{percent}%")
        previous = self._reading.previous if self._marks.is_since else None
        told = tell_title(change, previous, is_viewed=self._marks.is_viewed(self._index))
        self._title.show(told, " · ".join(parts))

    # Files

    @on(FileTree.Chosen)
    def _chosen(self, event: FileTree.Chosen) -> None:
        self._open(event.index)
        self.set_focus(self._patch)

    @on(Patch.Left)
    def _next_change(self, event: Patch.Left) -> None:
        direction = event.direction
        if self._go_to_file(direction, lambda: self._patch.go_to_hunk(direction)):
            change = self._change
            self.footer.say(sanitize(change.name, max_cells=40) if change else "about this review")

    def _go_to_file(self, direction: Direction, then: Callable[[], None] | None = None) -> bool:
        index = self._index + direction
        if not ABOUT <= index < len(self._tree.changes):
            self.footer.say("the last file" if direction > 0 else "the first one")
            return False
        self._open(index, then)
        return True

    def do_next_file(self) -> None:
        self._go_to_file(1)

    def do_previous_file(self) -> None:
        self._go_to_file(-1)

    def do_files(self) -> None:
        if self.has_class("-narrow"):
            self.toggle_class("-tree")
            self.set_focus(self._tree if self.has_class("-tree") else self._patch)
        else:
            self.toggle_class("-no-tree")
            self.set_focus(self._patch)

    def do_pane(self) -> None:
        if self.has_class("-narrow"):
            self.do_files()
        elif not self.has_class("-no-tree"):
            self.set_focus(self._patch if self.focused is self._tree else self._tree)

    def do_press(self) -> None:
        if self.focused is self._tree:
            self._tree.choose()
        else:
            self._patch.press()

    @on(Patch.Pressed)
    def _pressed(self, event: Patch.Pressed) -> None:
        if event.para.comment:
            self._pencil.write(event.para.comment)
        elif event.para.flag:
            self._go_to_flag(event.para.flag)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        # Enter in the search is its own.
        return parameters != ("press", "enter") or self.focused is not self._input

    def _is_there(self) -> bool:
        """Whether the file is shown by now, which is told if not: keys are about what is seen."""
        change = self._change
        is_there = self._patch.page.key == (change.key if change else self._marks.key(ABOUT))
        if not is_there:
            self.footer.say("it is not shown yet")
        return is_there

    def do_viewed(self) -> None:
        if not self._is_there():
            return
        key = self._marks.key(self._index)
        is_viewed = key not in self._marks.drafts.viewed
        is_kept = self._pencil.keep(lambda: self._reading.mark(key, is_viewed=is_viewed))
        if not is_kept or not is_viewed:
            return
        index = self._marks.next_unviewed(self._index)
        if index is None:
            self.footer.say("all is viewed")
        else:
            self._open(index)

    def do_next_flag(self) -> None:
        unseen = self._marks.unseen()
        if not unseen:
            self.footer.say("all flags are seen" if self._reading.review.flags else "no flags")
            return
        self._go_to_flag(self._marks.next_flag(unseen, self._index))

    def _go_to_flag(self, flag: Flag) -> None:
        """To its line, or to the head of its file, which may not have changed since."""
        line = flag.line
        if self._marks.is_hidden(flag):
            self._show_changes(self._reading.review.changes, is_since=False)

        def go() -> None:
            if not (line and self._patch.find("new", line)):
                self._patch.action_end(0)

        self._open(self._marks.place(flag), go)

    # How it is shown

    def do_split(self) -> None:
        if not self._patch.choose_split():
            self.footer.say("there is one side only")

    def do_wrap(self) -> None:
        self._patch.choose_wrap()
        self.footer.say("long lines are wrapped" if self._patch.wraps else "long lines are cut")

    def do_more(self) -> None:
        self._patch.choose_more(1)

    def do_less(self) -> None:
        self._patch.choose_more(-1)

    def do_whole(self) -> None:
        self._patch.choose_whole()

    def do_side(self) -> None:
        if self._patch.is_split:
            self.footer.say(f"the {self._patch.choose_side()} side")
        else:
            self.footer.say("for side by side")

    def do_select_lines(self) -> None:
        self._patch.select()

    def do_since(self) -> None:
        if self._marks.is_since:
            self._show_changes(self._reading.review.changes, is_since=False)
        elif self._reading.previous is None:
            self.footer.say("no earlier review to compare with")
        else:
            self._start(self._compare(self._reading.previous.number), "since")

    async def _compare(self, number: int) -> None:
        changes = await self._reading.since()
        if changes:
            self._show_changes(changes, is_since=True)
        else:
            self.footer.say(f"nothing changed since review {number}")

    def _take_changes(self, changes: Sequence[Change], *, is_since: bool) -> None:
        self._tree.show(changes)
        self._marks.show(self._tree.changes, is_since=is_since)

    def _show_changes(self, changes: Sequence[Change], *, is_since: bool) -> None:
        """Other changes in the tree, at the same file if it is among them."""
        here = self._change
        self._take_changes(changes, is_since=is_since)
        paths = [change.path for change in self._tree.changes]
        is_known = here is not None and here.path in paths
        self._open(paths.index(here.path) if here and is_known else 0 if is_since else ABOUT)
        self._standing.show_since(self._reading.previous if is_since else None, changes)
        self._show_signs()

    def do_leave(self) -> None:
        if self._input.display:
            self._close_search()
            self._patch.search("")
        elif self.focused is self._tree:
            self.remove_class("-tree")
            self.set_focus(self._patch)
        elif self._patch.pivot is not None:
            self._patch.select()
        elif self._patch.needle:
            self._patch.search("")
            self._show_title()
        elif self._marks.is_since:
            self.do_since()
        else:
            self.dismiss()

    # Searching

    def do_find(self) -> None:
        self._input.display = True
        self._input.value = self._patch.needle
        self.set_focus(self._input)

    def _close_search(self) -> None:
        self._input.display = False
        self.set_focus(self._patch)

    def _search(self, text: str) -> None:
        self._close_search()
        self._patch.search(sanitize(text.strip()))
        if self._patch.needle:
            self._find(1)

    def do_find_next(self) -> None:
        self._find(1)

    def do_find_previous(self) -> None:
        self._find(-1)

    def _find(self, direction: Direction) -> None:
        if not self._patch.needle:
            self.footer.say("/ searches")
        elif not self._patch.find_next(direction):
            self.footer.say("searching on …")
            self._start(self._find_elsewhere(direction), "search")

    async def _find_elsewhere(self, direction: Direction) -> None:
        """In the files after this one, round the end, back to this one itself."""
        here, needle, changes = self._index, self._patch.needle, self._tree.changes
        start = max(here, 0) if direction < 0 else here
        turn = [(start + step * direction) % len(changes) for step in range(1, len(changes) + 1)]
        found = await self._diffs.find([changes[index] for index in turn], needle)
        if (self._index, self._patch.needle) != (here, needle):
            return  # one has gone elsewhere meanwhile
        if found is None:
            self.footer.say("not found")
        else:
            index = turn[found]
            self._open(index, lambda: self._go_to_match(needle, direction))
            self.footer.say("from the other end" if index == here else changes[index].name[:40])

    def _go_to_match(self, needle: str, direction: Direction) -> None:
        self._patch.search(needle)
        self._patch.find_next(direction, is_fresh=True)

    # Comments

    def do_comment(self) -> None:
        if not self._is_there():
            return
        item, target = self._patch.item(), self._patch.target()
        if comment := self._patch.comment():
            self._pencil.write(comment)
        elif target is None:
            if isinstance(item, Words) or item is None:
                self.do_comment_file()
            else:
                self.footer.say("these lines are not shown")
        elif self._marks.is_since and target.side == "old":
            self.footer.say("a line of the last review: i shows all changes")
        elif change := self._change:
            side, first, last, quote = target
            self._pencil.write(Comment("", "", change.path, side, first, last, quote))

    def do_comment_file(self) -> None:
        path = self._change.path if self._change else b""
        known = (c for c in self._marks.drafts.comments if c.path == path and not c.first)
        self._pencil.write(next(known, Comment("", "", path)))

    def do_drop_comment(self) -> None:
        if comment := self._patch.comment():
            self._pencil.drop(comment)
        else:
            self.footer.say("no comment here")

    # Verdicts

    def do_approve(self) -> None:
        self._take_drafts()
        unseen = self._marks.unseen()
        if self._court.is_open(Judgement.APPROVE) and unseen:
            self._court.refuse_unseen(unseen)
            self._go_to_flag(unseen[0])
        else:
            self._ask(Judgement.APPROVE)

    def do_send_back(self) -> None:
        self._ask(Judgement.SEND_BACK)

    def do_reject(self) -> None:
        self._ask(Judgement.REJECT)

    def _ask(self, judgement: Judgement) -> None:
        self._take_drafts()
        self._court.ask(judgement, self._marks.drafts)
