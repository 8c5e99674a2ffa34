"""`spawn` and `profiles`: new agents from the command line, one or many."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from swarm_tui import profiles
from swarm_tui.acting import CONNECT_S
from swarm_tui.amount import render_age
from swarm_tui.bootstrap import make_supervisor
from swarm_tui.command import Spawn
from swarm_tui.config import Loaded
from swarm_tui.errors import SwarmError
from swarm_tui.placement import tell
from swarm_tui.ports import Spawned
from swarm_tui.profile import Profile
from swarm_tui.profiles import Entry, Profiles
from swarm_tui.report import agent_object, error_object, write_error, write_json, write_table
from swarm_tui.spawns import Wish
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import EMPTY, Safe, sanitize


def find(loaded: Loaded, name: str) -> Profile:
    """Raises NotFound, ConfigError."""
    return _load(loaded).find(name)


async def spawn(loaded: Loaded, connect: str | None, wish: Wish, *, is_json: bool) -> int:
    """Make all that is wished for, and tell each as it is there; 0 when all were made, else 1."""
    commands = wish.commands()
    began = time.monotonic()
    async with make_supervisor(loaded, connect=connect, is_following=False) as supervisor:
        await supervisor.connected(CONNECT_S)
        if len(commands) == 1:
            on_progress = None if is_json else _tell_step
            one = await supervisor.spawn(commands[0], on_progress)
            made, failed = [one], list[SwarmError]()
        else:
            made, failed = await _spawn_all(supervisor, commands, is_json=is_json)
        took_s = time.monotonic() - began
        if is_json:
            write_json(_outcome(supervisor, made, failed, took_s))
        elif len(commands) == 1:
            print(tell(made[0]))
        else:
            print(_summary(made, failed, took_s))
    return 1 if failed else 0


async def _spawn_all(
    supervisor: Supervisor, commands: Sequence[Spawn], *, is_json: bool
) -> tuple[list[Spawned], list[SwarmError]]:
    """One that fails takes no other with it."""
    say = _unsaid if is_json else _say
    await supervisor.freshen(supervisor.spawners())
    forecast = supervisor.foresee(commands[0], len(commands))
    places = ", ".join(f"{count} on {host}" for host, count in forecast.counts.items())
    say(f"{len(commands)} agents: {places or 'no host has room'}")
    made: list[Spawned] = []
    failed: list[SwarmError] = []

    async def make(command: Spawn) -> None:
        try:
            spawned = await supervisor.spawn(command)
        except SwarmError as error:
            failed.append(error)
            say(f"{command.name or 'one'}: failed: {error}")
        else:
            made.append(spawned)
            told = tell(replace(spawned, reason=EMPTY))
            say(f"{len(made)}/{len(commands)} {spawned.host}/{told}")

    await asyncio.gather(*map(make, commands))
    return made, failed


def _say(line: str) -> None:
    print(f"  {sanitize(line)}", file=sys.stderr, flush=True)


def _unsaid(line: str) -> None:
    pass


def _tell_step(step: Safe, fraction: float | None) -> None:
    _say(f"{step}{f' {fraction:.0%}' if fraction is not None else ''}")


def _summary(made: Sequence[Spawned], failed: Sequence[SwarmError], took_s: float) -> Safe:
    told = f"{len(made)} made in {took_s:.1f} s"
    if made:
        seconds = sorted(one.seconds for one in made)
        told += f" (each answered after {seconds[0]:.1f} to {seconds[-1]:.1f} s)"
    if failed:
        told += f", {len(failed)} not"
    return sanitize(told)


def _outcome(
    supervisor: Supervisor,
    made: Sequence[Spawned],
    failed: Sequence[SwarmError],
    took_s: float,
) -> Mapping[str, Any]:
    agents = [(one, supervisor.store.agent(one.agent)) for one in made]
    return {
        "done": tell(made[0]) if len(made) == 1 else _summary(made, failed, took_s),
        "seconds": took_s,
        "agents": [
            agent_object(agent) | {"answered_after_s": one.seconds, "placed": one.reason or None}
            for one, agent in agents
            if agent
        ],
        "failed": [error_object(error) for error in failed],
    }


def show(loaded: Loaded, name: str, *, is_json: bool) -> int:
    """All profiles, or one in full; 1 when one that was asked for is broken."""
    known = _load(loaded)
    if not name:
        _list(known, is_json=is_json)
        return 0
    entry = known.entry(name)
    if entry.error:
        raise entry.error
    if is_json:
        write_json(_object(entry))
        return 0
    keys = {"memory": "memory_mib", "disk": "disk_mib", "time": "life.ttl", "then": "life"}
    for key, value in _facts(entry):
        line = entry.lines.get(keys.get(key, key))
        source = f"line {line}" if line else "default"
        where = "" if key in ("profile", "file") else f"  ({source})"
        print(f"{key:<12} {sanitize(value)}{where}")
    return 0


def _load(loaded: Loaded) -> Profiles:
    return profiles.load(loaded.paths.profiles)


def _list(known: Profiles, *, is_json: bool) -> None:
    if is_json:
        write_json({"profiles": [_object(entry) for entry in known.entries]})
        return
    rows = [
        [entry.name, "shipped" if entry.is_shipped else "own", _about(entry)]
        for entry in known.entries
    ]
    write_table(("profile", "from", "about"), rows)
    for entry in known.entries:
        if entry.error:
            write_error(entry.error, is_json=False)


def _about(entry: Entry) -> str:
    return entry.profile.about if entry.profile else "broken, see below"


def _facts(entry: Entry) -> Sequence[tuple[str, str]]:
    profile = entry.profile
    assert profile
    life = profile.life
    return [
        ("profile", profile.name),
        ("file", str(entry.file)),
        ("about", profile.about),
        ("image", profile.image or "swarm-tui's own"),
        ("vcpus", str(profile.vcpus)),
        ("memory", f"{profile.memory_mib} MiB" if profile.memory_mib else "local.memory_mib"),
        ("disk", f"{profile.disk_mib} MiB" if profile.disk_mib else "the image's own"),
        ("repository", profile.repository or "the image's own"),
        ("ref", profile.ref),
        ("task", profile.task or "none"),
        ("command", " ".join(map(repr, profile.command)) or "the image's own agent"),
        ("environment", _variables(profile)),
        ("labels", " ".join(label.text for label in profile.labels) or "none"),
        ("hosts", ", ".join(profile.hosts) or "any that can"),
        ("ready", str(profile.ready)),
        ("time", render_age(life.ttl_s) if life.ttl_s else "no end"),
        ("checkpoint", _interval(profile)),
        ("then", f"expired: {life.on_expiry}; done: {life.on_done}; failed: {life.on_failed}"),
    ]


def _interval(profile: Profile) -> str:
    if not profile.checkpoint:
        return "snapshots.every"
    return "never by time" if profile.checkpoint == "off" else f"every {profile.checkpoint}"


def _variables(profile: Profile) -> str:
    told = [name for name, _ in profile.environment]
    told += [f"{name} (from {origin})" for name, origin in profile.inherited]
    return ", ".join(told) or "none"


def _object(entry: Entry) -> Mapping[str, Any]:
    """Of its environment the names alone."""
    profile = entry.profile
    facts: dict[str, Any] = {
        "name": entry.name,
        "file": str(entry.file),
        "is_shipped": entry.is_shipped,
        "error": error_object(entry.error) if entry.error else None,
    }
    if profile is None:
        return facts
    life = profile.life
    return facts | {
        "about": profile.about,
        "image": profile.image or None,
        "vcpus": profile.vcpus,
        "memory_mib": profile.memory_mib,
        "disk_mib": profile.disk_mib,
        "repository": profile.repository or None,
        "ref": profile.ref,
        "task": profile.task or None,
        "command": list(profile.command),
        "environment": [name for name, _ in profile.environment],
        "inherited": dict(profile.inherited),
        "labels": [label.text for label in profile.labels],
        "hosts": list(profile.hosts),
        "ready": profile.ready,
        "lines": entry.lines,
        "checkpoint": profile.checkpoint or None,
        "ttl_s": life.ttl_s,
        "on_expiry": life.on_expiry,
        "on_done": life.on_done,
        "on_failed": life.on_failed,
    }
