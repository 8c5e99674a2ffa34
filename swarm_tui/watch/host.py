"""One host: a connection that is kept, and the VMs that it tells of.

A hint from a host is never believed: the VM is read again and the answer stored, under a sequence
number taken when the question was asked. A host that cannot be reached is tried again with a
back-off and listed anew; it never delays another one.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from swarm_tui.errors import AgentGone, DeadlineExceeded, HostError, HostUnreachable, SwarmError
from swarm_tui.fact import HostSeen, Listed, Sampled, VmGone, VmSeen
from swarm_tui.model import (
    AgentId,
    Capabilities,
    Counters,
    Hint,
    Host,
    HostName,
    HostState,
)
from swarm_tui.ports import HostFacts, Hypervisor
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.watch.task import FIRST_BACK_OFF_S, LAST_BACK_OFF_S, Apply

MANY_HINTS: Final = 32
"""When so many VMs are to be read again at once, one list costs the host less."""
MERGE_S: Final = 0.1
"""Between two lists that hints ask for: a storm of them must not keep the host busy."""
_SLICE: Final = 250
"""Facts applied before the loop gets a turn, so that ten thousand agents delay no key."""

_AT_ONCE: Final = 1_000
"""Of more, the parts are spread over some time, so that no frame is told of all at once."""
_LIST_REST_S: Final = 0.01

_sequence = itertools.count(1)


class _Hints:
    """The hints that nobody has taken yet: at most one for each VM, however many came."""

    def __init__(self) -> None:
        self.is_closed = False
        self._agents: set[AgentId | None] = set()
        self._came = asyncio.Event()

    def add(self, hint: Hint) -> None:
        self.is_closed = self.is_closed or hint.kind == "closed"
        self._agents.add(hint.agent)
        self._came.set()

    async def take(self) -> set[AgentId | None]:
        """Wait for hints, and take all; None stands for "anything may have changed"."""
        await self._came.wait()
        self._came.clear()
        agents, self._agents = self._agents, set()
        return agents


class HostWatch:
    """Keeps the store true for one host, for as long as `run` runs."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        apply: Apply,
        *,
        poll_s: float,
        relist_s: float,
        before_list: Callable[[], Awaitable[None]],
        missing: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`before_list` is awaited at each connection, before any VM of it is shown.

        `missing`: what cannot be done there, whatever its driver can, with the reasons.
        """
        self._hypervisor = hypervisor
        self._apply = apply
        self._poll_s = poll_s
        self._relist_s = relist_s
        self._before_list = before_list
        self._missing = missing
        self._hints = _Hints()
        self._host = Host(
            name=hypervisor.host,
            uri=sanitize(hypervisor.uri),
            state=HostState.CONNECTING,
            since=time.time(),
            poll_s=poll_s,
        )
        self.capabilities: Capabilities | None = None
        """Known since the first connection."""
        self.settled = asyncio.Event()
        """Set once the first connection has been made or has failed."""
        self.error: SwarmError | None = None
        """Why the host is out of reach; None while it is not."""
        self._up_since: float | None = None
        self._asked = asyncio.Event()
        self._freshening = asyncio.Lock()
        self._is_sampled = False
        """Whether counters were read since it was connected."""

    @property
    def host(self) -> HostName:
        return self._hypervisor.host

    async def run(self) -> None:
        """Connect, watch, and connect again, for ever."""
        back_off_s = FIRST_BACK_OFF_S
        self._show(self._host)
        while True:
            self._up_since = None
            self._asked.clear()
            self._is_sampled = False
            try:
                await self._watch_once()
            except SwarmError as error:
                if self._up_since and time.monotonic() - self._up_since > LAST_BACK_OFF_S:
                    back_off_s = FIRST_BACK_OFF_S
                delay_s = back_off_s * random.uniform(0.8, 1.2)
                self._show_down(error, f"next try in {delay_s:.0f} s", time.time() + delay_s)
                self.settled.set()
            finally:
                await self._hypervisor.close()
            back_off_s = min(LAST_BACK_OFF_S, back_off_s * 2)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._asked.wait()
                back_off_s = FIRST_BACK_OFF_S
            self._show(replace(self._host, next_try=None))

    def try_now(self) -> None:
        """Somebody wants to know: do not wait for the back-off, and begin it anew."""
        self._asked.set()

    async def relist(self) -> None:
        """Read everything of this host again."""
        seq = next(_sequence)
        vms = await self._hypervisor.list()
        rest_s = _LIST_REST_S if len(vms) > _AT_ONCE else 0
        for start in range(0, len(vms), _SLICE):
            for vm in vms[start : start + _SLICE]:
                self._apply(VmSeen(vm, seq))
            await asyncio.sleep(rest_s)
        self._apply(Listed(self._hypervisor.host, tuple(vms), seq))

    async def freshen(self, age_s: float) -> None:
        """Read how much memory is free unless that was read in the last seconds.

        Also, for the first time, what VMs hold of it: else they would count twice.
        """
        if self._host.state is not HostState.UP:
            return
        async with self._freshening:
            with suppress(HostUnreachable):  # `run` finds out, and tells
                if not self._is_sampled:
                    with suppress(HostError, DeadlineExceeded):  # then it stays unknown
                        await self._sample(await self._hypervisor.counters())
                if time.time() - (self._host.seen or 0) > age_s:
                    await self._show_up(self._host.latency_s or 0.0)

    async def reread(self, agent: AgentId) -> None:
        """Read one VM again."""
        seq = next(_sequence)
        try:
            vm = await self._hypervisor.describe(agent)
        except AgentGone:
            self._apply(VmGone(agent, seq, self._hypervisor.host))
        else:
            self._apply(VmSeen(vm, seq))

    def give_up(self, error: BaseException) -> None:
        """Show that `run` ended by an error of our own, so that nobody trusts what it last said."""
        self.error = HostUnreachable(
            f"swarm-tui failed to watch host {self._hypervisor.host}",
            f"{type(error).__name__}: {error}",
            "This is a fault of swarm-tui; start it again.",
        )
        self._show_down(self.error, "no further try", math.inf)
        self.settled.set()

    async def _watch_once(self) -> None:
        hints = self._hints = _Hints()
        able = await self._hypervisor.open(hints.add)
        self.capabilities = replace(able, missing={**able.missing, **self._missing})
        await self._before_list()
        begun = time.monotonic()
        await self.relist()
        await self._show_up(time.monotonic() - begun)
        self._up_since = time.monotonic()
        self.settled.set()
        pump = asyncio.create_task(self._pump(hints))
        poll = asyncio.create_task(self._poll())
        try:
            done, _ = await asyncio.wait((pump, poll), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (pump, poll):
                task.cancel()
            await asyncio.gather(pump, poll, return_exceptions=True)

    async def _pump(self, hints: _Hints) -> None:
        """Merge what hints came together, and read again what they point at."""
        while True:
            agents = await hints.take()
            if hints.is_closed:
                raise HostUnreachable(
                    "The connection to the host was closed", "", "Is libvirtd still running?"
                )
            if None in agents or len(agents) > MANY_HINTS:
                await self.relist()
                await asyncio.sleep(MERGE_S)
                continue
            for agent in agents:
                if agent:
                    await self._try_reread(agent)

    async def _try_reread(self, agent: AgentId) -> None:
        """Read one VM again; one that cannot be read harms only itself, and the next list tells."""
        try:
            await self.reread(agent)
        except HostUnreachable:
            raise
        except (HostError, DeadlineExceeded):
            return

    async def _poll(self) -> None:
        relist_at = time.monotonic() + self._relist_s
        while True:
            begun = time.monotonic()
            try:
                counters = await self._hypervisor.counters()
                latency_s = time.monotonic() - begun
                await self._sample(counters)
            except HostUnreachable:
                raise
            except (HostError, DeadlineExceeded) as error:
                self._show(
                    replace(
                        self._host,
                        detail=error.title,
                        failure=_in_full(error),
                        failed_at=time.time(),
                    )
                )
            else:
                await self._show_up(latency_s)
            if time.monotonic() >= relist_at:
                await self.relist()
                relist_at = time.monotonic() + self._relist_s
            # Armed only when the last reading has ended: a slow host is asked less often.
            await asyncio.sleep(max(self._poll_s / 4, self._poll_s - (time.monotonic() - begun)))

    async def _sample(self, counters: Mapping[AgentId, Counters]) -> None:
        self._is_sampled = True
        items = list(counters.items())
        rest_s = self._poll_s / 2 / (len(items) / _SLICE) if len(items) > _AT_ONCE else 0
        for start in range(0, len(items), _SLICE):
            self._apply(Sampled(self._hypervisor.host, dict(items[start : start + _SLICE])))
            await asyncio.sleep(rest_s)

    async def _show_up(self, latency_s: float) -> None:
        """It answered, and took `latency_s` for it."""
        try:
            facts = await self._hypervisor.facts()
        except HostUnreachable:
            raise
        except (HostError, DeadlineExceeded) as error:
            facts = HostFacts(
                missing=dict.fromkeys(("cpus", "memory_total", "memory_free"), error.title)
            )
        now = time.time()
        self.error = None
        self._show(
            replace(
                self._host,
                state=HostState.UP,
                since=self._host.since if self._host.state is HostState.UP else now,
                seen=now,
                detail=EMPTY,
                reason=EMPTY,
                capabilities=self.capabilities,
                memory_total=facts.memory_total,
                memory_free=facts.memory_free,
                cpus=facts.cpus,
                missing=facts.missing,
                latency_s=latency_s,
                next_try=None,
            )
        )

    def _show_down(self, error: SwarmError, told: str, next_try: float | None) -> None:
        self.error = error
        reason = join((error.title, error.detail))
        was_down = self._host.state is HostState.DOWN
        self._show(
            replace(
                self._host,
                state=HostState.DOWN,
                since=self._host.since if was_down else time.time(),
                detail=join((reason, literal(f"({told})"))),
                reason=reason,
                next_try=next_try,
                failure=_in_full(error),
                failed_at=time.time(),
            )
        )

    def _show(self, host: Host) -> None:
        self._host = host
        self._apply(HostSeen(host))


def _in_full(error: SwarmError) -> Safe:
    return join((error.title, error.detail, error.hint), "\n")
