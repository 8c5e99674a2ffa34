"""The form for new agents: what is asked for, beside what would be made of it now."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from rich.segment import Segment
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import Button, Input, Static, TextArea

from swarm_tui.command import Spawn
from swarm_tui.errors import UsageError
from swarm_tui.model import HostName
from swarm_tui.profiles import Entry
from swarm_tui.spawns import MOST, Wish
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import EMPTY, Safe, literal, sanitize
from swarm_tui.ui.bar import Inked
from swarm_tui.ui.editor import Pad
from swarm_tui.ui.facts import Facts
from swarm_tui.ui.field import Field
from swarm_tui.ui.figures import fit
from swarm_tui.ui.ink import Ink, Line, draw, ink_of
from swarm_tui.ui.keys import quiet
from swarm_tui.ui.prospect import Outlook, tell_broken, tell_prospect
from swarm_tui.ui.rows import Rows

_REFRESH_S: Final = 1.0
_WIDE: Final = 110
"""From here on the preview stands beside the form."""
_CHOSEN: Final = "chosen by memory and spread"
_FIRST: Final = "demo"
"""The profile that the cursor is on at first."""


class Stop(Inked):
    """A place of the form that Enter leaves for the next one."""

    SURFACE = "panel"

    def on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.prevent_default().stop()
            self.screen.focus_next()


class ProfileRows(Rows[Entry], Stop, can_focus=True):
    """The profiles, with a word of each."""

    # Textual takes default CSS from the first base alone: without that of Rows nothing scrolls.

    def show(self, entries: Sequence[Entry]) -> None:
        self._rows = entries
        names = [entry.name for entry in entries]
        self._cursor = names.index(literal(_FIRST)) if _FIRST in names else 0
        self._resize()
        self.refresh()

    def on_resize(self) -> None:
        self._scroll_to_cursor()

    def draw_row(self, row: Entry, ink: Ink, width: int) -> tuple[Line, Line]:
        told, style = (row.profile.about, ink.muted) if row.profile else ("", ink.bad)
        if row.error:
            told = row.error.detail.split("\n")[0] or row.error.title
        name = Segment(f" {fit(row.name, 14)} ", ink.strong if row.profile else ink.bad)
        return [name, Segment(told, style)], []


class HostChoice(Stop, can_focus=True):
    """One of the hosts, or whichever is best."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("left,h", "turn(-1)"),
        quiet("right,l,space", "turn(1)"),
    ]

    class Changed(Message):
        """Another one is chosen."""

    def __init__(self, hosts: Sequence[HostName]) -> None:
        super().__init__(id="host")
        self._hosts = (None, *hosts)
        self._place = 0

    @property
    def host(self) -> HostName | None:
        return self._hosts[self._place]

    def action_turn(self, step: int) -> None:
        self._place = (self._place + step) % len(self._hosts)
        self.refresh()
        self.post_message(self.Changed())

    def on_click(self, event: events.Click) -> None:
        self.action_turn(1)

    def render_line(self, y: int) -> Strip:
        ink = ink_of(self.app, "cursor") if self.has_focus else self.ink
        told = sanitize(self.host or _CHOSEN)
        return draw(self.size.width, [Segment(f" ‹ {told} ›", ink.text)], fill=ink.text)


class SpawnForm(ModalScreen[Sequence[Spawn] | None]):
    """Ask for new agents; answers with a command for each, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("escape,ctrl+c", "leave"),
        # Not before the list and the text, which have such keys of their own.
        Binding("ctrl+s,ctrl+enter", "make", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]

    def __init__(
        self,
        supervisor: Supervisor,
        entries: Sequence[Entry],
        find_image: Callable[[str], str],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`find_image` tells why an image cannot be used, or nothing; it blocks."""
        super().__init__()
        self._supervisor = supervisor
        self._entries = entries
        self._find_image = find_image
        self._environ = environ
        self._images: dict[str, str | None] = {}
        self._profiles = ProfileRows(id="profiles", note=literal("there are no profiles"))
        self._pad = Pad("", id="task", ends=("ctrl+s", "ctrl+enter"))
        self._host = HostChoice(supervisor.spawners())
        self._preview = Facts()
        self._is_sure = False

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="-spawn"):
            yield Static(Content("New agents"), id="dialog-title")
            with Container(id="spawn-body"):
                with Vertical(id="spawn-form"):
                    yield self._profiles
                    with Horizontal(classes="row -task"):
                        yield Static(Content("task"), classes="label")
                        yield self._pad
                    yield from self._row("count", self._ask("count", value="1"))
                    yield from self._row("name", self._ask("name", "the next free"))
                    yield from self._row("host", self._host)
                    yield from self._row("labels", self._ask("labels", "team=web urgent"))
                    yield from self._row(
                        "ends in", self._ask("ttl", "profile's; or 30m 2h 3d never")
                    )
                yield self._preview
            with Horizontal(id="dialog-keys"):
                yield Button(Content("ctrl+s  make"), id="yes", compact=True)
                yield Button(Content("esc  leave"), id="no", compact=True)
                yield Static(Content(""), id="dialog-problem")

    def _ask(self, name: str, placeholder: str = "", value: str = "") -> Field:
        is_last = name == "ttl"

        def submit(_: str) -> None:
            if is_last:
                self.action_make()
            else:
                self.focus_next()

        return Field(id=name, placeholder=placeholder, value=value, on_submit=submit)

    def _row(self, label: str, field: Field | HostChoice) -> ComposeResult:
        with Horizontal(classes="row"):
            yield Static(Content(label), classes="label")
            yield field
            yield Static(Content(""), id=f"{field.id}-problem", classes="problem")

    def on_mount(self) -> None:
        self._profiles.show(self._entries)
        self.set_focus(self._profiles)
        self._lay_out()
        self._show()
        self.set_interval(_REFRESH_S, self._show)

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        self.set_class(self.app.size.width >= _WIDE, "-wide")

    # What stands in it

    def _read(self) -> Wish | None:
        """The wish, or None where a field is wrong; each wrong one says why."""
        texts = {field.id: field.value.strip() for field in self.query(Field)}
        digits = texts["count"]
        count = int(digits) if re.fullmatch("[0-9]{1,9}", digits) else 0
        labels, ttl = texts["labels"].split(), texts["ttl"]
        trials = {
            "count": Wish(count=count),
            "name": Wish(count=max(1, min(count, MOST)), name=texts["name"]),
            "labels": Wish(labels=labels),
            "ttl": Wish(ttl=ttl),
        }
        wrong = {name: _check(trial) for name, trial in trials.items()}
        for name, why in wrong.items():
            self.query_one(f"#{name}-problem", Static).update(Content(why))
        entry = self._profiles.current
        if any(wrong.values()) or entry is None or entry.profile is None:
            return None
        task, host = self._pad.text, self._host.host or ""
        return Wish(entry.profile, task, count, texts["name"], host, labels, ttl)

    def _look(self, commands: Sequence[Spawn]) -> Outlook:
        supervisor, profile = self._supervisor, commands[0].profile
        lacking = [origin for _, origin in profile.inherited if not self._environ.get(origin)]
        return Outlook(
            supervisor.foresee(commands[0], len(commands)),
            self._image(profile.image),
            lacking,
            supervisor.stocks.seen,
        )

    def _image(self, name: str) -> str | None:
        if not name:
            return ""
        if name not in self._images:
            self._images[name] = None
            self.run_worker(self._look_for(name), name=f"look for {name}")
        return self._images[name]

    async def _look_for(self, name: str) -> None:
        self._images[name] = await asyncio.to_thread(self._find_image, name)
        self._show()

    @on(TextArea.Changed)
    @on(Input.Changed)
    @on(Rows.Moved)
    @on(HostChoice.Changed)
    def _changed(self) -> None:
        self._is_sure = False
        self.query_one("#dialog-problem", Static).update(Content(""))
        self._show()

    def _show(self) -> None:
        if not self.is_mounted:
            return
        entry = self._profiles.current
        wish = self._read()
        if wish:
            # Without a task, too, it can be seen what would be made.
            commands = replace(wish, task=wish.task.strip() or "…").commands()
            self._preview.show(tell_prospect(commands, self._look(commands)))
        elif entry and entry.error:
            self._preview.show(tell_broken(entry))

    # What is done with it

    @on(Pad.Ended)
    @on(Button.Pressed, "#yes")
    def action_make(self) -> None:
        wish = self._read()
        entry = self._profiles.current
        if wish is None:
            broken = entry and entry.error
            self._refuse(broken.title if broken else "mend what is marked above")
            return
        try:
            commands = wish.commands()
        except UsageError as error:
            self._refuse(error.title)
            return
        obstacle = self._look(commands).obstacle
        if obstacle:
            self._refuse(obstacle)
        else:
            self.dismiss(commands)

    def _refuse(self, why: str) -> None:
        self.query_one("#dialog-problem", Static).update(Content(sanitize(why)))

    @on(Button.Pressed, "#no")
    def action_leave(self) -> None:
        typed = [field.value for field in self.query(Field) if field.id != "count"]
        if not any((self._pad.text.strip(), *typed)) or self._is_sure:
            self.dismiss(None)
            return
        self._is_sure = True
        self._refuse("esc again throws away what you typed")


def _check(trial: Wish) -> Safe:
    """What is wrong with it, in few words; empty: nothing."""
    try:
        trial.commands()
    except UsageError as error:
        return sanitize(error.title.removeprefix("count: ").removeprefix("name: "))
    return EMPTY
