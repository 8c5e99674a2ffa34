"""What each command of the command line does.

Imports stand inside the functions: each command pays for what it needs only.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swarm_tui.errors import UsageError

if TYPE_CHECKING:
    from swarm_tui.command import Command, Verdict
    from swarm_tui.config import Loaded
    from swarm_tui.glance import Glance
    from swarm_tui.handoff import Review
    from swarm_tui.model import Agent, AgentId
    from swarm_tui.text import Safe

T = TypeVar("T")

# What the commands share


def _load(arguments: argparse.Namespace, **overrides: object) -> Loaded:
    from swarm_tui.config import load

    for setting in arguments.set:
        key, separator, value = setting.partition("=")
        if not separator:
            raise UsageError("--set needs KEY=VALUE", repr(setting))
        overrides[key] = value
    return load(overrides=overrides, file=arguments.config)


def _shell_argv(arguments: argparse.Namespace) -> Callable[[AgentId], list[str]]:
    """What the app runs to attach a shell: this program, with the same global options.

    What it says on a failure must stay until it is read: its window closes with it.
    """
    options = [option for setting in arguments.set for option in ("--set", setting)]
    if arguments.config:
        options += ["--config", str(arguments.config)]
    if arguments.connect:
        options += ["--connect", arguments.connect]
    return lambda agent: [sys.executable, "-m", "swarm_tui", *options, "shell", "--hold", agent]


def _run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(work)


def _read_bytes(path: str) -> bytes:
    """A file, or standard input for "-". Raises UsageError."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError("The file cannot be read", f"{path}: {error.strerror}") from error


def _glance(arguments: argparse.Namespace, loaded: Loaded) -> Glance:
    import asyncio

    from swarm_tui.glance import glance

    return asyncio.run(glance(loaded, arguments.connect))


def _tell(step: Safe, fraction: float | None) -> None:
    share = f" {fraction:.0%}" if fraction is not None else ""
    print(f"  {step}{share}", file=sys.stderr, flush=True)


def _act(arguments: argparse.Namespace, make: Callable[[AgentId], Command]) -> int:
    """Do one verb to one agent, and tell how the agent stands afterwards; or to many."""
    from swarm_tui.acting import act, at_agent

    if arguments.filter is not None or len(arguments.agents) > 1:
        return _act_on_many(arguments, make)
    if not arguments.agents:
        raise UsageError("Name an agent, or several, or give a --filter")
    (name,) = arguments.agents

    async def run() -> int:
        loaded, is_json = _load(arguments), arguments.json
        async with at_agent(loaded, arguments.connect, name) as (supervisor, agent):
            progress = None if is_json else _tell
            await act(supervisor, agent, make(agent.id), is_json=is_json, on_progress=progress)
        return 0

    return _run(run())


def _act_on_many(arguments: argparse.Namespace, make: Callable[[AgentId], Command]) -> int:
    from swarm_tui import acting
    from swarm_tui.command import Pause
    from swarm_tui.model import AgentId, Verb

    loaded = _load(arguments)
    seen = _glance(arguments, loaded)
    example = make(AgentId(""))
    agents = acting.choose(seen, arguments.agents, arguments.filter or "")
    is_quick = isinstance(example, Pause) and example.is_quick
    agents, denied = acting.sift(seen, example.verb, agents, is_quick=is_quick)
    if not arguments.yes:
        acting.confirm(example.verb, agents, denied, is_grave=example.verb is Verb.KILL)
    return _run(
        acting.act_on_many(
            loaded,
            arguments.connect,
            example.verb,
            agents,
            denied,
            make,
            is_json=arguments.json,
        )
    )


def wait_for_enter() -> None:
    """Leave what was said on the terminal, if there is one, until it has been read."""
    if sys.stdin.isatty():
        print("[Enter closes this] ", end="", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.readline()


# The commands


def tui(arguments: argparse.Namespace) -> int:
    from swarm_tui.bootstrap import make_supervisor
    from swarm_tui.stage import run_app

    loaded = _load(arguments)
    supervisor = make_supervisor(loaded, connect=arguments.connect)
    return run_app(supervisor, loaded, _shell_argv(arguments), view=arguments.view)


def ls(arguments: argparse.Namespace) -> int:
    from swarm_tui import report
    from swarm_tui.filter import parse
    from swarm_tui.store import sort_key

    chosen = parse(arguments.filter)
    seen = _glance(arguments, _load(arguments))
    agents = sorted(filter(chosen.matches, seen.store.agents()), key=sort_key)
    if arguments.json:
        hosts = [
            {"name": host.name, "uri": host.uri, "state": host.state, "detail": host.detail}
            for host in seen.store.hosts()
        ]
        report.write_json(
            {"agents": [report.agent_object(agent) for agent in agents], "hosts": hosts}
        )
    elif agents:
        report.write_table(report.AGENT_HEADER, [report.agent_row(agent) for agent in agents])
    elif seen.store.agents():
        print("no agent matches the filter", file=sys.stderr)
    elif not seen.errors:
        where = "on any host" if seen.store.hosts() else "and no host; try `swarm-tui demo`"
        print(f"no agents {where}", file=sys.stderr)
    for error in seen.errors:
        report.write_error(error, is_json=False)
    return seen.errors[0].exit_code if seen.errors else 0


def waiting(arguments: argparse.Namespace) -> int:
    from swarm_tui.waiting import waiting

    return _run(
        waiting(
            _load(arguments),
            arguments.connect,
            is_waited_for=arguments.wait,
            is_mine=arguments.mine,
            is_summary=arguments.summary,
            is_json=arguments.json,
        )
    )


def show(arguments: argparse.Namespace) -> int:
    from swarm_tui import report
    from swarm_tui.bootstrap import open_audit, read_snapshots

    loaded = _load(arguments)
    agent = _glance(arguments, loaded).find(arguments.agent)
    snapshots, problem = _run(read_snapshots(loaded, agent, arguments.connect))
    audit = open_audit(loaded)
    acts = audit.recent(agent.id)
    if arguments.json:
        told = [report.snapshot_object(kept) for kept in snapshots]
        more = {"snapshots": told, "acts": report.plain(acts)}
        report.write_json(report.agent_object(agent) | more)
    else:
        report.write_agent(agent, snapshots, acts)
    for gap in filter(None, (problem, audit.gap)):  # what is known is shown all the same
        report.write_error(gap, is_json=False)
    return 0


def audit(arguments: argparse.Namespace) -> int:
    from swarm_tui import auditing
    from swarm_tui.bootstrap import open_audit

    log = open_audit(_load(arguments))
    if arguments.verify:
        auditing.write_proof(log, is_json=arguments.json)
    else:
        auditing.write_acts(log, arguments.agent, arguments.since, is_json=arguments.json)
    return 0


def pause(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Pause

    return _act(arguments, lambda agent: Pause(agent, is_quick=arguments.quick))


def resume(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Resume

    return _act(arguments, Resume)


def message(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Say

    arguments.agents = [arguments.agents] if arguments.agents else []
    if arguments.filter is not None:  # then nobody is named: the first word is of the text
        arguments.text = [*arguments.agents, *arguments.text]
        arguments.agents = []
    text = " ".join(arguments.text)
    if not text:
        raise UsageError("Say what to write")
    if text == "-":
        text = _read_bytes("-").decode("utf-8", "replace")
    return _act(arguments, lambda agent: Say(agent, text))


def kill(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Kill

    is_one = arguments.filter is None and len(arguments.agents) == 1
    if is_one and not arguments.yes:
        if not sys.stdin.isatty():
            raise UsageError("kill needs --yes when nobody can be asked")
        agent = _glance(arguments, _load(arguments)).find_surely(arguments.agents[0])
        print(f"End {agent.name} on {agent.host} ({agent.state}); disk and snapshots go too.")
        if input("Type its name to go on: ") != agent.name:
            raise UsageError("Nothing was done: the name was not typed")
        # Held by its id: another agent may bear the name by now.
        arguments.agents = [agent.id]
    return _act(arguments, lambda agent: Kill(agent, is_graceful=arguments.graceful))


def review(arguments: argparse.Namespace) -> int:
    from swarm_tui import reviewing

    is_quiet = arguments.json or arguments.patch
    return _run(
        reviewing.review(
            _load(arguments),
            arguments.connect,
            arguments.agent,
            is_json=arguments.json,
            is_patch=arguments.patch,
            on_progress=None if is_quiet else _tell,
        )
    )


def _judge(
    arguments: argparse.Namespace, make: Callable[[Agent, Review, str], Verdict], comments: str = ""
) -> int:
    from swarm_tui import reviewing

    def decide(agent: Agent, taken: Review) -> Verdict:
        seen = reviewing.digest_of(arguments.digest, taken) if arguments.digest else taken.digest
        return make(agent, taken, seen)

    return _run(
        reviewing.judge(
            _load(arguments),
            arguments.connect,
            arguments.agent,
            decide,
            comments=_read_bytes(comments) if comments else b"",
            is_all_seen=getattr(arguments, "flags_seen", False),
            is_json=arguments.json,
            on_progress=None if arguments.json else _tell,
        )
    )


def approve(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Approve

    return _judge(
        arguments,
        lambda agent, taken, seen: Approve(agent.id, taken.number, seen, arguments.message),
    )


def send_back(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import SendBack

    return _judge(
        arguments,
        lambda agent, taken, seen: SendBack(agent.id, taken.number, seen, arguments.message),
        arguments.comments or "",
    )


def reject(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Reject

    return _judge(
        arguments,
        lambda agent, taken, seen: Reject(
            agent.id, taken.number, seen, arguments.message, is_kept=not arguments.kill
        ),
    )


def verify(arguments: argparse.Namespace) -> int:
    from swarm_tui import reviewing

    return _run(
        reviewing.verify(
            _load(arguments),
            arguments.branch,
            arguments.repository.absolute(),
            is_json=arguments.json,
        )
    )


def spawn(arguments: argparse.Namespace) -> int:
    from swarm_tui.acting import CONNECT_S
    from swarm_tui.bootstrap import make_supervisor
    from swarm_tui.command import Spawn
    from swarm_tui.label import make_labels
    from swarm_tui.model import HostName
    from swarm_tui.report import agent_object, write_json

    labels = make_labels(arguments.label)
    host = HostName(arguments.host) if arguments.host else None

    async def act() -> int:
        supervisor = make_supervisor(
            _load(arguments), connect=arguments.connect, is_following=False
        )
        async with supervisor:
            await supervisor.connected(CONNECT_S)
            before = {agent.id for agent in supervisor.store.agents()}
            done = await supervisor.do(
                Spawn(host, arguments.name, arguments.task, labels),
                None if arguments.json else _tell,
            )
            new = [agent for agent in supervisor.store.agents() if agent.id not in before]
            if arguments.json:
                write_json({"done": done, "agents": [agent_object(agent) for agent in new]})
            else:
                print(done)
        return 0

    return _run(act())


def shell(arguments: argparse.Namespace) -> int:
    from swarm_tui.attach import attach

    loaded = _load(arguments)
    glance = _glance(arguments, loaded)
    connect, wanted = arguments.connect, arguments.agent
    return _run(attach(loaded, connect, glance, wanted, arguments.command, arguments.user))


def logs(arguments: argparse.Namespace) -> int:
    from swarm_tui import listening
    from swarm_tui.journal import Stamps

    if not arguments.agents and arguments.filter is None:
        raise UsageError("Name an agent, or several, or give a --filter")
    wanted = listening.Wanted(
        max(0, arguments.lines),
        arguments.follow,
        arguments.grep,
        listening.parse_span(arguments.since) if arguments.since else None,
        arguments.asks,
        Stamps(arguments.timestamps),
        arguments.json,
        arguments.export,
    )
    loaded = _load(arguments)
    agents = listening.choose(_glance(arguments, loaded), arguments.agents, arguments.filter)
    return _run(listening.listen(loaded, arguments.connect, agents, wanted))


def config(arguments: argparse.Namespace) -> int:
    from swarm_tui.config import render_config, rows
    from swarm_tui.report import write_json

    loaded = _load(arguments)
    listed = rows(loaded)
    if arguments.json:
        write_json({"file": loaded.file, "settings": listed})
    else:
        print(render_config(listed))
    return 0


def host_ls(arguments: argparse.Namespace) -> int:
    from swarm_tui import hosts

    return hosts.ls(_load(arguments), is_checked=arguments.check, is_json=arguments.json)


def host_add(arguments: argparse.Namespace) -> int:
    from swarm_tui import hosts

    given = {"uri": arguments.uri}
    for setting in ("identity", "guest_identity", "repository"):
        if path := getattr(arguments, setting):
            given[setting] = path if path.startswith("~") else str(Path(path).absolute())
    if arguments.snapshots:
        given["snapshots"] = arguments.snapshots
    new = hosts.New(arguments.name, given, arguments.fingerprint, is_trusted=arguments.yes)
    trial = _load(arguments, **new.overrides)
    return hosts.add(
        _load(arguments), trial, new, is_checked=not arguments.no_check, is_json=arguments.json
    )


def host_check(arguments: argparse.Namespace) -> int:
    from swarm_tui import hosts

    return hosts.check(
        _load(arguments), arguments.name, is_probing=arguments.probe, is_json=arguments.json
    )


def host_remove(arguments: argparse.Namespace) -> int:
    from swarm_tui import hosts

    return hosts.remove(
        _load(arguments), arguments.name, is_sure=arguments.yes, is_json=arguments.json
    )


def doctor(arguments: argparse.Namespace) -> int:
    from swarm_tui.doctor import examine
    from swarm_tui.report import write_findings, write_json

    findings = examine(arguments.config, is_probing=arguments.probe)
    if arguments.json:
        write_json(findings)
    else:
        write_findings(findings)
    return 12 if any(finding.level == "fail" for finding in findings) else 0


def demo(arguments: argparse.Namespace) -> int:
    from swarm_tui import demo

    if arguments.simulated is not None:
        return demo.simulate(arguments.simulated, _load(arguments), arguments.view)
    given = {"local.agents": arguments.agents, "local.driver": arguments.driver}
    loaded = _load(arguments, **{key: value for key, value in given.items() if value is not None})
    if arguments.down:
        return _run(demo.down(loaded, is_json=arguments.json))
    if arguments.up:
        return _run(demo.up(loaded, is_json=arguments.json))
    if arguments.check or arguments.json:
        from swarm_tui import rehearsal

        return _run(rehearsal.check(loaded, is_review=arguments.review))
    return demo.show(loaded, _shell_argv(arguments), is_kept=arguments.keep, view=arguments.view)
