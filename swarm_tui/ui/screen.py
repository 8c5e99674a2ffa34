"""The base of the two screens: keys of the one table, dispatched in one place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from textual.app import App
from textual.screen import Screen

from swarm_tui.attention import Attention, Need
from swarm_tui.batch import Batch
from swarm_tui.model import AgentId
from swarm_tui.policy import Deny
from swarm_tui.store import Store
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe
from swarm_tui.ui.action import Action, Place
from swarm_tui.ui.actions import BY_ID, at
from swarm_tui.ui.bar import Footer
from swarm_tui.ui.roster import Roster

_ASKED_AT_MOST = 50
"""Of a large selection, so many are asked about for greying a key; all are when it is pressed."""


_REFUSED_S = 8.0


@dataclass(frozen=True, slots=True)
class Context:
    """What the screens share."""

    supervisor: Supervisor
    roster: Roster
    now: Callable[[], float]
    """Wall clock, Unix seconds; what is shown."""
    monotonic: Callable[[], float]
    banner: Safe
    act: Callable[[Action, list[AgentId], AgentId | None], None]
    """Does what is not of one screen alone, to some agents or to the one under the cursor."""
    show_error: Callable[[BaseException], None]
    batches: deque[Batch]
    """Verbs on many, the last ones; the newest at the end."""
    attention: Attention
    answer: Callable[[Need], None]
    """Goes to what waits."""
    person: str = ""
    """Login name of whoever sits here; empty: not known."""

    @property
    def store(self) -> Store:
        return self.supervisor.store

    def deny(self, action: Action, agent: AgentId | None) -> Deny | None:
        """Why policy refuses a verb now; None when it does not."""
        if action.verb is None:
            return None
        decision = self.supervisor.may(action.verb, agent, is_quick=action.is_quick)
        return decision if isinstance(decision, Deny) else None


class SwarmScreen(Screen[None]):
    """A screen with a footer. An action is done by its method `do_<id>`, else by the app."""

    PLACE: ClassVar[Place]
    KEPT: ClassVar[Collection[str]] = ("help", "quit")
    """Actions that the footer shows however narrow it is."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.footer = Footer(at(self.PLACE), kept=self.KEPT, id="footer")

    def aims(self) -> Collection[AgentId]:
        """The agents that a verb would be done to, in no order."""
        raise NotImplementedError

    def shown(self) -> Collection[AgentId]:
        """The agents that a person sees now, and whose guests are therefore heard first."""
        return self.aims()

    def current(self) -> AgentId | None:
        """The agent under the cursor, or the one that is shown."""
        raise NotImplementedError

    def is_steady(self) -> bool:
        """False for a moment after another agent came under the cursor by itself."""
        return True

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        """News, ten times a second; `rearranged`: the roster has another arrangement."""
        raise NotImplementedError

    def catch_up(self) -> None:
        """Back on top: show all anew."""
        raise NotImplementedError

    def on_screen_resume(self) -> None:
        self.catch_up()

    def drop_selection(self) -> None:
        """A verb has been started on all that were selected."""

    def take_selection(self, agents: Collection[AgentId]) -> None:
        """Select these instead, where there is anything to select."""

    def action_act(self, action_id: str, _key: str = "") -> None:
        action = BY_ID[action_id]
        if action.acts_on_agent and not self.is_steady():
            self.footer.say("the list moved: press again")
            return
        own = getattr(self, f"do_{action_id.replace('-', '_')}", None)
        if own:
            own()
        else:
            # Not by a message: a dialog must be there before the next key is looked at.
            self.context.act(action, self.context.roster.in_order(self.aims()), self.current())

    def refuse(self, title: Safe, reason: Safe) -> None:
        """Say why something is not done."""
        self.app.notify(reason, title=title, severity="warning", timeout=_REFUSED_S, markup=False)

    def on_footer_pressed(self, message: Footer.Pressed) -> None:
        self.action_act(message.action)

    def show_keys(self, keys: dict[str, str], denied: Collection[str] = ()) -> None:
        """Grey these, and what policy denies for all that a verb would be done to."""
        targets: list[AgentId | None] = [*islice(self.aims(), _ASKED_AT_MOST)] or [None]
        refused = frozenset(
            action.id
            for action in at(self.PLACE)
            if action.label
            and action.verb
            and all(self.context.deny(action, target) for target in targets)
        )
        self.footer.show(refused.union(denied), keys)


class OneAgentScreen(SwarmScreen):
    """A screen of one agent, which may be gone."""

    def __init__(self, context: Context, agent: AgentId) -> None:
        super().__init__(context)
        self.agent_id = agent

    def aims(self) -> Collection[AgentId]:
        return [agent] if (agent := self.current()) else []

    def current(self) -> AgentId | None:
        return self.agent_id if self.context.store.agent(self.agent_id) else None


def top(app: App[Any]) -> SwarmScreen:
    """The uppermost of our screens, below any dialog."""
    return next(screen for screen in reversed(app.screen_stack) if isinstance(screen, SwarmScreen))
