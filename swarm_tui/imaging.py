"""Foreign images from the command line: built, listed, inspected, removed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from swarm_tui import report
from swarm_tui.amount import render_bytes
from swarm_tui.config import Loaded
from swarm_tui.local.idle import find_idle, tell_idle
from swarm_tui.local.oci.shelf import (
    Entry,
    find_entry,
    find_users,
    list_images,
    list_swarms,
    remove_image,
)
from swarm_tui.text import Safe, sanitize

_HEADER = ("NAME", "DIGEST", "SIZE", "MADE", "USED BY", "SOURCE")


def act(loaded: Loaded, arguments: argparse.Namespace) -> int:
    is_json: bool = arguments.json
    match arguments.verb:
        case "build":
            return build(loaded, arguments.operand, arguments.name, is_json=is_json)
        case "inspect":
            return inspect(loaded, arguments.operand, is_json=is_json)
        case "remove":
            return remove(loaded, arguments.operand, is_json=is_json)
        case _:
            return ls(loaded, is_json=is_json)


def build(loaded: Loaded, source: str, name: str, *, is_json: bool) -> int:
    from swarm_tui.local.oci.build import build_foreign

    loaded.paths.make()
    entry = build_foreign(loaded.paths.cache, source, name, _silent if is_json else _tell)
    if is_json:
        report.write_json(_object(entry, ()))
    else:
        print(f"{entry.title}: {entry.image.digest[:12]}, {render_bytes(entry.size)}")
        for line in _told(entry):
            print(f"  {line}")
    return 0


def ls(loaded: Loaded, *, is_json: bool) -> int:
    entries = list_images(loaded.paths.cache)
    users = _users(loaded)
    if is_json:
        found = [_object(entry, users.get(entry.image.digest, ())) for entry in entries]
        report.write_json({"images": found})
    elif entries:
        rows = [
            (
                entry.title,
                sanitize(entry.image.digest[:12]),
                sanitize(render_bytes(entry.size)),
                sanitize(time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.made))),
                sanitize(str(len(users.get(entry.image.digest, ())))),
                entry.source,
            )
            for entry in entries
        ]
        report.write_table(_HEADER, rows)
    else:
        print("no images; swarm-tui image build SOURCE makes one", file=sys.stderr)
    return 0


def inspect(loaded: Loaded, name: str, *, is_json: bool) -> int:
    entry = find_entry(loaded.paths.cache, name)
    shown = _object(entry, _users(loaded).get(entry.image.digest, ()))
    shown["made_ready"] = _idle(loaded, entry)
    if is_json:
        report.write_json(shown)
        return 0
    for key in ("names", "digest", "source", "manifest", "used_by", "made_ready"):
        print(f"{key:12} {_words(shown[key])}")
    print(f"{'size':12} {render_bytes(entry.size)}")
    for key, value in shown["config"].items():
        print(f"{key:12} {_words(value)}")
    for layer in shown["layers"]:
        print(f"layer        {layer['digest']} {render_bytes(int(layer['bytes']))}")
    for line in _told(entry):
        print(line)
    return 0


def remove(loaded: Loaded, name: str, *, is_json: bool) -> int:
    cache, swarms = loaded.paths.cache, list_swarms(loaded.paths.data)
    idle = _idle(loaded, find_entry(cache, name))
    say = _silent if is_json else _tell
    entry = remove_image(cache, name, lambda: _users(loaded), say, swarms)
    if is_json:
        report.write_json({"removed": entry.image.digest, "with_it": idle})
    else:
        print(f"{entry.title} is removed")
    return 0


def _users(loaded: Loaded) -> Mapping[str, Sequence[str]]:
    """Digest → the agents and snapshots that need that image."""
    return find_users(loaded.paths.cache, loaded.paths.data, loaded.config.snapshots.folder)


def _idle(loaded: Loaded, entry: Entry) -> Sequence[Safe]:
    """What was made of it in advance, and goes with it."""
    found = find_idle(list_swarms(loaded.paths.data), entry.image.folder)
    return [sanitize(tell_idle(folder)) for folder in found]


def _object(entry: Entry, users: Sequence[str]) -> dict[str, Any]:
    facts = entry.facts
    return {
        "names": list(entry.names),
        "digest": entry.image.digest,
        "source": entry.source,
        "manifest": entry.manifest,
        "size": entry.size,
        "made": entry.made,
        "is_current": entry.is_current,
        "used_by": [sanitize(user) for user in users],
        "config": _clean(facts.get("config", {})),
        "layers": _clean(facts.get("layers", [])),
        "outcome": _clean(facts.get("outcome", {})),
    }


def _clean(value: Any) -> Any:
    """The image's own words, made safe wherever they stand."""
    if isinstance(value, str):
        return sanitize(value)
    if isinstance(value, list):
        return [_clean(part) for part in value]
    if isinstance(value, dict):
        return {sanitize(str(key)): _clean(part) for key, part in value.items()}
    return value


def _told(entry: Entry) -> Sequence[Safe]:
    """What was dropped and changed, in words."""
    outcome = entry.facts.get("outcome", {})
    lines = list(outcome.get("notes", ()))
    if names := entry.facts.get("config", {}).get("unheeded"):
        lines.append("not heeded: " + ", ".join(names))
    for kind, count in outcome.get("counts", {}).items():
        some = ", ".join(outcome.get("dropped", {}).get(kind, ()))
        lines.append(f"left out: {count} {kind} ({some})")
    if count := outcome.get("set_id"):
        lines.append(f"set-uid or set-gid, in the guest alone: {count} programs")
    if count := outcome.get("capabilities"):
        lines.append(f"with capabilities, in the guest alone: {count} programs")
    lines += [f"changed: {change}" for change in outcome.get("changes", ())]
    return [sanitize(line) for line in lines]


def _words(value: Any) -> Safe:
    if isinstance(value, list):
        value = " ".join("=".join(part) if isinstance(part, list) else str(part) for part in value)
    elif isinstance(value, dict):
        value = " ".join(f"{key}={part}" for key, part in value.items())
    return sanitize(str(value) or "-")


def _tell(step: str) -> None:
    print(f"  {sanitize(step)}", file=sys.stderr, flush=True)


def _silent(_: str) -> None:
    pass
