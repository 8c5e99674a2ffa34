"""What came of agents that were ended: kept in the shared store, its logs in files.

<root>/<agent>/        the agent's log as the spool has it, on the machine that ended it
<root>/<agent>/work.bundle    its work, where no repository of the owner's could take it
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from swarm_tui import durable
from swarm_tui.amount import render_age, render_bytes
from swarm_tui.database import Database
from swarm_tui.errors import NotFound, SwarmError
from swarm_tui.lifespan import tell_occasion
from swarm_tui.model import AgentId, HostName
from swarm_tui.profile import Occasion
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize


@dataclass(frozen=True, slots=True)
class Result:
    """Of one agent. `None` is unknown; texts that nobody knows are empty."""

    agent: AgentId
    name: Safe
    host: HostName
    occasion: Occasion
    """Why it was ended."""
    ended: float
    born: float | None = None
    """When it was made."""
    owner: Safe = EMPTY
    task: Safe = EMPTY
    profile: Safe = EMPTY
    told: Safe = EMPTY
    """What it said last of how it stands."""
    base: str = ""
    head: str = ""
    """Of its work; the same as `base` where it has changed nothing."""
    changes: int | None = None
    """Files that differ between the two."""
    is_uncommitted: bool = False
    """The head is a commit of our helper, on top of the agent's own."""
    repository: str = ""
    """In which the work is kept; empty: in `bundle`, or there is none."""
    ref: Safe = EMPTY
    """Under which. It is no branch: nobody has reviewed it."""
    bundle: str = ""
    """File of the work on top of `base`, for `git fetch`."""
    log: str = ""
    """Folder of its log."""
    place: Safe = EMPTY
    """The machine on which `log` and `bundle` are."""
    lines: int | None = None
    """Of the log."""
    dropped: int = 0
    """Lines that nobody could keep."""
    tokens_in: int = 0
    tokens_out: int = 0
    cpu_s: float | None = None
    """Of the VM since it last began to run, as its host counted."""
    memory_peak: int | None = None
    """The most that was seen in use, bytes."""
    remark: Safe = EMPTY
    """What is missing of all this, and why."""

    @property
    def wall_s(self) -> float | None:
        """From its making to its end."""
        return None if self.born is None else max(0.0, self.ended - self.born)


class Results:
    """Of all agents. Methods block, and raise StoreError and StorageFull."""

    def __init__(self, database: Database, root: Path) -> None:
        """`root` holds the folders on this machine."""
        self._database = database
        self._root = root

    def folder(self, agent: AgentId) -> Path:
        """Where the agent's log is kept here. Raises NotFound for an id that is no name."""
        if not agent or "/" in agent or agent.startswith(".") or not agent.isprintable():
            raise NotFound("No such agent", repr(agent))
        return self._root / agent

    def write(self, result: Result) -> None:
        """Keep one, durably; one of the same agent is replaced."""
        with self._database.write() as transaction:
            transaction.run(
                "INSERT INTO results (agent, name, ended, content) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (agent) DO UPDATE SET"
                " name = excluded.name, ended = excluded.ended, content = excluded.content",
                *(result.agent, result.name, result.ended, json.dumps(asdict(result))),
            )
            transaction.touch("result", result.agent)

    def list(self) -> Sequence[Result]:
        """All, the newest first. Raises SwarmError when one cannot be read."""
        with self._database.read() as transaction:
            rows = transaction.rows("SELECT agent, content FROM results ORDER BY ended DESC, agent")
        return [self._read(str(row[0]), str(row[1])) for row in rows]

    def find(self, agent: AgentId) -> Result | None:
        """That of one agent; None when none was kept."""
        with self._database.read() as transaction:
            row = transaction.row("SELECT agent, content FROM results WHERE agent = ?", agent)
        return self._read(str(row[0]), str(row[1])) if row else None

    def remove(self, agent: AgentId) -> None:
        """Forget one, with its log here; what is in a repository stays. Not there is fine."""
        folder = self.folder(agent)
        with self._database.write() as transaction:
            transaction.run("DELETE FROM results WHERE agent = ?", agent)
            transaction.touch("result", agent)
        with durable.storage("remove the agent's log"):
            durable.remove_folder(folder)

    def _read(self, agent: str, content: str) -> Result:
        try:
            raw = json.loads(content)
            if not isinstance(raw, dict) or raw.get("agent") != agent:
                raise ValueError("it is not that of this agent")  # noqa: TRY301 - one place to map
            return _decode(raw)
        except (ValueError, TypeError) as error:
            raise SwarmError(
                "A result cannot be read",
                f"{self._database.place}, results, {sanitize(agent)}: {error}",
                "Mend or remove it.",
            ) from error


_TEXTS = ("name", "owner", "task", "profile", "told", "ref", "place", "remark")
_NUMBERS = ("born", "cpu_s")
_COUNTS = ("changes", "lines", "memory_peak")


def _decode(raw: dict[str, Any]) -> Result:
    known = {field.name: raw[field.name] for field in fields(Result) if field.name in raw}
    for name in _TEXTS:
        known[name] = sanitize(str(known.get(name, "")))
    for name in _NUMBERS:
        value = known.get(name)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError(f"{name} is no number")
    for name in _COUNTS:
        value = known.get(name)
        if value is not None and not isinstance(value, int):
            raise ValueError(f"{name} is no count")
    known["agent"] = AgentId(sanitize(str(raw["agent"])))
    known["host"] = HostName(sanitize(str(known.get("host", ""))))
    known["occasion"] = Occasion(str(known.get("occasion")))
    known["ended"] = float(known["ended"])
    return Result(**known)


def describe(one: Result, now: float) -> Sequence[tuple[str, Safe]]:
    """In full: label and value, for the command line and the screen."""
    where = join((literal("on"), one.place)) if one.place else EMPTY
    work = join((one.ref, literal("in"), sanitize(one.repository)))
    if not one.ref:
        work = join((sanitize(one.bundle), where)) if one.bundle else literal("nothing was changed")
    files = "n/a" if one.changes is None else f"{one.changes:,}"
    dropped = f", {one.dropped:,} more were too fast" if one.dropped else ""
    lines = "n/a" if one.lines is None else f"{one.lines:,}"
    facts = [
        ("agent", join((one.name, literal("on"), sanitize(one.host), sanitize(one.agent)))),
        ("ended", literal(f"{render_age(now - one.ended)} ago")),
        ("why", tell_occasion(one.occasion)),
        ("said last", one.told),
        ("task", one.task),
        ("profile", one.profile),
        ("owner", one.owner),
        ("work", work),
        ("reviewed", literal("no: nobody has approved it") if one.ref or one.bundle else EMPTY),
        ("files", literal(f"{files}{', the last of it uncommitted' * one.is_uncommitted}")),
        ("head", sanitize(one.head)),
        ("base", sanitize(one.base)),
        ("log", join((sanitize(one.log), where))),
        ("log lines", literal(f"{lines}{dropped}")),
        ("lived", literal(render_age(one.wall_s))),
        ("cpu", literal("n/a" if one.cpu_s is None else f"{one.cpu_s:,.1f} s, since its VM began")),
        ("memory", literal(f"{render_bytes(one.memory_peak)} at most, as far as it was seen")),
        ("tokens", literal(f"{one.tokens_in:,} in, {one.tokens_out:,} out, as it said itself")),
        ("missing", one.remark),
    ]
    return [(label, value) for label, value in facts if value]
