"""`demo --check`: the proof that all of it works, on a swarm of its own.

What a person would do with a screen is done without one, with the seconds of each step; one JSON
object tells them.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from swarm_tui.bootstrap import ensure_local, make_guest, make_supervisor, open_local
from swarm_tui.command import Approve, Pause, Resume, Review, SendBack
from swarm_tui.config import Loaded
from swarm_tui.demo import CONNECT_S, remove_records, say, spawn_missing, tell
from swarm_tui.errors import SwarmError
from swarm_tui.handoff import Comment, Verdict
from swarm_tui.handoff import Review as Taken
from swarm_tui.model import Address, Agent, AgentId, State
from swarm_tui.ports import Guest, Progress
from swarm_tui.report import write_json
from swarm_tui.review.landing import branch_name
from swarm_tui.review.proof import prove
from swarm_tui.review.signers import NAMESPACE
from swarm_tui.store import Store
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe

STATE_S: Final = 15.0
ANSWER_S: Final = 20.0
ASK_S: Final = 180.0
"""How long the example agent may work before it asks."""


async def check(loaded: Loaded, *, is_review: bool) -> int:
    """Up, reached, paused to a snapshot, resumed with the counter going on, down.

    `is_review`: instead of the pause, the whole hand-off: asked, reviewed, sent back, changed,
    approved, landed, verified.
    """
    own = apart(loaded)
    clock = _Clock()
    problem: SwarmError | None = None
    facts: dict[str, object] = {}
    try:
        await _check_all(own, clock, facts, is_review=is_review)
    except SwarmError as error:
        problem = error
    finally:
        with clock.step("down"):
            async with open_local(own) as spawner:
                for agent in await spawner.down():
                    remove_records(own, agent)
    result: dict[str, object] = {"ok": problem is None, **facts, "seconds": clock.seconds}
    if problem:
        result["error"] = {
            "step": clock.failed,
            "title": problem.title,
            "detail": problem.detail,
            "hint": problem.hint,
        }
    write_json(result)
    return problem.exit_code if problem else 0


async def _check_all(
    loaded: Loaded, clock: _Clock, facts: dict[str, object], *, is_review: bool
) -> None:
    with clock.step("daemon"):
        facts["uri"] = await asyncio.to_thread(ensure_local, loaded, say)
    supervisor = make_supervisor(loaded)
    guest = make_guest()
    try:
        async with supervisor:
            await supervisor.connected(CONNECT_S)
            async with open_local(loaded) as spawner:
                with clock.step("what all agents need"):
                    facts.update((await spawner.prepare(tell)).traits)
            facts["vmm"] = _vmm(supervisor.store)
            with clock.step("agents up"):
                agents = await spawn_missing(supervisor, loaded)
            facts["agents"] = len(agents)
            with clock.step("agents reached"):
                await asyncio.gather(*(_counter(guest, agent) for agent in agents))
            if is_review:
                await _check_review(supervisor, guest, agents[0], clock, facts)
            else:
                await _check_pause(supervisor, guest, agents[0], clock, facts)
    finally:
        await guest.close()


async def _check_pause(
    supervisor: Supervisor, guest: Guest, agent: Agent, clock: _Clock, facts: dict[str, object]
) -> None:
    before = await _counter(guest, agent)
    with clock.step("pause to a snapshot"):
        facts["pause"] = await supervisor.do(Pause(agent.id))
    await _until(supervisor.store, agent.id, State.SAVED)
    await guest.forget(_address(agent))
    await asyncio.sleep(2)  # time that the counter must not count
    with clock.step("resume"):
        facts["resume"] = await supervisor.do(Resume(agent.id))
    after = await _counter(guest, agent)
    with clock.step("counter goes on"):
        later = await _count_past(guest, agent, after)
    facts["counter"] = {"before": before, "after": after, "later": later}
    if after < before:
        raise SwarmError(
            "The counter in the guest did not go on",
            f"It stood at {before} before the pause and at {after} after it.",
        )


async def _check_review(
    supervisor: Supervisor, guest: Guest, agent: Agent, clock: _Clock, facts: dict[str, object]
) -> None:
    before = await _counter(guest, agent)
    await guest.run(_address(agent), "echo 0 >/run/swarm/pace", timeout_s=ANSWER_S)
    with clock.step("the agent asks"):
        await _until(supervisor.store, agent.id, State.ASKING, ASK_S)
    first = await _review(supervisor, agent, clock, facts, "first")
    async with await supervisor.reading(agent.id) as reading:
        change = first.changes[0]
        note = Comment("check", "Please list it in the README.", change.path, "new", 1, 1)
        reading.comment(note)
    with clock.step("send back"):
        told = SendBack(agent.id, first.number, first.digest)
        facts["sent back"] = await supervisor.do(told, clock.lap("send back"))
    with clock.step("the agent reads the comment, changes the code and asks"):
        await _heard(supervisor.store, agent.id, note.text)
        await _until(supervisor.store, agent.id, State.ASKING, ASK_S)
    second = await _review(supervisor, agent, clock, facts, "second")
    async with await supervisor.reading(agent.id) as reading:
        with clock.step("what changed since"):
            since = await reading.since()
        facts["changed since"] = [change.name for change in since]
        for change in second.changes:
            reading.mark(change.key, is_viewed=True)
        reading.mark(second.about, is_viewed=True)
    with clock.step("approve"):
        yes = Approve(agent.id, second.number, second.digest, "Thank you.")
        facts["approved"] = await supervisor.do(yes, clock.lap("approve"))
    with clock.step("verify"):
        await _check_landed(supervisor, agent, second, facts)
    with clock.step("counter goes on"):
        after = await _counter(guest, agent)
        later = await _count_past(guest, agent, after)
    facts["counter"] = {"before": before, "after": after, "later": later}
    if not before < after < later:
        raise SwarmError("The counter in the guest did not go on", f"{before}, {after}, {later}")


async def _review(
    supervisor: Supervisor, agent: Agent, clock: _Clock, facts: dict[str, object], name: str
) -> Taken:
    with clock.step(f"{name} review"):
        facts[f"{name} review"] = await supervisor.do(Review(agent.id), clock.lap(f"{name} review"))
    await _until(supervisor.store, agent.id, State.SAVED)
    async with await supervisor.reading(agent.id) as reading:
        if not reading.review.changes:
            raise SwarmError(f"The {name} review shows no change")
        return reading.review


async def _check_landed(
    supervisor: Supervisor, agent: Agent, taken: Taken, facts: dict[str, object]
) -> None:
    """The branch is in the owner's repository, and its signature holds for two programs."""
    terms, repository = supervisor.terms, supervisor.repository(agent.id)
    branch = branch_name(agent.name, taken.number)
    if repository is None or terms.signer is None:
        raise SwarmError("The swarm has no repository, or no key to sign with")
    proof = await prove(repository, branch, terms.signer, terms.allowed_signers)
    if proof.verdict.head != taken.head:
        raise SwarmError("Another commit landed than was reviewed", proof.verdict.head)
    facts["verified"] = {"branch": branch, "head": proof.verdict.head, "key": proof.fingerprint}
    facts["ssh-keygen"] = await asyncio.to_thread(
        _ssh_keygen_verifies, proof.verdict, terms.allowed_signers
    )


def _ssh_keygen_verifies(verdict: Verdict, allowed_signers: Path) -> str:
    """What OpenSSH's own program says of the signature. Raises SwarmError."""
    with tempfile.NamedTemporaryFile("w") as signature:
        signature.write(verdict.signature)
        signature.flush()
        command = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", verdict.reviewer]
        command += ["-f", str(allowed_signers), "-s", signature.name]
        done = subprocess.run(command, input=verdict.payload, capture_output=True, check=False)
    told = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
    if done.returncode:
        raise SwarmError("ssh-keygen does not accept the signature", told)
    return told


class _Clock:
    """Seconds of each step, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed = ""
        """The step in which an error came."""

    def lap(self, verb: str) -> Progress:
        """Seconds of the steps within a verb, as it tells them."""
        began = time.monotonic()
        last = ""

        def progress(step: Safe, fraction: float | None) -> None:
            nonlocal began, last
            if step == last:
                return
            now = time.monotonic()
            if last:
                self.seconds[f"{verb}: {last}"] = round(now - began, 3)
            began, last = now, step
            tell(step, fraction)

        return progress

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        say(name)
        begun = time.monotonic()
        try:
            yield
        except SwarmError:
            self.failed = name
            raise
        finally:
            self.seconds[name] = round(time.monotonic() - begun, 3)


def apart(loaded: Loaded) -> Loaded:
    """The same configuration in folders of its own, so that no other swarm is touched."""
    paths = replace(
        loaded.paths,
        data=loaded.paths.data / "check",
        state=loaded.paths.state / "check",
        config=loaded.paths.state / "check",
    )
    config = replace(
        loaded.config,
        hosts={},
        # A key of its own, too: this proof says nothing in anybody's name.
        review=replace(
            loaded.config.review,
            repository=None,
            reviewer="rehearsal",
            key=paths.reviewer_key,
            allowed_signers=paths.allowed_signers,
        ),
        snapshots=replace(loaded.config.snapshots, folder=paths.snapshots),
    )
    return replace(loaded, paths=paths, config=config)


async def _counter(guest: Guest, agent: Agent) -> int:
    """The counter that a process of the agent's counts up in the guest."""
    done = await guest.run(_address(agent), "cat /run/swarm/counter", timeout_s=ANSWER_S)
    try:
        return int(done.stdout)
    except ValueError as error:
        raise SwarmError(f"{agent.name} has no counter", repr(done.stdout[:80])) from error


async def _count_past(guest: Guest, agent: Agent, value: int) -> int:
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        later = await _counter(guest, agent)
        if later > value:
            return later
        await asyncio.sleep(0.1)
    raise SwarmError(f"{agent.name} does not go on", f"Its counter stands at {value}.")


async def _heard(store: Store, agent: AgentId, words: str) -> None:
    """Wait until the agent's log holds these words."""
    deadline = time.monotonic() + ASK_S
    while not any(words in event.text for event in store.log(agent).events):
        if time.monotonic() > deadline:
            raise SwarmError("The agent did not read what it was told", words)
        await asyncio.sleep(0.1)


async def _until(store: Store, agent: AgentId, state: State, timeout_s: float = STATE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        now = store.agent(agent)
        if now and now.state is state:
            return
        await asyncio.sleep(0.05)
    shown = now.state if now else "gone"
    raise SwarmError(f"The agent is {shown}, not {state}", f"After {timeout_s:.0f} s.")


def _vmm(store: Store) -> str:
    """What runs the VMs, as libvirt tells it."""
    known = [host.capabilities for host in store.hosts() if host.capabilities]
    return ", ".join(f"{capabilities.driver} {capabilities.version}" for capabilities in known)


def _address(agent: Agent) -> Address:
    if agent.tag.address is None:
        raise SwarmError(f"{agent.name} has no SSH address")
    return agent.tag.address
