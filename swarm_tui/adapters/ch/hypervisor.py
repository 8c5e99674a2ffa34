"""libvirt's Cloud Hypervisor driver behind `ports.Hypervisor`, its gaps filled from the host.

The driver keeps definitions in its daemon's memory only, so they are kept in a folder of ours on
the host, too, and given back to a daemon that has forgotten them. Managed saves are never used:
each definition anew removes them (ch_driver.c of libvirt 11.3).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from swarm_tui.adapters.calls import Tries
from swarm_tui.adapters.ch.domains import BROKEN, LACKS, Domains
from swarm_tui.adapters.ch.essence import check_same
from swarm_tui.adapters.ch.sight import SOURCES, Busy, Definitions, Look, Sight, api_socket
from swarm_tui.adapters.connection import Connection, Deadlines, without_prompts
from swarm_tui.adapters.domain import Definition, parse_definition
from swarm_tui.errors import (
    AgentGone,
    DeadlineExceeded,
    HostError,
    HostUnreachable,
    Refused,
    StorageFull,
    SwarmError,
    Unsupported,
)
from swarm_tui.model import AgentId, Capabilities, Counters, Hint, HostName, Power, Vm
from swarm_tui.ports import Console, HostFacts, Outpost, Progress
from swarm_tui.text import Safe, literal

WATCH_S: Final = 1.0
"""How often VMs are looked at for what no event tells."""
DESTROY_S: Final = 3.0
"""After which a VMM that libvirt cannot end is ended by its host's kernel."""
VMM_S: Final = 120.0
"""For an orphan's VMM to write its memory."""
LOOKS: Final = 4
"""VMs that may hang before the others cannot be looked at any more."""
DEADLINES: Final = Deadlines(study_s=1.0)
DEFINITION: Final = "definition"


class ChHypervisor:
    """One host with libvirt's Cloud Hypervisor driver, as `ports.Hypervisor` says."""

    def __init__(
        self,
        host: HostName,
        uri: str,
        outpost: Outpost,
        *,
        deadlines: Deadlines = DEADLINES,
        resolve: Callable[[], Awaitable[str]] | None = None,
        lead: Callable[[Vm], Vm] = lambda vm: vm,
    ) -> None:
        """`outpost` is ours to open and close.

        `resolve` gives at each opening the URI that leads there now, where `uri` does not;
        `lead` gives a VM with its guest's address as it is reached from here. Raises ConfigError.
        """
        self._host = host
        self._uri = uri
        self._resolve = resolve
        self._lead = lead
        self._outpost = outpost
        self._deadlines = deadlines
        self._known: dict[AgentId, tuple[str, Definition]] = {}
        self._foreign: set[str] = set()
        self._moving: dict[AgentId, Safe] = {}
        self._tries = Tries(host)
        self._connection: Connection | None = None
        self._looking_by: Connection | None = None
        self._domains: Domains | None = None
        self._look: Look | None = None
        self._on_hint: Callable[[Hint], None] = lambda hint: None
        self._looking = asyncio.Lock()
        self._looked = 0.0
        self._hinted: dict[AgentId, tuple[Power, Safe, bool]] = {}
        self._listing: asyncio.Future[Sequence[str]] | None = None
        self._watching: asyncio.Task[None] | None = None
        without_prompts(uri)

    @property
    def host(self) -> HostName:
        return self._host

    @property
    def uri(self) -> str:
        return self._uri

    async def open(self, on_hint: Callable[[Hint], None]) -> Capabilities:
        await self.close()
        await self._outpost.open()
        uri = await self._resolve() if self._resolve else self._uri
        busy = Busy()
        connect = partial(Connection, self._host, uri, self._deadlines, self._tries, is_busy=True)
        connection = connect(on_hint)
        # A daemon serves five calls of one client at a time (max_client_requests), and a look
        # at a VM that hangs is one for as long as that lasts: looks are another client's.
        watching = connect(lambda hint: None, studies=LOOKS)
        looks = Domains(watching, busy)
        self._connection, self._looking_by = connection, watching
        self._domains, self._on_hint = Domains(connection, busy), on_hint
        self._look = Look(
            self._outpost,
            looks.tell,
            watching.study,
            Definitions(self._known),
            self._moving,
            busy,
        )
        capabilities, _ = await asyncio.gather(connection.open(), watching.open())
        if capabilities.driver != "CH":
            raise Unsupported(
                f"Host {self._host} has no Cloud Hypervisor driver",
                f"{uri} speaks to libvirt's {capabilities.driver} driver",
            )
        await self._discover()
        await self._define_again()
        self._watching = asyncio.create_task(self._watch(), name=f"look at {self._host}")
        kept = {name: why for name, why in capabilities.missing.items() if name not in SOURCES}
        return replace(capabilities, missing={**kept, **LACKS}, sources=SOURCES)

    async def close(self) -> None:
        if watching := self._watching:
            self._watching = None
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        connections = [self._connection, self._looking_by]
        self._connection = self._looking_by = self._domains = None
        self._look, self._listing = None, None
        for connection in connections:
            if connection:
                await connection.close()
        await self._outpost.close()

    async def list(self) -> Sequence[Vm]:
        self._opened()
        await self._discover()
        sights = await self._look_at_all()
        return [self._to_vm(agent, sight) for agent, sight in sights.items()]

    async def describe(self, agent: AgentId) -> Vm:
        if agent not in self._known:
            await self._meet(agent)
        sight = await self._look_at(agent)
        if sight.power is Power.OFF and agent not in await self._outpost.kept(DEFINITION):
            self._forget(agent)  # somebody else has killed it
            raise AgentGone("The VM is not there any more", agent)
        return self._to_vm(agent, sight)

    async def definition(self, agent: AgentId) -> str:
        self._opened()
        if agent not in self._known:
            await self._meet(agent)
        return self._text(agent)

    async def counters(self) -> Mapping[AgentId, Counters]:
        sights = await self._look_at_all()
        now = time.monotonic()
        return {
            agent: sight.to_counters(now, self._known[agent][1].memory_bytes)
            for agent, sight in sights.items()
            if sight.process and agent in self._known
        }

    async def facts(self) -> HostFacts:
        connection, domains = self._opened()
        return await connection.read("tell its size", domains.facts)

    async def define(self, definition: str) -> AgentId:
        connection, domains = self._opened()
        # Kept as libvirt completes it, with the MAC addresses that it chose.
        complete = await connection.act("define the VM", partial(domains.define, definition))
        parsed = parse_definition(complete)
        if parsed.tag:
            await self._outpost.keep(parsed.id, DEFINITION, complete)
            self._remember(complete)
        return parsed.id

    async def undefine(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        if agent in self._known and (await self._look_at(agent)).process:
            raise Refused("Cannot forget the VM", "it is running; stop it first")
        await connection.act("forget the VM", partial(domains.undefine, agent))
        await self._outpost.drop(agent)
        self._forget(agent)

    async def start(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        definition = await self.definition(agent)
        if (await self._look_at(agent)).power in (Power.RUNNING, Power.PAUSED):
            raise Refused("Cannot start the VM", "it is running already")
        await self._check_free(agent)
        await connection.act("define the VM", partial(domains.ensure, agent, definition))
        with self._moved(agent, literal("it is being started")):
            await connection.act("start the VM", partial(domains.start, agent))

    async def suspend(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        if (sight := await self._look_at(agent)).is_orphan:
            if sight.power is not Power.PAUSED:
                await self._tell_vmm(agent, sight, "vm.pause")
            return
        with self._moved(agent, literal("it is being suspended")):
            await connection.act("suspend the VM", partial(domains.suspend, agent))

    async def resume(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        if (sight := await self._look_at(agent)).is_orphan:
            if sight.power is not Power.RUNNING:
                await self._tell_vmm(agent, sight, "vm.resume")
            return
        with self._moved(agent, literal("it is being resumed")):
            await connection.act("resume the VM", partial(domains.resume, agent))

    async def destroy(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        sight = await self._look_at(agent)
        if sight.is_orphan and sight.process:
            await self._outpost.end(sight.process)
            return
        end = partial(connection.destroy, "destroy the VM", partial(domains.destroy, agent))
        with self._moved(agent, literal("it is being ended")):
            try:
                async with asyncio.timeout(DESTROY_S):
                    await end()
            except (TimeoutError, DeadlineExceeded):
                if sight.process is None:
                    raise DeadlineExceeded(
                        f"Host {self._host} does not answer",
                        f"asked to destroy the VM, no answer in {DESTROY_S:g} s",
                    ) from None
                # While its VMM hangs, libvirt waits for that; once it is gone, libvirt goes on.
                await self._outpost.end(sight.process)
                await end()
            await self._see_off(sight)

    async def save(self, agent: AgentId, target: Path, on_progress: Progress) -> None:
        connection, domains = self._opened()
        definition = await self.definition(agent)
        sight = await self._look_at(agent)
        if sight.power not in (Power.RUNNING, Power.PAUSED):
            raise Refused("Cannot save the VM", "it is not running")
        await self._outpost.begin_save(target, definition)
        on_progress(literal("saving memory"), None)
        with self._moved(agent, literal("its memory is being saved")):
            try:
                if sight.is_orphan:
                    await self._save_orphan(agent, sight, target)
                else:
                    await connection.move("save the VM", partial(domains.save, agent, target))
                await self._see_off(sight)
            except HostUnreachable:
                raise
            except HostError as error:
                raise await self._explain_save(agent, target, error) from error

    async def check_saved(self, target: Path) -> None:
        await self._outpost.check_saved(target)

    async def restore(self, agent: AgentId, target: Path) -> None:
        connection, domains = self._opened()
        definition = await self.definition(agent)
        saved = await self._outpost.check_saved(target)
        check_same(definition, saved)
        await self._check_free(agent)
        await connection.act("define the VM", partial(domains.ensure, agent, definition))
        with self._moved(agent, literal("its memory is being restored")):
            try:
                await connection.move("restore the VM", partial(domains.restore, agent, target))
            except HostUnreachable:
                raise
            except HostError as error:
                await self._clear_restore(agent)
                if "failed to create connection to CH socket" in error.detail:
                    error.hint = BROKEN
                raise

    async def dump(self, agent: AgentId, target: Path) -> None:
        await self._refuse("dump", agent)

    async def checkpoint(self, agent: AgentId) -> str:
        await self._refuse("checkpoint", agent)

    async def fork(self, definition: str, checkpoint: str) -> AgentId:
        raise Unsupported(f"Host {self._host} cannot fork the VM", LACKS["fork"])

    async def _refuse(self, call: str, agent: AgentId) -> NoReturn:
        await self.definition(agent)  # it may be gone, which is the better thing to tell
        raise Unsupported(f"Host {self._host} cannot {call} the VM", LACKS[call])

    @asynccontextmanager
    async def console(self, agent: AgentId) -> AsyncIterator[Console]:
        connection, domains = self._opened()
        console = domains.new_console()
        try:
            await connection.act(
                "open its console", lambda: console.listen(domains.open_console(agent))
            )
            yield console
        finally:
            console.end()
            with suppress(SwarmError):  # the connection is gone, and the stream with it
                await connection.act("close its console", console.abort)

    # What is there

    async def _discover(self) -> None:
        """Take in what the host keeps of our agents, and agents that others have defined."""
        kept = await self._outpost.kept(DEFINITION)
        for agent in [agent for agent in self._known if agent not in kept]:
            self._forget(agent)
        for agent, text in kept.items():
            if agent not in self._known or self._known[agent][0] != text:
                self._remember(text)
        for uuid in await self._list_uuids():
            if uuid not in self._known and uuid not in self._foreign:
                with suppress(AgentGone, DeadlineExceeded):
                    await self._meet(AgentId(uuid))

    async def _list_uuids(self) -> Sequence[str]:
        """Of all domains; none while libvirt does not tell because one of them is at work."""
        connection, domains = self._opened()
        if self._look_opened().busy:
            return ()
        if self._listing is None or self._listing.done():
            self._listing = asyncio.ensure_future(connection.study("list the VMs", domains.uuids))
            self._listing.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(self._listing)
        except DeadlineExceeded:
            return ()

    async def _meet(self, agent: AgentId) -> None:
        """Read and keep a definition that is new to us. Raises AgentGone when it is not ours."""
        connection, domains = self._opened()
        text = await connection.study("read its definition", partial(domains.definition, agent))
        if parse_definition(text).tag is None:
            self._foreign.add(agent)
            raise AgentGone("The VM is not there any more", "no agent of ours has this id")
        await self._outpost.keep(agent, DEFINITION, text)
        self._remember(text)

    async def _define_again(self) -> None:
        """Give back to libvirt what it has forgotten, but no VM that runs without it."""
        connection, domains = self._opened()
        for agent, sight in (await self._look_at_all()).items():
            if sight.power is Power.OFF:
                text = self._known[agent][0]
                with suppress(Refused, DeadlineExceeded):  # told when it is to be started
                    await connection.act("define the VM", partial(domains.ensure, agent, text))
        kept = await self._outpost.kept(DEFINITION)
        for agent in [agent for agent in self._known if agent not in kept]:
            # It was killed by somebody else meanwhile.
            with suppress(SwarmError):
                await connection.act("forget the VM", partial(domains.undefine, agent))
            self._forget(agent)

    def _remember(self, text: str) -> None:
        with suppress(HostError):  # a folder of the host holds what is none of ours
            definition = parse_definition(text)
            if definition.tag:
                self._known[definition.id] = text, definition

    def _forget(self, agent: AgentId) -> None:
        self._known.pop(agent, None)
        self._hinted.pop(agent, None)
        if self._look:
            self._look.seen.pop(agent, None)

    # How it stands

    async def _watch(self) -> None:
        """Give a hint for what changed without an event."""
        while True:
            await asyncio.sleep(WATCH_S)
            if time.monotonic() - self._looked < WATCH_S:
                continue
            try:
                await self._look_at_all()
            except HostUnreachable:
                self._on_hint(Hint(None, "closed"))
                return
            except SwarmError:
                continue  # the next call on the host tells it

    async def _look_at_all(self) -> Mapping[AgentId, Sight]:
        async with self._looking:
            sights = await self._look_opened().at([*self._known])
            self._looked = time.monotonic()
        for agent, sight in sights.items():
            now = (sight.power, sight.reason, sight.is_orphan)
            before, self._hinted[agent] = self._hinted.get(agent), now
            if before != now and self._watching:  # who has just opened lists all
                self._on_hint(Hint(agent, "seen to have changed"))
        return {agent: sight for agent, sight in sights.items() if agent in self._known}

    async def _look_at(self, agent: AgentId) -> Sight:
        if agent not in self._known:
            await self._meet(agent)
        return (await self._look_opened().at([agent]))[agent]

    def _to_vm(self, agent: AgentId, sight: Sight) -> Vm:
        return self._lead(sight.to_vm(self._parsed(agent), self._host))

    def _text(self, agent: AgentId) -> str:
        return self._entry(agent)[0]

    def _parsed(self, agent: AgentId) -> Definition:
        return self._entry(agent)[1]

    def _entry(self, agent: AgentId) -> tuple[str, Definition]:
        try:
            return self._known[agent]
        except KeyError:  # somebody else killed it while we looked
            raise AgentGone("The VM is not there any more", agent) from None

    # Orphans

    async def _save_orphan(self, agent: AgentId, sight: Sight, target: Path) -> None:
        if sight.power is Power.RUNNING:
            await self._tell_vmm(agent, sight, "vm.pause")
        where = json.dumps({"destination_url": f"file://{target}"})
        await self._tell_vmm(agent, sight, "vm.snapshot", where)
        await self._outpost.check_saved(target)

    async def _tell_vmm(self, agent: AgentId, sight: Sight, command: str, body: str = "") -> None:
        assert sight.process is not None  # an orphan has one
        socket = api_socket(sight.process, self._parsed(agent).name)
        await self._outpost.tell_vmm(socket, command, body, VMM_S)

    # Before and after

    async def _clear_restore(self, agent: AgentId) -> None:
        """End what a restore that failed left behind: nobody held the disks before it."""
        with suppress(SwarmError):  # the first failure is the one to tell
            connection, domains = self._opened()
            if await connection.study("look at the VM", partial(domains.is_active, agent)):
                return
            for process in (await self._outpost.holders(self._disks(agent))).values():
                await self._outpost.end(process)

    def _disks(self, agent: AgentId) -> Sequence[Path]:
        return self._parsed(agent).disks or ()

    async def _see_off(self, sight: Sight) -> None:
        """Wait for the end of a VMM: libvirt says that a VM is off when its VMM is yet to go."""
        if sight.process:
            await self._outpost.end(sight.process)

    async def _check_free(self, agent: AgentId) -> None:
        """Raise Refused while any process has a disk of the VM open: two would destroy it."""
        for disk, process in (await self._outpost.holders(self._disks(agent))).items():
            raise Refused(
                "Its disk is in use",
                f"process {process.pid} on {self._host} has {disk} open",
                "Nothing was started: a second VM on it would destroy it.",
            )

    async def _explain_save(self, agent: AgentId, target: Path, error: HostError) -> SwarmError:
        """libvirt does not pass on why a VMM could not write its memory."""
        memory = self._parsed(agent).memory_bytes or 0
        with suppress(SwarmError):
            if (room := await self._outpost.room(target)) < memory:
                free = f"{room >> 20} MiB are free, its memory has {memory >> 20}"
                return StorageFull(
                    "No room to save the VM", f"{error.detail}; {free}", "Free some space."
                )
        return error

    @contextmanager
    def _moved(self, agent: AgentId, what: Safe) -> Iterator[None]:
        self._moving[agent] = what
        try:
            yield
        finally:
            self._moving.pop(agent, None)

    def _opened(self) -> tuple[Connection, Domains]:
        if self._connection is None or self._domains is None:
            raise HostUnreachable(f"Host {self._host} is out of reach", "it is not connected")
        return self._connection, self._domains

    def _look_opened(self) -> Look:
        self._opened()
        assert self._look is not None  # it comes and goes with the connection
        return self._look
