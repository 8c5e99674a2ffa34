"""The app: shows the store on screens, and does through the supervisor what a person wants."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from textual.binding import BindingType
from textual.command import SimpleCommand
from textual.filter import LineFilter
from textual.markup import escape

from swarm_tui import profiles, views
from swarm_tui.attention import Attention, Kind, Need
from swarm_tui.batch import Batch, Fate
from swarm_tui.command import Spawn
from swarm_tui.errors import ConfigError, SwarmError
from swarm_tui.filter import quote
from swarm_tui.model import AgentId
from swarm_tui.paths import locate
from swarm_tui.profiles import Entry
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe, join, literal, sanitize
from swarm_tui.ui.action import Action
from swarm_tui.ui.actions import BY_ID, at
from swarm_tui.ui.acts import AuditScreen
from swarm_tui.ui.agent import AgentScreen
from swarm_tui.ui.comparison import Comparisons
from swarm_tui.ui.dialogs import Confirm, fault_dialog, help_dialog, read_dialog
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.glyphs import PlainFilter
from swarm_tui.ui.grid import View
from swarm_tui.ui.herald import KEEP_TITLE, RESTORE_TITLE, Herald
from swarm_tui.ui.hook import Hook
from swarm_tui.ui.hosts import HostsScreen
from swarm_tui.ui.ink import ink_of
from swarm_tui.ui.keys import key_names, quiet
from swarm_tui.ui.logs import LogScreen
from swarm_tui.ui.mend import guard_continue, leave_signals, let_widgets_go
from swarm_tui.ui.notice import USUAL, How, Notices
from swarm_tui.ui.question import ask_to_leave
from swarm_tui.ui.results import ResultsScreen
from swarm_tui.ui.reviews import Reviews
from swarm_tui.ui.roster import Roster
from swarm_tui.ui.screen import Context, SwarmScreen, top
from swarm_tui.ui.shell import is_in_tmux, open_window, take_terminal
from swarm_tui.ui.spawning import SpawnForm
from swarm_tui.ui.theme import DEFAULT, builtin_folder, load_themes
from swarm_tui.ui.timeline import TimelineScreen
from swarm_tui.ui.typing import InOrder
from swarm_tui.ui.verbs import Verbs, make_batches
from swarm_tui.ui.waiting import WaitingScreen

TICK_S: Final = 0.1
_SETTLED_S: Final = 3.0
"""After the start; by then most of what stays has been made."""
_TOAST_S: Final = 4.0
_ERROR_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the configuration the screen needs."""

    theme: str = DEFAULT
    view: View = View.TILES
    themes: tuple[Path, ...] = ()
    """Folders with the user's own themes; the shipped ones are always there."""
    banner: str = ""
    """Stands in the first line, for what must not be overlooked: "simulated swarm"."""
    notify: How = "desktop"
    """How a person is called when agents begin to wait."""
    notify_about: Collection[str] = USUAL
    """Of what: asks, failures, done."""
    notify_command: Sequence[str] = ()
    """What is run then; empty: nothing."""
    person: str = ""
    """Login name of whoever sits here, whose agents are "mine"; empty: not known."""
    views_file: Path = field(default_factory=lambda: locate().views)
    """The person's own views of the fleet."""
    start: views.View = views.BUILT_IN[0]
    """The view to begin with."""
    profiles: Callable[[], Sequence[Entry]] = lambda: profiles.load(locate().profiles).entries
    """Reads what new agents may be made of. Blocks."""
    find_image: Callable[[str], str] = lambda name: ""
    """Why an image cannot be used; empty: it can. Blocks."""
    is_plain: bool = False
    """Draw in ASCII, for terminals without UTF-8; see `glyphs.needs_plain`."""


class SwarmApp(InOrder, inherit_bindings=False):
    """Shows a supervisor that the caller starts before and closes after."""

    CSS_PATH = Path(__file__).with_name("swarm.tcss")
    TITLE = "swarm-tui"
    ENABLE_COMMAND_PALETTE = False  # the palette is made from the table of actions instead
    BINDINGS: ClassVar[list[BindingType]] = [quiet("ctrl+q", "act('quit')")]

    def __init__(
        self,
        supervisor: Supervisor,
        settings: Settings,
        shell_argv: Callable[[AgentId], list[str]],
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` and `monotonic` are given by tests, to make pictures that stay the same."""
        let_widgets_go()
        self._themes = load_themes((builtin_folder(), *settings.themes))
        super().__init__()
        self._supervisor = supervisor
        self._settings = settings
        self._shell_argv = shell_argv
        self._plain = [PlainFilter()] if settings.is_plain else []
        self._roster = Roster(supervisor.store)
        self._swarm = Context(
            supervisor,
            self._roster,
            now,
            monotonic,
            sanitize(settings.banner, max_cells=40),
            self.act,
            self._show_error,
            make_batches(),
            Attention(),
            self._answer,
            settings.person,
        )
        self._jobs: set[asyncio.Task[object]] = set()
        self._reviews = Reviews(self, self._swarm, self._start, self._tell)
        self._comparisons = Comparisons(self, self._swarm, self._start, self._tell)
        self._verbs = Verbs(self, self._swarm, self._start, self._tell)
        self._last_error: BaseException | None = None
        self._is_away = False
        """The terminal is somebody else's now."""
        notices = Notices(
            settings.notify, os.environ, now(), settings.notify_about, self._sees_queue
        )
        hook = Hook(
            settings.notify_command, lambda job: self._start(job, "notify"), self._show_error
        )
        self._herald = Herald(supervisor, self._roster, self._swarm.attention, notices, hook, now())
        self._tells_focus = False
        """The terminal has told that it came to the front or went, so that it is known."""
        for palette in self._themes.palettes.values():
            self.register_theme(palette.to_textual())

    # Look

    def get_theme_variable_defaults(self) -> dict[str, str]:
        fallback = self._themes.palettes.get(DEFAULT)
        return fallback.variables() if fallback else {}

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), *self._plain]

    def on_mount(self) -> None:
        self._choose_theme(self._settings.theme)
        if self._driver and not self.is_headless:
            guard_continue(self._driver)
        self._write_terminal(KEEP_TITLE)
        self.push_screen(
            FleetScreen(
                self._swarm, self._settings.view, self._settings.views_file, self._settings.start
            )
        )
        for problem in self._themes.problems:
            self._show_error(problem)
        self.set_interval(TICK_S, self._tick)

    def on_ready(self) -> None:
        if not self.is_headless:
            self.set_timer(_SETTLED_S, self._settle_memory)

    def _settle_memory(self) -> None:
        # All that was made so far stays: looking through it again and again for garbage is what
        # makes a frame late, and so is looking often through what has lived for a while: the
        # records of a large fleet (measured at 10,000 agents: 60 ms each time).
        gc.collect()
        gc.freeze()
        gc.set_threshold(5_000, 100, 50)
        gc.enable()

    def _choose_theme(self, name: str) -> None:
        if name in self._themes.palettes:
            self.theme = name
            return
        self.theme = DEFAULT
        known = ", ".join(sorted(self._themes.palettes))
        self._show_error(
            ConfigError(f"There is no theme “{name}”", f"Known are {known}.", "Set ui.theme.")
        )

    def _write_terminal(self, sequence: str) -> None:
        # Textual has no public way to set a terminal's title.
        if self._driver and not self.is_headless and not self._is_away:
            self._driver.write(sequence)

    def on_app_focus(self) -> None:
        self._tells_focus = True

    def on_app_blur(self) -> None:
        self._tells_focus = True

    def _sees_queue(self) -> bool:
        is_in_front = self._tells_focus and self.app_focus
        return is_in_front and isinstance(self.screen, WaitingScreen)

    def leave_terminal(self) -> None:
        """Once it has ended, however it ended: the terminal gets the title that it had."""
        leave_signals()
        terminal = sys.__stderr__  # where Textual writes
        if terminal and terminal.isatty():
            terminal.write(RESTORE_TITLE)
            terminal.flush()

    # News

    def _tick(self) -> None:
        if not any(isinstance(screen, SwarmScreen) for screen in self.screen_stack):
            return  # the app is closing: its screens go before its timers
        store = self._supervisor.store
        now, monotonic = self._swarm.now(), self._swarm.monotonic()
        for fault in self._supervisor.take_faults():
            self._show_error(fault)
            self._swarm.attention.hear_fault(fault, now)
        dirty = store.take_dirty()
        hosts_changed = store.take_hosts_changed()
        rearranged = self._roster.absorb(dirty, monotonic)
        self._herald.hear(store.news, now, monotonic, hosts_changed=hosts_changed)
        screen = top(self)
        screen.tick(dirty, hosts_changed=hosts_changed, rearranged=rearranged)
        self._supervisor.show(screen.shown())
        if not self._is_away and (told := self._herald.tell(monotonic)):
            self._write_terminal(told)

    def _show_error(self, error: BaseException) -> None:
        """A failure as a toast, its whole story for `e`; a fault of our own as a dialog."""
        self._last_error = error
        if not self.is_running:
            return
        if not isinstance(error, SwarmError):
            self.push_screen(fault_dialog(error))
            return
        message = join((error.detail, error.hint), "\n") or literal("e tells more")
        self.notify(message, title=error.title, severity="error", timeout=_ERROR_S, markup=False)

    def _tell(self, title: Safe, message: Safe, is_refusal: bool = False) -> None:
        severity: Literal["warning", "information"] = "warning" if is_refusal else "information"
        self.notify(message, title=title, severity=severity, timeout=_TOAST_S, markup=False)

    # Jobs: they belong to the app, so that no closing of a screen cuts them off

    def _start(self, work: Coroutine[Any, Any, object], name: str) -> None:
        job = asyncio.create_task(work, name=name)
        self._jobs.add(job)
        job.add_done_callback(self._settle)

    def _settle(self, job: asyncio.Task[object]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()):
            self._show_error(error)

    # What a person wants

    def action_act(self, action_id: str) -> None:
        top(self).action_act(action_id)

    def act(self, action: Action, targets: list[AgentId], current: AgentId | None) -> None:
        """Do what is not of one screen alone: to `targets`, or to the `current` agent."""
        match action.id:
            case "palette":
                self._open_palette()
            case "theme":
                self._open_themes()
            case "help":
                self._open_help()
            case "error" if self._last_error:
                self.push_screen(fault_dialog(self._last_error))
            case "error":
                top(self).footer.say("no error so far")
            case "refresh":
                self._start(self._supervisor.refresh(), "refresh")
            case "quit":
                self._quit()
            case "logs" if len(targets) > 1:
                self.push_screen(LogScreen(self._swarm, targets))
            case "open" | "logs" if current:
                log_alone = action.id == "logs"
                self.push_screen(AgentScreen(self._swarm, current, log_alone=log_alone))
            case "timeline" if current:
                self.push_screen(TimelineScreen(self._swarm, current, self._verbs))
            case "results":
                self.push_screen(ResultsScreen(self._swarm))
            case "compare":
                self._comparisons.open(*targets)
            case "hosts":
                self.push_screen(HostsScreen(self._swarm))
            case "waiting":
                self.push_screen(WaitingScreen(self._swarm))
            case "audit":
                is_one = isinstance(top(self), AgentScreen)
                self.push_screen(AuditScreen(self._swarm, current if is_one else None))
            case "shell":
                self._open_shell(action, current)
            case "spawn":
                self._spawn(action)
            case "review" if current and not self._verbs.refuse(action, current):
                self._reviews.open(current)
            case "extend":
                self._verbs.give_time(action, targets)
            case "checkpoint":
                self._verbs.checkpoint(action, targets)
            case "fork":
                self._verbs.fork(action, targets)
            case "message":
                self._verbs.write_message(action, targets)
            case "batches":
                self._verbs.show_batches()
            case _ if action.verb:
                self._verbs.steer(action, targets)

    def _spawn(self, action: Action) -> None:
        if self._verbs.refuse(action, None) or not self._supervisor.spawners():
            return
        try:
            entries = self._settings.profiles()
        except ConfigError as error:
            self._show_error(error)
            return

        def answered(commands: Sequence[Spawn] | None) -> None:
            if commands:
                self._verbs.make(action, commands)

        form = SpawnForm(self._supervisor, entries, self._settings.find_image)
        self.push_screen(form, answered)

    def _answer(self, need: Need) -> None:
        """Go to what waits."""
        match need.kind:
            case Kind.HOST if need.host:
                chosen = quote("host", need.host)
                self._roster.choose(self._swarm.monotonic(), filter=chosen)
                while not isinstance(top(self), FleetScreen):
                    self.pop_screen()
            case Kind.REVIEW if need.agent:
                self.act(BY_ID["review"], [need.agent], need.agent)
            case _ if need.agent:
                self.push_screen(AgentScreen(self._swarm, need.agent))
            case _:
                self.push_screen(read_dialog(need.kind, need.reason))

    # Shell

    def _open_shell(self, action: Action, agent: AgentId | None) -> None:
        if agent and not self._verbs.refuse(action, agent):
            name = self._roster.agents[agent].name
            self._start(self._attach_shell(self._shell_argv(agent), name), action.id)

    async def _attach_shell(self, argv: list[str], name: Safe) -> None:
        if is_in_tmux(os.environ):
            await open_window(argv, name, os.environ)
            return
        self._is_away = True
        try:
            await take_terminal(self, argv)
        finally:
            self._is_away = False

    # Dialogs

    def _open_palette(self) -> None:
        screen = top(self)
        commands = []
        for action in at(screen.PLACE):
            if action.is_bound and action.id != "palette":
                denied = self._swarm.deny(action, screen.current())
                told = f"{key_names(action)} · {action.help}"
                told += f" · not now: {denied.reason}" if denied else ""
                run = partial(screen.action_act, action.id)
                commands.append(SimpleCommand(action.id, run, escape(told)))
        self.search_commands(commands, "What to do …")

    def _open_themes(self) -> None:
        commands = [
            SimpleCommand(name, partial(self._choose_theme, name))
            for name in sorted(self._themes.palettes)
        ]
        self.search_commands(commands, "Theme …")

    def _open_help(self) -> None:
        screen = top(self)

        def say_why(action: Action) -> str:
            denied = self._swarm.deny(action, screen.current())
            return denied.reason if denied else ""

        self.push_screen(help_dialog(screen.PLACE, ink_of(self, "panel"), say_why))

    def _quit(self) -> None:
        at_work = [agent for agent in self._roster.agents.values() if agent.operation]
        if not at_work and not self._jobs:
            self._leave(True)
            return
        question = ask_to_leave(at_work, sum(map(_unbegun, self._swarm.batches)))
        self.push_screen(Confirm(question, self._swarm.monotonic), self._leave)

    def _leave(self, is_yes: bool | None) -> None:
        if is_yes:
            self._verbs.call_off()
            self.exit()


def _unbegun(batch: Batch) -> int:
    return len(batch.having(Fate.WAITING))
