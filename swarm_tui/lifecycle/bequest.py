"""An agent's life ends well: what came of it is on the disk before its VM goes.

    end    stand still -> take the work -> land it as a ref -> keep the log -> write the result
           -> kill

Nothing is removed before the result is written; where one of the steps fails the agent stays. The
work is nobody's approval: it lands under `refs/swarm/results`, which is no branch, and is never
checked out. A rule that cannot keep the result pauses the agent, says why in its record, and does
not try again until a person acts.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final, NamedTuple

from swarm_tui import command, durable, lifespan
from swarm_tui.amount import render_age
from swarm_tui.errors import (
    Busy,
    DeadlineExceeded,
    GuestError,
    ReviewError,
    StoreUnreachable,
    SwarmError,
)
from swarm_tui.lifecycle.ground import UNKNOWN, in_thread, noting
from swarm_tui.lifecycle.handoff import Handoff
from swarm_tui.lifecycle.taking import address_of
from swarm_tui.model import Agent, EventBatch, EventKind, Power, Record, Verb, Vm
from swarm_tui.ports import Progress
from swarm_tui.profile import Occasion
from swarm_tui.results import Result, Results
from swarm_tui.review.landing import holds, result_ref
from swarm_tui.review.pull import Pulled, pull
from swarm_tui.spool import Writer, frames, read, segments
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

LOG_BYTES: Final = 64 << 20
"""What a guest may have written since its log was last read here."""
LOG_S: Final = 30.0
EVENTS: Final = "/run/swarm/events.jsonl"
BUNDLE: Final = "work.bundle"

_TAIL: Final = """
file={file} offset={offset}
[ -f "$file" ] || exit 0
[ "$(wc -c <"$file")" -ge "$offset" ] || offset=0
tail -c "+$((offset + 1))" "$file" | head -c {limit}
"""
_PASSING: Final = (*UNKNOWN, Busy, StoreUnreachable)
"""Failures that say nothing about the agent: it is tried again."""


class _Counts(NamedTuple):
    """Of a log: lines, lines that are missing, and the tokens that it tells of."""

    lines: int
    dropped: int
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class Bequest:
    """What is kept of the agents of one host. The caller holds the agent."""

    handoff: Handoff
    results: Results
    spool: Path
    """The agent's folder in the spool."""
    peak: int | None = None
    """The most memory that was seen in use by it, bytes."""

    async def end(
        self, agent: Agent, record: Record, occasion: Occasion, progress: Progress
    ) -> Safe:
        """Keep the result, then kill. Raises SwarmError: then the agent is there still."""
        lifecycle, before = self.handoff.lifecycle, record
        if occasion is not Occasion.ASKED:
            record = replace(record, birth=replace(record.birth, acted=occasion))
        vm, record = await self.handoff.stand_still(agent.vm, record, progress, Verb.END)
        try:
            result = await self._keep(agent, vm, record, occasion, progress)
        except SwarmError as error:
            stood = replace(before, birth=record.birth)
            await self.handoff.go_on(vm, stood, record, error, progress)
            if occasion is not Occasion.ASKED and not isinstance(error, _PASSING):
                await self._leave(record, error, progress)
            raise
        done = await lifecycle.kill(vm, record, progress)
        await in_thread(self.handoff.terms.shelf.remove, record.id)
        return join((_tell(result), done), "; ")

    async def extend(self, record: Record, wanted: command.Extend) -> Safe:
        """Give it more time; nothing else of it changes."""
        birth = lifespan.extend(record.birth, wanted.by_s, time.time(), is_pinned=wanted.is_pinned)
        await self.handoff.lifecycle.write(replace(record, birth=birth))
        if wanted.is_pinned:
            return literal("no rule ends it any more")
        if birth.expires is None:
            return literal("its time has no end any more")
        return literal(f"its time is over in {render_age(birth.expires - time.time())}")

    # What is kept

    async def _keep(
        self, agent: Agent, vm: Vm, record: Record, occasion: Occasion, progress: Progress
    ) -> Result:
        remarks: list[Safe] = []
        cpu_s = await self._cpu_s(vm)
        result = Result(
            agent=vm.id,
            name=vm.name,
            host=vm.host,
            occasion=occasion,
            ended=time.time(),
            born=vm.tag.created,
            owner=vm.tag.owner,
            task=vm.tag.task,
            profile=record.birth.profile,
            told=agent.status or agent.last_line,
            base=vm.tag.base,
            cpu_s=cpu_s,
            memory_peak=self.peak,
            place=sanitize(socket.gethostname()),
        )
        folder = self.results.folder(vm.id)
        with durable.storage("keep the agent's result"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        result = await self._keep_work(vm, result, folder, progress, remarks)
        progress(literal("keeping its log"), None)
        result = await self._keep_log(vm, result, folder, remarks)
        result = replace(result, remark=join(remarks, "; "))
        progress(literal("writing down what came of it"), None)
        await in_thread(self.results.write, result)
        return result

    async def _keep_work(
        self, vm: Vm, result: Result, folder: Path, progress: Progress, remarks: list[Safe]
    ) -> Result:
        """Take it as for a review, and put it where its owner finds it."""
        shelf, base = self.handoff.terms.shelf, vm.tag.base
        number = await in_thread(shelf.next_number, vm.id)
        async with self.handoff.quarantine(vm.id) as quarantine:
            pulled = await pull(
                self.handoff.lifecycle.guest,
                address_of(vm),
                quarantine,
                number,
                base,
                progress,
                limit_bytes=self.handoff.terms.pack_bytes,
            )
            if pulled.remark:
                remarks.append(pulled.remark)
            result = replace(
                result, head=pulled.head, is_uncommitted=pulled.is_uncommitted, changes=0
            )
            if pulled.head == base:
                return result
            try:
                survey = await quarantine.survey(base, pulled.head)
                result = replace(result, changes=len(survey.changes))
            except ReviewError as error:  # too many, say: they are kept all the same
                result = replace(result, changes=None)
                remarks.append(error.title)
            progress(literal("keeping its work"), None)
            repository = self.handoff.repository
            if repository and await holds(repository, base):
                ref = result_ref(vm.name, vm.id, pulled.head)
                await quarantine.land_result(repository, base, pulled.head, ref)
                return replace(result, repository=str(repository), ref=sanitize(ref))
            with _bundling(folder) as file:
                file.write(_bundle_header(pulled, base))
                limit = 2 * self.handoff.terms.pack_bytes
                await quarantine.pack(file, base, pulled.head, limit)
        return replace(result, bundle=str(folder / BUNDLE))

    async def _keep_log(self, vm: Vm, result: Result, folder: Path, remarks: list[Safe]) -> Result:
        """What was spooled, and what its guest wrote since."""
        offset = (await in_thread(read, self.spool, 1 << 16))[0].offset
        script = _TAIL.format(file=EVENTS, offset=offset, limit=LOG_BYTES)
        rest = folder / "rest"
        try:
            done = await self.handoff.lifecycle.guest.download(
                address_of(vm), script, rest, limit_bytes=LOG_BYTES + 1, timeout_s=LOG_S
            )
            if done.exit_status:
                remarks.append(literal("the end of its log could not be read"))
        except (GuestError, DeadlineExceeded) as error:
            remarks.append(join((literal("the end of its log is missing:"), error.title)))
        kept = await in_thread(_copy_log, self.spool, folder, rest, offset)
        return replace(
            result,
            log=str(folder),
            lines=kept.lines,
            dropped=kept.dropped,
            tokens_in=kept.tokens_in,
            tokens_out=kept.tokens_out,
        )

    async def _cpu_s(self, vm: Vm) -> float | None:
        counters = (await self.handoff.lifecycle.hypervisor.counters()).get(vm.id)
        if counters is None or counters.cpu_ns is None:
            return None
        return counters.cpu_ns / 1e9

    async def _leave(self, record: Record, error: SwarmError, progress: Progress) -> None:
        """Have it stand still with its state on the disk, and say why it was not ended."""
        lifecycle, problems = self.handoff.lifecycle, list[SwarmError]()
        unkept = join((error.title, sanitize(error.detail, max_cells=200)), ": ")
        with noting(problems):
            vm = await lifecycle.hypervisor.describe(record.id)  # a lost host says nothing of it
            now = await in_thread(lifecycle.catalogue.record, record.id) or record
            now = await lifecycle.write(replace(now, birth=replace(now.birth, unkept=unkept)))
            if vm.power is not Power.OFF:
                await lifecycle.pause(vm, now, progress)
        paused = literal("It is paused until you decide: extend it, end it again, or kill it.")
        error.hint = join((error.hint, *(sanitize(str(one)) for one in problems), paused))


@contextmanager
def _bundling(folder: Path) -> Iterator[IO[bytes]]:
    """A bundle being written; only a whole one gets its name. Raises StorageFull, SnapshotError."""
    with durable.storage("keep the agent's work"), TemporaryDirectory(dir=folder) as made:
        path = Path(made) / BUNDLE
        with open(path, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.rename(folder / BUNDLE)
        durable.sync_folder(folder)


def _bundle_header(pulled: Pulled, base: str) -> bytes:
    """gitformat-bundle(5), version 2; ids of 64 digits need version 3."""
    is_long = len(base) == 64
    begin = "# v3 git bundle\n@object-format=sha256\n" if is_long else "# v2 git bundle\n"
    return f"{begin}-{base}\n{pulled.head} refs/swarm/result\n\n".encode()


def _copy_log(spool: Path, folder: Path, rest: Path, offset: int) -> _Counts:
    """Copy the spooled segments, add what came later, and count. Raises StorageFull."""
    with durable.storage("keep the agent's log"):
        for segment in segments(folder):  # of an earlier try
            segment.path.unlink(missing_ok=True)
        for segment in segments(spool):
            target = folder / segment.path.name
            try:
                shutil.copyfile(segment.path, target)
            except FileNotFoundError:  # packed in this moment
                packed = segment.path.with_suffix(".gz")
                target = folder / packed.name
                shutil.copyfile(packed, target)
            _sync(target)
        body = rest.read_bytes() if rest.exists() else b""
        body = body[: body.rfind(b"\n") + 1]
        rest.unlink(missing_ok=True)
    if body:
        with Writer(folder) as writer:
            batch = EventBatch((), offset + len(body), raw=body, heard=time.time())
            writer.append(batch)
    lines = dropped = tokens_in = tokens_out = 0
    for frame in frames(folder):
        lines += frame.lines
        dropped += frame.dropped
        for event in frame.events:
            if event.kind is EventKind.USAGE:
                tokens_in += event.tokens_in
                tokens_out += event.tokens_out
    with durable.storage("keep the agent's log"):
        for segment in segments(folder):
            _sync(segment.path)
        durable.sync_folder(folder)
    return _Counts(lines, dropped, tokens_in, tokens_out)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _tell(result: Result) -> Safe:
    if result.head == result.base:
        return literal("it had changed nothing; its log is kept")
    count = "unknown many" if result.changes is None else f"{result.changes:,}"
    where = result.ref or sanitize(result.bundle)
    return join((literal(f"its work ({count} files, not reviewed) is kept as"), where, EMPTY))
