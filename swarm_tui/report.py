"""Agents, snapshots and acts as rows for a terminal and as objects for JSON."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm_tui.amount import render_age, render_bytes
from swarm_tui.errors import SwarmError
from swarm_tui.inventory import Kept
from swarm_tui.lifespan import tell_left
from swarm_tui.model import Agent, Birth
from swarm_tui.text import sanitize

if TYPE_CHECKING:
    from swarm_tui.audit import Entry
    from swarm_tui.doctor import Finding


_STANDINGS = {
    "there": "",
    "missing": "  MISSING: it is not on its host any more",
    "unseen": "  (as last known; its host was not asked)",
}


def agent_object(agent: Agent) -> dict[str, Any]:
    """An agent for JSON: plain names, Unix seconds, bytes, null for what nobody knows."""
    address = agent.tag.address
    birth = agent.record.birth if agent.record else Birth()
    return {
        "id": agent.id,
        "name": agent.name,
        "host": agent.host,
        "state": agent.state,
        "since": agent.since,
        "reason": agent.reason or None,
        "seen": agent.seen or None,
        "task": agent.tag.task or None,
        "owner": agent.tag.owner or None,
        "created": agent.tag.created,
        "base": agent.tag.base or None,
        "labels": {label.key: label.value for label in agent.tag.labels},
        "vcpus": agent.vm.vcpus if agent.vm else None,
        "memory_bytes": agent.vm.memory_bytes if agent.vm else None,
        "ssh": {
            "host": address.host,
            "port": address.port,
            "host_key": address.host_key,
            "via": address.via,
        }
        if address
        else None,
        "saved_in": agent.record.saved_in if agent.record else None,
        "review": agent.record.review if agent.record else None,
        "verdict": agent.record.verdict if agent.record else None,
        "profile": birth.profile or None,
        "parent": birth.parent,
        "expires": birth.expires,
        "is_pinned": birth.is_pinned,
        "unkept": birth.unkept or None,
        "last_line": agent.last_line or None,
        "status": agent.status or None,
        "tokens_in": agent.tokens_in,
        "tokens_out": agent.tokens_out,
    }


def plain(value: object) -> Any:
    """A record as JSON-able objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_json(value: object) -> None:
    # All in ASCII: not every text in it went through `sanitize`, and a terminal may read it.
    print(json.dumps(plain(value), indent=2))


def write_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns; the last one is cut at the terminal's width, if there is one."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header) - 1)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in (header, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]])[:room].rstrip())


def agent_row(agent: Agent) -> list[str]:
    now = time.time()
    return [
        agent.name,
        agent.state,
        render_age(now - agent.since if agent.since else None),
        agent.host,
        render_bytes(agent.vm.memory_bytes if agent.vm else None),
        agent.tag.task or "-",
        agent.reason or agent.last_line or "-",
    ]


AGENT_HEADER = ("NAME", "STATE", "FOR", "HOST", "MEMORY", "TASK", "LAST")


def snapshot_object(kept: Kept) -> dict[str, Any]:
    """A snapshot for JSON; `standing` is "there", "missing" or "unseen"."""
    more = {"host": kept.host, "place": kept.place or None, "manifest": kept.digest}
    return {**plain(kept.snapshot), **more, "standing": kept.standing}


def write_agent(agent: Agent, snapshots: Sequence[Kept], acts: Sequence[Entry]) -> None:
    """One agent in full, for people."""
    import humanize  # only where there is room for its words: `ls` must start at once

    for name, value in agent_object(agent).items():
        shown = json.dumps(value) if isinstance(value, dict) else value
        if name == "expires" and value:
            shown = tell_left(agent, time.time())
        elif name in ("since", "seen", "created") and value:
            shown = f"{humanize.naturaldelta(max(0, time.time() - value))} ago"
        elif name == "memory_bytes" and value:
            shown = humanize.naturalsize(value, binary=True)
        elif name.startswith("tokens"):
            shown = humanize.intcomma(value)
        print(f"{name + ':':14}{'n/a' if shown is None else shown}")
    for kept in snapshots:
        snapshot = kept.snapshot
        size_on_disk = humanize.naturalsize(snapshot.size_bytes, binary=True)
        maker = sanitize(snapshot.hypervisor)
        print(
            f"{'snapshot:':14}{snapshot.id}  {size_on_disk}  by {maker}{_STANDINGS[kept.standing]}"
        )
    for act in acts:
        outcome = act.outcome or "unknown"
        print(f"{'act:':14}{clock(act.at)}  {act.verb}  {outcome}  by {act.actor}  {act.detail}")


def clock(at: float) -> str:
    """Local time of day; a guest may claim any number."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


def write_findings(findings: Sequence[Finding]) -> None:
    """One line each; under those that are not well why, and what to do."""
    for finding in findings:
        print(f"{finding.level:4}  {finding.name}: {finding.what}")
        for part in (finding.why, finding.remedy):
            for line in part.splitlines() if finding.level != "ok" else ():
                print(f"      {line}")


def error_object(error: SwarmError) -> dict[str, str]:
    """An error for JSON."""
    return {
        "error": type(error).__name__,
        "title": error.title,
        "detail": error.detail,
        "hint": error.hint,
    }


def write_error(error: SwarmError, *, is_json: bool) -> None:
    """Title, detail and hint on standard error, or as an object on standard output."""
    if is_json:
        write_json(error_object(error))
        return
    print(f"swarm-tui: {sanitize(error.title)}", file=sys.stderr)
    for part in (error.detail, error.hint):
        for line in part.splitlines():
            print(f"  {line}", file=sys.stderr)
