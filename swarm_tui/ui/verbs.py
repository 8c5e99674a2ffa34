"""Verbs as a person gives them: refused, asked about, done to one agent or to many, told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from textual.app import App

from swarm_tui.batch import Batch, Fate
from swarm_tui.command import Checkpoint, Command, Extend, Fork, Past, Say, Spawn
from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId, SnapshotId, Verb
from swarm_tui.placement import Forecast
from swarm_tui.ports import Progress
from swarm_tui.text import EMPTY, Safe, join, literal
from swarm_tui.ui.action import Action
from swarm_tui.ui.batches import BatchDialog
from swarm_tui.ui.dialogs import Confirm
from swarm_tui.ui.editor import MessageDialog
from swarm_tui.ui.figures import plural
from swarm_tui.ui.forks import ForkDialog, Wanted
from swarm_tui.ui.naming import NameDialog
from swarm_tui.ui.question import ask_before
from swarm_tui.ui.screen import Context, top
from swarm_tui.ui.time import Time, TimeDialog

BATCHES_KEPT: Final = 20


class Verbs:
    """They outlive the screens that they are given on."""

    def __init__(
        self,
        app: App[Any],
        context: Context,
        start: Callable[[Coroutine[Any, Any, object], str], None],
        tell: Callable[[Safe, Safe, bool], None],
    ) -> None:
        """`start` begins a job of the app, by name; `tell` shows a title, a sentence, and whether
        it is a refusal."""
        self._app = app
        self._swarm = context
        self._start = start
        self._tell = tell
        self._unsent: tuple[list[AgentId], str] = ([], "")
        """The last message and whom it was for, when it did not reach all of them."""

    def refuse(self, action: Action, agent: AgentId | None) -> bool:
        """Tell why policy says no; False when it does not."""
        denied = self._swarm.deny(action, agent)
        if denied:
            known = self._swarm.roster.agents.get(agent) if agent else None
            whom = (known.name,) if known else ()
            title = join((literal(f"Cannot {action.verb}"), *whom, literal("now")))
            self._tell(title, denied.reason, True)
        return denied is not None

    def steer(self, action: Action, targets: Sequence[AgentId]) -> None:
        """Do it, after asking where many are meant or something is lost by it."""
        swarm = self._swarm
        assert action.verb
        allowed, refusals = self._sift(action, targets)
        if not allowed:
            self.refuse(action, targets[0] if targets else None)
            return
        make = action.command
        assert make
        agents = [swarm.roster.agents[agent] for agent in allowed]
        hidden = sum(agent not in swarm.roster for agent in targets)
        decision = swarm.supervisor.may(action.verb, allowed[0], is_quick=action.is_quick)
        is_back = action.verb is Verb.RESUME
        doubts = swarm.supervisor.promises.doubts(allowed) if is_back else ()
        question = ask_before(action, agents, refusals, hidden, decision, doubts)
        if question is None:
            self._start(self._carry_out(action, allowed, make), action.id)
            return

        def answered(is_yes: bool | None) -> None:
            if is_yes:
                top(self._app).drop_selection()
                self._start(self._carry_out(action, allowed, make), action.id)

        self._app.push_screen(Confirm(question, swarm.monotonic), answered)

    def make(self, action: Action, commands: Sequence[Spawn]) -> None:
        """Make new agents; several are one batch, a single one tells its steps."""
        batch = Batch("make", new=commands)
        self._start(self._make(batch), action.id)
        if len(commands) > 1:
            told = literal(f"{plural(len(commands), 'agent')}: J tells how far each is")
            self._tell(literal("Being made"), told, False)

    async def _make(self, batch: Batch) -> None:
        if len(batch.items) > 1:
            self._swarm.batches.append(batch)
            await batch.run(self._swarm.supervisor.do)
            self._show_faults(batch)
            self._tell_all(batch)
            return
        [item] = batch.items

        async def do(command: Command, on_progress: Progress | None = None) -> Safe:
            def show(step: Safe, fraction: float | None) -> None:
                if on_progress:
                    on_progress(step, fraction)
                top(self._app).footer.say(join((literal("new agent:"), item.step)))

            return await self._swarm.supervisor.do(command, show)

        await batch.run(do)
        if item.error:
            self._swarm.show_error(item.error)
        else:
            self._tell(literal("New agent"), item.told, False)

    def write_message(self, action: Action, targets: Sequence[AgentId]) -> None:
        allowed, _ = self._sift(action, targets)
        if not allowed:
            self.refuse(action, targets[0] if targets else None)
            return
        agents = [self._swarm.roster.agents[agent] for agent in allowed]

        def answered(text: str | None) -> None:
            if text:
                top(self._app).drop_selection()
                self._start(self._send(action, allowed, text), action.id)

        whom = agents[0].name if len(agents) == 1 else literal(plural(len(agents), "agent"))
        about = agents[0].reason if len(agents) == 1 else join((a.name for a in agents), ", ")
        title = join((literal("Message to"), whom))
        text = self._unsent[1] if self._unsent[0] == allowed else ""
        self._app.push_screen(MessageDialog(title, about, text), answered)

    def give_time(self, action: Action, targets: Sequence[AgentId]) -> None:
        allowed, _ = self._sift(action, targets)
        if not allowed:
            self.refuse(action, targets[0] if targets else None)
            return
        agents = [self._swarm.roster.agents[agent] for agent in allowed]

        def answered(given: Time | None) -> None:
            if given:
                top(self._app).drop_selection()

                def make(agent: AgentId) -> Command:
                    return Extend(agent, given.by_s, is_pinned=given.is_pinned)

                self._start(self._carry_out(action, allowed, make), action.id)

        self._app.push_screen(TimeDialog(agents, self._swarm.now()), answered)

    def checkpoint(self, action: Action, targets: Sequence[AgentId]) -> None:
        """Ask for its name, which may be none, and make it."""
        allowed, _ = self._sift(action, targets)
        if not allowed:
            self.refuse(action, targets[0] if targets else None)
            return
        agents = [self._swarm.roster.agents[agent] for agent in allowed]

        def answered(name: str | None) -> None:
            if name is not None:
                top(self._app).drop_selection()

                def make(agent: AgentId) -> Command:
                    return Checkpoint(agent, name)

                self._start(self._carry_out(action, allowed, make), action.id)

        whom = agents[0].name if len(agents) == 1 else literal(plural(len(agents), "agent"))
        asked = join((literal("Checkpoint of"), whom))
        about = literal("what runs stands still for a moment, and goes on")
        self._app.push_screen(NameDialog(asked, about), answered)

    def fork(
        self,
        action: Action,
        targets: Sequence[AgentId],
        snapshot: SnapshotId | None = None,
        whence: Safe = EMPTY,
    ) -> None:
        """Ask how many, and make them: from where they stand, or from one's `snapshot`.

        `whence`: which snapshot that is, for a person.
        """
        allowed, _ = self._sift(action, targets)
        if not allowed:
            self.refuse(action, targets[0] if targets else None)
            return

        def answered(wanted: Wanted | None) -> None:
            if wanted:
                top(self._app).drop_selection()

                def make(agent: AgentId) -> Command:
                    return Fork(agent, wanted.count, wanted.prefix, wanted.task, snapshot)

                self._start(self._carry_out(action, allowed, make), action.id)

        def foresee(count: int) -> Forecast:
            commands = [Fork(agent, count) for agent in allowed]
            return self._swarm.supervisor.promises.foresee_forks(commands)

        agents = [self._swarm.roster.agents[agent] for agent in allowed]
        self._app.push_screen(ForkDialog(agents, foresee, whence), answered)

    def do(self, action: Action, command: Past, then: Callable[[], None]) -> None:
        """Do what a person has chosen, to the agent that it names; `then` it has ended."""
        agent = command.agent
        if self.refuse(action, agent):
            return

        async def work() -> None:
            await self._carry_out(action, [agent], lambda _: command)
            then()

        self._start(work(), action.id)

    def show_batches(self) -> None:
        """What was done to many: how far it is, who failed and why."""
        if not self._swarm.batches:
            top(self._app).footer.say("no verb on many so far")
            return

        def answered(agents: Sequence[AgentId] | None) -> None:
            if agents:
                top(self._app).take_selection(agents)

        self._app.push_screen(BatchDialog(self._swarm.batches), answered)

    def call_off(self) -> None:
        """Let nothing more begin."""
        for batch in self._swarm.batches:
            batch.call_off()

    def _sift(
        self, action: Action, targets: Sequence[AgentId]
    ) -> tuple[list[AgentId], Sequence[Safe]]:
        """Those that policy allows it for, and why it does not for the others."""
        denied = {agent: self._swarm.deny(action, agent) for agent in targets}
        allowed = [agent for agent in targets if not denied[agent]]
        return allowed, [deny.reason for deny in denied.values() if deny]

    async def _send(self, action: Action, agents: list[AgentId], text: str) -> None:
        is_sent = await self._carry_out(action, agents, lambda agent: Say(agent, text))
        self._unsent = ([], "") if is_sent else (agents, text)

    async def _carry_out(
        self, action: Action, agents: Sequence[AgentId], make: Callable[[AgentId], Command]
    ) -> bool:
        """Do one verb to each agent, and tell of all of them once. True when all of it was done."""
        known = self._swarm.roster.agents
        word = action.id.replace("-", " ")
        batch = Batch(word, [known[agent] for agent in agents if agent in known], make)
        if len(batch.items) > 1:
            self._swarm.batches.append(batch)
        await batch.run(self._swarm.supervisor.do)
        self._show_faults(batch)
        if len(batch.items) == 1:
            [item] = batch.items
            if isinstance(item.error, SwarmError):
                self._swarm.show_error(item.error)
            elif item.fate is Fate.DONE:
                self._tell(join((item.name, literal(f"{action.verb}")), ": "), item.told, False)
        else:
            self._tell_all(batch)
        return batch.counts.get(Fate.DONE) == len(batch.items)

    def _show_faults(self, batch: Batch) -> None:
        """Errors of our own."""
        for item in batch.having(Fate.FAILED):
            if item.error and not isinstance(item.error, SwarmError):
                self._swarm.show_error(item.error)

    def _tell_all(self, batch: Batch) -> None:
        counts = batch.counts
        done = plural(counts.get(Fate.DONE, 0), "agent")
        told = [f"made {done}" if batch.is_new else f"done to {done}"]
        if failed := counts.get(Fate.FAILED):
            told.append(f"{failed} failed: J tells who and why")
        if left := counts.get(Fate.LEFT):
            told.append(f"{left} called off")
        self._tell(literal(batch.word), literal("; ".join(told)), bool(failed))


def make_batches() -> deque[Batch]:
    """Room for the last ones."""
    return deque(maxlen=BATCHES_KEPT)
