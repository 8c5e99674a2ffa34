"""`logs`: what agents said, from disk and straight from the guests, beside any supervisor.

The guests are asked for what they wrote since it was last spooled, and nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from swarm_tui import filter, spool
from swarm_tui.amount import render_age
from swarm_tui.bootstrap import make_guest, open_logs
from swarm_tui.config import Loaded
from swarm_tui.errors import GuestError, NotFound, SwarmError, UsageError
from swarm_tui.glance import Glance
from swarm_tui.journal import (
    Said,
    Stamps,
    Timeline,
    export,
    merge,
    render_stamp,
    said_object,
    said_text,
    spooled,
)
from swarm_tui.model import Address, Agent, AgentId, EventBatch, EventKind, Power
from swarm_tui.pattern import Pattern, compile_pattern
from swarm_tui.ports import Guest
from swarm_tui.report import write_error, write_json
from swarm_tui.store import sort_key
from swarm_tui.text import Safe, sanitize

CATCH_UP_S: Final = 3.0
"""How long `logs` waits for what a guest wrote since it was last read."""
_SILENT_S: Final = 0.3
"""A guest that says nothing for so long has said all that it had to."""
_AT_ONCE: Final = 20
"""Guests that are asked at the same time."""
_GATHER_S: Final = 0.2
"""What several agents say within this time is put into order."""
_NAME_CELLS: Final = 24
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are wanted, and how."""

    lines: int
    """At most so many of the past, the newest."""
    is_following: bool = False
    grep: str = ""
    since_s: float | None = None
    """Only what was said within so many seconds."""
    is_asks: bool = False
    stamps: Stamps = Stamps.CLOCK
    is_json: bool = False
    export: Path | None = None


def parse_span(text: str) -> float:
    """ "90s", "10m", "2h" or "3d" in seconds. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if not found:
        raise UsageError("--since needs a time such as 90s, 10m, 2h or 3d", repr(text))
    return float(found[1]) * _UNITS_S[found[2] or "s"]


def choose(seen: Glance, names: Sequence[str], text: str | None) -> Sequence[Agent]:
    """The agents of these names and those that a filter lets through. Raises NotFound, UsageError.

    Hosts that could not be read are told: agents there are not among those of a filter.
    """
    chosen = {agent.id: agent for agent in map(seen.find, names)}
    if text is not None:
        matches = filter.parse(text).matches
        for agent in sorted(seen.store.agents(), key=sort_key):
            if matches(agent):
                chosen.setdefault(agent.id, agent)
        for error in seen.errors:
            write_error(error, is_json=False)
    if not chosen:
        raise NotFound("No agent matches the filter", text or "", "`swarm-tui ls` shows all.")
    return list(chosen.values())


async def listen(
    loaded: Loaded, connect: str | None, agents: Sequence[Agent], wanted: Wanted
) -> int:
    """Print the logs as one, the past first, then, if asked, what comes."""
    reader = _Reader(loaded, agents, wanted)
    guest = make_guest(loaded, connect)
    try:
        offsets = await reader.catch_up(guest)
        if wanted.export:
            count = await asyncio.to_thread(export, wanted.export, reader.past(), reader.names)
            reader.tell_removed()
            print(f"{count:,} lines in {sanitize(str(wanted.export.absolute()))}", file=sys.stderr)
            return 0
        reader.print_past()
        if wanted.is_following:
            await reader.follow(guest, offsets)
    finally:
        await guest.close()
    return 0


class _Reader:
    def __init__(self, loaded: Loaded, agents: Sequence[Agent], wanted: Wanted) -> None:
        self._wanted = wanted
        self._pattern: Pattern | None = compile_pattern(wanted.grep) if wanted.grep else None
        self._logs = open_logs(loaded)
        self._agents = agents
        self._since = time.time() - wanted.since_s if wanted.since_s is not None else 0.0
        self._fresh: dict[AgentId, list[Said]] = {}
        self._timelines = {agent.id: Timeline(agent.id) for agent in agents}
        self.names: dict[AgentId, Safe] = {agent.id: agent.name for agent in agents}
        self._width = min(_NAME_CELLS, max(len(agent.name) for agent in agents))

    # What was said

    async def catch_up(self, guest: Guest) -> dict[AgentId, int]:
        """Ask the guests for what is not on disk; returns the bytes at which they go on."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(agent: Agent) -> tuple[AgentId, int]:
            async with gate:
                return agent.id, await self._ask(guest, agent)

        return dict(await asyncio.gather(*map(ask, self._agents)))

    async def _ask(self, guest: Guest, agent: Agent) -> int:
        folder = self._logs.folder(agent.id)
        batch, written = await asyncio.to_thread(spool.read, folder, 64 << 10)
        offset = batch.offset
        address = agent.tag.address
        if address is None or agent.vm is None or agent.vm.power is not Power.RUNNING:
            return offset
        fresh: list[Said] = []
        stream = guest.events(address, offset)
        wait_s = CATCH_UP_S
        try:
            while True:
                async with asyncio.timeout(wait_s):
                    heard = await anext(stream)
                fresh += self._place(agent.id, heard)
                offset = heard.offset
                if heard.events:  # the first batch may only tell that the guest answers
                    wait_s = _SILENT_S
        except TimeoutError:
            pass
        except GuestError as error:
            last = render_age(time.time() - written) + " ago" if written else "never"
            print(f"swarm-tui: {agent.name}: {error} (last heard: {last})", file=sys.stderr)
            if not batch.events and len(self._agents) == 1:
                raise
        self._fresh[agent.id] = fresh
        return offset

    def _place(self, agent: AgentId, batch: EventBatch) -> list[Said]:
        heard = batch.heard or time.time()
        events = [replace(event, heard=event.heard or heard) for event in batch.events]
        return [self._timelines[agent].place(event) for event in events]

    def past(self) -> Iterator[Said]:
        """All that is known by now and wanted, in the order of time."""
        return self._choose(merge(map(self._of_one, self._agents)))

    def _of_one(self, agent: Agent) -> Iterator[Said]:
        last = 0.0
        for said in spooled(agent.id, self._logs.folder(agent.id), self._since):
            last = said.when
            yield said
        for said in self._fresh.get(agent.id, ()):
            if said.when < last:  # the spool's last line was heard later than this claims
                said = replace(said, when=last)
            if said.when >= self._since:
                yield said

    def _choose(self, said: Iterable[Said]) -> Iterator[Said]:
        for line in said:
            if self._wanted.is_asks and line.event.kind is not EventKind.ASK:
                continue
            if self._pattern and not self._pattern.matches(line.event.text):
                continue
            yield line

    # What is printed

    def print_past(self) -> None:
        newest = deque(self._newest(), maxlen=max(0, self._wanted.lines))
        if self._wanted.since_s is not None or self._wanted.is_asks or self._pattern:
            self.tell_removed()
        if self._wanted.is_json and not self._wanted.is_following:
            write_json([said_object(said, self.names[said.agent]) for said in newest])
        else:
            self._print(newest)

    def _newest(self) -> Iterator[Said]:
        """The past, without reading all of it where its end is enough."""
        wanted = self._wanted
        if wanted.is_asks or self._pattern or wanted.since_s is not None:
            return self.past()
        return merge(map(self._end_of_one, self._agents))

    def _end_of_one(self, agent: Agent) -> Iterator[Said]:
        folder = self._logs.folder(agent.id)
        chosen: list[spool.Frame] = []
        count = len(self._fresh.get(agent.id, ()))
        for frame in spool.frames(folder, is_backwards=True):
            if count >= self._wanted.lines:
                break
            chosen.append(frame)
            count += frame.lines
        timeline = Timeline(agent.id)
        for frame in reversed(chosen):
            yield from map(timeline.place, frame.events)
        yield from (timeline.place(said.event) for said in self._fresh.get(agent.id, ()))

    def tell_removed(self) -> None:
        for agent in self._agents:
            if lines := spool.removed(self._logs.folder(agent.id)).lines:
                told = f"{lines:,} older lines of {agent.name} were removed by the quota"
                print(f"swarm-tui: {told}", file=sys.stderr)

    def _print(self, lines: Iterable[Said]) -> None:
        for said in lines:
            if self._wanted.is_json:
                write_json(said_object(said, self.names[said.agent]))
                continue
            if said.event.missed:
                print(f"… {said.event.missed:,} lines came too fast to be shown", file=sys.stderr)
            stamp = render_stamp(self._wanted.stamps, said, time.time())
            name = self.names[said.agent].ljust(self._width) if len(self._agents) > 1 else ""
            parts = (stamp, name, f"{said.event.kind:6}", said_text(said.event))
            print(" ".join(part for part in parts if part))
        sys.stdout.flush()

    # What comes

    async def follow(self, guest: Guest, offsets: dict[AgentId, int]) -> None:
        """Print what comes, until all guests are gone. Raises GuestError when the only one is."""
        heard: asyncio.Queue[list[Said] | SwarmError] = asyncio.Queue(maxsize=100)
        tasks = [
            asyncio.create_task(self._hear(guest, agent, address, offsets[agent.id], heard))
            for agent in self._agents
            if (address := agent.tag.address)
        ]
        left = len(tasks)
        try:
            while left:
                lines: list[Said] = []
                async for part in _gather(heard):
                    if isinstance(part, SwarmError):
                        left -= 1
                        if len(self._agents) == 1:
                            raise part
                        print(f"swarm-tui: {part}", file=sys.stderr)
                    else:
                        lines += part
                self._print(self._choose(sorted(lines, key=lambda said: said.when)))
        finally:
            for task in tasks:
                task.cancel()

    async def _hear(
        self,
        guest: Guest,
        agent: Agent,
        address: Address,
        offset: int,
        heard: asyncio.Queue[list[Said] | SwarmError],
    ) -> None:
        try:
            async for batch in guest.events(address, offset):
                if batch.events:
                    await heard.put(self._place(agent.id, batch))
            await heard.put(GuestError(f"{agent.name} closed its event stream"))
        except SwarmError as error:
            await heard.put(GuestError(f"{agent.name}: {error}"))


async def _gather(
    heard: asyncio.Queue[list[Said] | SwarmError],
) -> AsyncIterator[list[Said] | SwarmError]:
    """What is heard from the first word on, for a moment."""
    yield await heard.get()
    end = asyncio.get_running_loop().time() + _GATHER_S
    while True:
        try:
            async with asyncio.timeout_at(end):
                part = await heard.get()
        except TimeoutError:
            return
        yield part
