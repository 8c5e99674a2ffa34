"""The hosts of the configuration, from the command line: listed, added, checked, removed."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from swarm_tui import register, report, trust
from swarm_tui.amount import NOT_KNOWN, render_bytes
from swarm_tui.bootstrap import (
    greet,
    local_host,
    local_uri,
    make_hypervisors,
    open_catalogue,
    open_shelf,
    open_snapshots,
)
from swarm_tui.capacity import Load
from swarm_tui.config import Loaded
from swarm_tui.doctor import Finding, examine_host
from swarm_tui.errors import HostDenied, HostKeyUnknown, NotFound, SwarmError, UsageError
from swarm_tui.model import Agent, HostName, State, Vm
from swarm_tui.ports import HostFacts, Hypervisor
from swarm_tui.settings import NAME, HostEntry
from swarm_tui.text import Safe, sanitize

_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class New:
    """A host that shall be added."""

    name: str
    settings: Mapping[str, str]
    """As they shall stand in the file: "uri", "identity" and so on."""
    fingerprint: str = ""
    """Of the key that it must show."""
    is_trusted: bool = False
    """Whatever key it shows is taken for its own."""

    @property
    def overrides(self) -> Mapping[str, object]:
        """What makes `config.load` check it. Raises UsageError for what is no name."""
        if not NAME.accepts(self.name):
            raise UsageError("Not a name for a host", repr(self.name), f"Allowed: {NAME.allowed}.")
        if self.fingerprint and not _FINGERPRINT.fullmatch(self.fingerprint):
            raise UsageError(
                "Not a fingerprint",
                repr(self.fingerprint),
                "It looks like SHA256:… with 43 letters and digits; ssh-keygen -l tells it.",
            )
        return {f"hosts.{self.name}.{key}": value for key, value in self.settings.items()}


def ls(loaded: Loaded, *, is_checked: bool, is_json: bool) -> int:
    """Tell every host and where it is configured; with `is_checked` also whether it answers."""
    rows = _rows(loaded)
    code = 0
    if is_checked:
        code = asyncio.run(_ask_all(rows, make_hypervisors(loaded)))
    if is_json:
        report.write_json({"file": loaded.file, "hosts": rows})
    elif rows:
        lines = [_cells(row) for row in rows]
        report.write_table(
            [name.upper() for name in lines[0]], [[*line.values()] for line in lines]
        )
    else:
        print("no hosts; try `swarm-tui host add`, or `swarm-tui demo`", file=sys.stderr)
    return code


def _rows(loaded: Loaded) -> list[dict[str, Any]]:
    rows = [
        {"name": host.name, "uri": host.uri, "where": str(loaded.sources[_key(host.name, "uri")])}
        for host in loaded.config.hosts.values()
    ]
    uri, name = local_uri(loaded.paths), local_host(loaded)
    if uri and name not in loaded.config.hosts:
        rows.append({"name": name, "uri": uri, "where": "the local swarm"})
    return rows


async def _ask_all(rows: list[dict[str, Any]], hypervisors: Sequence[Hypervisor]) -> int:
    """Put into each row whether the host answers; the exit code."""
    by_name = {hypervisor.host: hypervisor for hypervisor in hypervisors}

    async def ask(row: dict[str, Any]) -> int:
        hypervisor = by_name[row["name"]]
        row |= dict.fromkeys(_CAPACITY)
        try:
            told = await hypervisor.open(lambda hint: None)
            row |= _measure(await hypervisor.facts(), await hypervisor.list())
        except SwarmError as error:
            row |= {"state": "down", "detail": str(error)}
            return error.exit_code
        finally:
            await hypervisor.close()
        row |= {"state": "up", "detail": f"{told.driver} {told.version}, libvirt {told.library}"}
        return 0

    codes = await asyncio.gather(*map(ask, rows))
    return next(filter(None, codes), 0)


_CAPACITY: Final = (
    "cpus",
    "memory_total",
    "memory_free",
    "memory_given",
    "vcpus_given",
    "agents",
)


def _measure(facts: HostFacts, vms: Sequence[Vm]) -> Mapping[str, int | None]:
    """A host's capacity and what its agents take of it, in bytes; null for what nobody tells."""
    load = Load()
    for vm in vms:
        load.add(Agent(vm.id, vm.name, vm.host, State.UNKNOWN, None, vm=vm))
    figures = (
        facts.cpus,
        facts.memory_total,
        facts.memory_free,
        load.memory_given,
        load.vcpus_given,
        load.agents,
    )
    return dict(zip(_CAPACITY, figures, strict=True))


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table; what is told at length comes last."""
    cells = {name: row[name] for name in ("name", "uri", "where")}
    if "state" in row:
        known = {name: NOT_KNOWN if row[name] is None else f"{row[name]}" for name in _CAPACITY}
        cells |= {
            "state": row["state"],
            "cpus": known["cpus"],
            "memory": render_bytes(row["memory_total"]),
            "free": render_bytes(row["memory_free"]),
            "given": render_bytes(row["memory_given"]),
            "agents": known["agents"],
            "detail": row["detail"],
        }
    return cells


def add(loaded: Loaded, trial: Loaded, new: New, *, is_checked: bool, is_json: bool) -> int:
    """Trust the host's SSH key, write it into the configuration, and look whether it works.

    `trial` is the configuration with the new host in it. Nothing is written unless the host was
    reached and its key confirmed. What the check finds decides the exit code only.
    """
    name = HostName(new.name)
    entry = trial.config.hosts[name]
    is_new = name not in loaded.config.hosts
    if not is_new and loaded.config.hosts[name] != entry:
        raise UsageError(
            f"There is a host {name} already",
            f"{loaded.config.hosts[name].uri}, in {loaded.sources[_key(name, 'uri')]}",
            f"Choose another name, or `swarm-tui host remove {name}` first.",
        )
    key = asyncio.run(_meet(trial, entry, new)) if entry.place else None
    if is_new:
        try:
            register.enter(loaded.file, name, new.settings)
        except SwarmError:
            _forget_key(loaded, entry)
            raise
    if not is_json:
        _tell_added(loaded, entry, key, is_new=is_new)
    findings = examine_host(trial, name) if is_checked else []
    code = next((finding.exit_code for finding in findings if finding.exit_code), 0)
    if is_json:
        host = {"name": name, "uri": entry.uri, "where": loaded.file, "key": key}
        report.write_json({"host": host, "findings": findings if is_checked else None})
    else:
        report.write_findings(findings)
        if code:
            print(f"{name} is configured; mend that, then: swarm-tui host check {name}")
    return code


def _tell_added(loaded: Loaded, entry: HostEntry, key: Safe | None, *, is_new: bool) -> None:
    where = f"added to {loaded.file}" if is_new else "configured already"
    print(f"{entry.name}  {entry.uri}  {where}")
    if key:
        print(f"its SSH key is {key}")


async def _meet(trial: Loaded, entry: HostEntry, new: New) -> Safe:
    """Log in, and have every key on the way confirmed that nobody has vouched for yet.

    Returns the fingerprint of the host's. On failure what was confirmed is forgotten.
    """
    vouched: set[str] = set()
    try:
        while True:
            try:
                shown = await greet(trial, entry)
            except HostKeyUnknown as error:
                if error.entry in vouched:
                    raise
                _confirm(error, new)
                trust.vouch(trial.paths.known_hosts, error.entry, entry.place)
                vouched.add(error.entry)
            else:
                _compare(shown, new.fingerprint, entry.uri)
                return shown
    except SwarmError:
        if vouched:
            _forget_key(trial, entry)
        raise


def _confirm(error: HostKeyUnknown, new: New) -> None:
    """Raises HostDenied for another key than the one that was named, UsageError for a no."""
    shown = trust.fingerprint(error.entry)
    if new.fingerprint:
        _compare(shown, new.fingerprint, error.entry.split()[0])
        return
    if new.is_trusted:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "Nobody has confirmed the host's SSH key",
            error.detail,
            "Compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there, then add"
            f" --fingerprint {shown}; --yes takes any.",
        )
    for line in (error.title, error.detail, "On the host, `ssh-keygen -lf FILE` tells its keys in"):
        print(line, file=sys.stderr)
    print("/etc/ssh/ssh_host_*_key.pub. Type yes, or the fingerprint: ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip() not in ("yes", shown):
        raise UsageError("Nothing was done: the host's key was not confirmed")


def _compare(shown: str, named: str, place: str) -> None:
    if named and shown != named:
        raise HostDenied(
            "The host shows another SSH key than the one that was named",
            f"{place} shows {shown}.",
            "Nothing was done. Either the fingerprint is that of another of its keys, or somebody"
            " stands between. A jump on the way must be known to ~/.ssh/known_hosts.",
        )


def check(loaded: Loaded, name: str, *, is_probing: bool, is_json: bool) -> int:
    """Tell what works on one host and what does not."""
    if name not in {row["name"] for row in _rows(loaded)}:
        raise _unknown(name)
    findings = examine_host(loaded, HostName(name), is_probing=is_probing)
    _write(name, findings, is_json=is_json)
    return next((finding.exit_code for finding in findings if finding.exit_code), 0)


def _write(name: str, findings: Sequence[Finding], *, is_json: bool) -> None:
    if is_json:
        report.write_json({"host": name, "findings": findings})
    else:
        report.write_findings(findings)


def remove(loaded: Loaded, name: str, *, is_sure: bool, is_json: bool) -> int:
    """Take a host out of the configuration. Its agents and what is kept of them stay."""
    entry = loaded.config.hosts.get(HostName(name))
    if entry is None:
        raise _unknown(name)
    source = loaded.sources[_key(entry.name, "uri")]
    if source.kind != "file":
        raise UsageError(f"Host {name} does not come from the configuration file", str(source))
    kept = _kept(loaded, entry.name)
    if not is_sure:
        _ask(entry, kept)
    register.strike(loaded.file, entry.name)
    is_forgotten = _forget_key(loaded, entry)
    if is_json:
        report.write_json(
            {"removed": name, "file": loaded.file, "agents": kept, "is_key_forgotten": is_forgotten}
        )
    else:
        print(f"removed {name} from {loaded.file}")
        for line in [*map(_line, kept), *(["its SSH key is forgotten"] if is_forgotten else [])]:
            print(line)
    return 0


def _ask(entry: HostEntry, kept: Sequence[Mapping[str, Any]]) -> None:
    if not sys.stdin.isatty():
        raise UsageError("host remove needs --yes when nobody can be asked")
    print(f"Remove {entry.name} ({entry.uri}) from the configuration? Its VMs go on.")
    for row in kept:
        print(_line(row))
    if input("Type yes to go on: ").strip() != "yes":
        raise UsageError("Nothing was done")


def _kept(loaded: Loaded, name: HostName) -> list[dict[str, Any]]:
    """What is kept here of the host's agents."""
    snapshots, shelf = open_snapshots(loaded), open_shelf(loaded)
    errors: list[SwarmError] = []
    with closing(open_catalogue(loaded)) as catalogue:
        records = catalogue.records(errors.append)
    return [
        {
            "id": record.id,
            "name": record.name,
            "is_saved": record.saved_in is not None,
            "snapshots": len(snapshots.ids(record.id)),
            "reviews": len(shelf.numbers(record.id)),
        }
        for record in records
        if record.host == name
    ]


def _line(row: Mapping[str, Any]) -> str:
    state = "saved, " if row["is_saved"] else ""
    counts = f"snapshots: {row['snapshots']}, reviews: {row['reviews']}"
    return f"  agent {row['name']} ({row['id'][:8]}): {state}{counts}; all kept"


def _forget_key(loaded: Loaded, entry: HostEntry) -> bool:
    """Withdraw the trust in its key, unless another host is at the same place."""
    others = [host for host in loaded.config.hosts.values() if host.name != entry.name]
    if not entry.place or entry.place in [host.place for host in others]:
        return False
    return trust.withdraw(loaded.paths.known_hosts, entry.place) > 0


def _key(name: str, setting: str) -> str:
    return f"hosts.{name}.{setting}"


def _unknown(name: str) -> NotFound:
    return NotFound("No such host", sanitize(name), "`swarm-tui host ls` shows all.")
