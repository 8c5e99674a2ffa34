"""What each command of the command line does.

Imports stand inside the functions: each command pays for what it needs only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from swarm_tui import given
from swarm_tui.errors import UsageError


def tui(arguments: argparse.Namespace) -> int:
    from swarm_tui.bootstrap import make_supervisor
    from swarm_tui.stage import run_app

    loaded = given.load(arguments)
    supervisor = make_supervisor(loaded, connect=arguments.connect)
    return run_app(supervisor, loaded, given.shell_argv(arguments), view=arguments.view)


def ls(arguments: argparse.Namespace) -> int:
    from swarm_tui import report
    from swarm_tui.filter import parse
    from swarm_tui.store import sort_key

    chosen = parse(arguments.filter)
    seen = given.glance(arguments, given.load(arguments))
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

    return given.run(
        waiting(
            given.load(arguments),
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

    loaded = given.load(arguments)
    agent = given.glance(arguments, loaded).find(arguments.agent)
    snapshots, problem = given.run(read_snapshots(loaded, agent, arguments.connect))
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

    log = open_audit(given.load(arguments))
    if arguments.verify:
        auditing.write_proof(log, is_json=arguments.json)
    else:
        auditing.write_acts(log, arguments.agent, arguments.since, is_json=arguments.json)
    return 0


def pause(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Pause

    return given.steer(arguments, lambda agent: Pause(agent, is_quick=arguments.quick))


def checkpoint(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Checkpoint

    return given.steer(arguments, lambda agent: Checkpoint(agent, arguments.name))


def timeline(arguments: argparse.Namespace) -> int:
    from swarm_tui import past
    from swarm_tui.command import Discard, Mark

    loaded, connect = given.load(arguments), arguments.connect
    for wanted, make in (
        (
            arguments.pin,
            lambda agent, one: Mark(agent.id, one.snapshot.id, one.snapshot.title, is_pinned=True),
        ),
        (
            arguments.unpin,
            lambda agent, one: Mark(agent.id, one.snapshot.id, one.snapshot.title, is_pinned=False),
        ),
        (
            arguments.rename and arguments.rename[0],
            lambda agent, one: Mark(
                agent.id,
                one.snapshot.id,
                arguments.rename[1],
                is_pinned=one.snapshot.is_pinned,
            ),
        ),
        (arguments.discard, lambda agent, one: Discard(agent.id, one.snapshot.id)),
    ):
        if wanted:
            work = past.do(
                loaded,
                connect,
                arguments.agent,
                wanted,
                make,
                is_json=arguments.json,
                on_progress=None,
            )
            return given.run(work)
    return given.run(past.show(loaded, connect, arguments.agent, is_json=arguments.json))


def roll_back(arguments: argparse.Namespace) -> int:
    from swarm_tui import past
    from swarm_tui.command import RollBack

    return given.run(
        past.do(
            given.load(arguments),
            arguments.connect,
            arguments.agent,
            arguments.snapshot,
            lambda agent, one: RollBack(agent.id, one.snapshot.id),
            is_json=arguments.json,
            on_progress=None if arguments.json else given.tell,
        )
    )


def fork(arguments: argparse.Namespace) -> int:
    from swarm_tui import past

    return given.run(
        past.fork(given.load(arguments), arguments, None if arguments.json else given.tell)
    )


def resume(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Resume

    return given.steer(arguments, Resume)


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
        text = given.read_bytes("-").decode("utf-8", "replace")
    return given.steer(arguments, lambda agent: Say(agent, text))


def kill(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Kill

    is_one = arguments.filter is None and len(arguments.agents) == 1
    if is_one and not arguments.yes:
        if not sys.stdin.isatty():
            raise UsageError("kill needs --yes when nobody can be asked")
        agent = given.glance(arguments, given.load(arguments)).find_surely(arguments.agents[0])
        print(f"End {agent.name} on {agent.host} ({agent.state}); disk and snapshots go too.")
        if input("Type its name to go on: ") != agent.name:
            raise UsageError("Nothing was done: the name was not typed")
        # Held by its id: another agent may bear the name by now.
        arguments.agents = [agent.id]
    return given.steer(arguments, lambda agent: Kill(agent, is_graceful=arguments.graceful))


def end(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import End

    is_one = arguments.filter is None and len(arguments.agents) == 1
    if is_one and not arguments.yes:
        if not sys.stdin.isatty():
            raise UsageError("end needs --yes when nobody can be asked")
        agent = given.glance(arguments, given.load(arguments)).find_surely(arguments.agents[0])
        print(f"End {agent.name} on {agent.host} ({agent.state}); its work and log are kept.")
        if input("Type its name to go on: ") != agent.name:
            raise UsageError("Nothing was done: the name was not typed")
        arguments.agents = [agent.id]
    return given.steer(arguments, End)


def extend(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Extend
    from swarm_tui.lifespan import parse_time

    is_pinned = arguments.time == "keep"
    by_s = None if is_pinned else parse_time(arguments.time)
    arguments.agents, arguments.yes = [arguments.agent], True
    return given.steer(arguments, lambda agent: Extend(agent, by_s, is_pinned=is_pinned))


def results(arguments: argparse.Namespace) -> int:
    from swarm_tui import recalling

    return given.run(
        recalling.results(
            given.load(arguments),
            arguments.name,
            lines=max(0, arguments.lines),
            is_removed=arguments.remove,
            is_json=arguments.json,
        )
    )


def gc(arguments: argparse.Namespace) -> int:
    from swarm_tui import keeping

    loaded, connect = given.load(arguments), arguments.connect
    return given.run(keeping.gc(loaded, connect, is_dry=arguments.dry_run, is_json=arguments.json))


def pool(arguments: argparse.Namespace) -> int:
    from swarm_tui import pooling

    loaded, connect = given.load(arguments), arguments.connect
    return given.run(
        pooling.pool(
            loaded, connect, arguments.act, arguments.profile, given.tell, is_json=arguments.json
        )
    )


def spawn(arguments: argparse.Namespace) -> int:
    from swarm_tui import spawning
    from swarm_tui.profile import PLAIN
    from swarm_tui.spawns import Wish

    loaded = given.load(arguments)
    wish = Wish(
        spawning.find(loaded, arguments.profile) if arguments.profile else PLAIN,
        arguments.task,
        arguments.count,
        arguments.name,
        arguments.host or "",
        arguments.label,
        arguments.ttl,
    )
    return given.run(spawning.spawn(loaded, arguments.connect, wish, is_json=arguments.json))


def profiles(arguments: argparse.Namespace) -> int:
    from swarm_tui import spawning

    return spawning.show(given.load(arguments), arguments.name, is_json=arguments.json)


def shell(arguments: argparse.Namespace) -> int:
    from swarm_tui.attach import attach

    loaded = given.load(arguments)
    glance = given.glance(arguments, loaded)
    connect, wanted = arguments.connect, arguments.agent
    return given.run(attach(loaded, connect, glance, wanted, arguments.command, arguments.user))


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
    loaded = given.load(arguments)
    agents = listening.choose(given.glance(arguments, loaded), arguments.agents, arguments.filter)
    return given.run(listening.listen(loaded, arguments.connect, agents, wanted))


def config(arguments: argparse.Namespace) -> int:
    from swarm_tui.config import render_config, rows
    from swarm_tui.report import write_json

    loaded = given.load(arguments)
    listed = rows(loaded)
    if arguments.json:
        write_json({"file": loaded.file, "settings": listed})
    else:
        print(render_config(listed))
    return 0


def host_ls(arguments: argparse.Namespace) -> int:
    from swarm_tui import hosts

    return hosts.ls(given.load(arguments), is_checked=arguments.check, is_json=arguments.json)


def host_add(arguments: argparse.Namespace) -> int:
    from swarm_tui import hosts

    entry = {"uri": arguments.uri}
    for setting in ("identity", "guest_identity", "repository"):
        if path := getattr(arguments, setting):
            entry[setting] = path if path.startswith("~") else str(Path(path).absolute())
    if arguments.snapshots:
        entry["snapshots"] = arguments.snapshots
    new = hosts.New(arguments.name, entry, arguments.fingerprint, is_trusted=arguments.yes)
    trial = given.load(arguments, **new.overrides)
    return hosts.add(
        given.load(arguments), trial, new, is_checked=not arguments.no_check, is_json=arguments.json
    )


def host_check(arguments: argparse.Namespace) -> int:
    from swarm_tui import hosts

    return hosts.check(
        given.load(arguments), arguments.name, is_probing=arguments.probe, is_json=arguments.json
    )


def host_remove(arguments: argparse.Namespace) -> int:
    from swarm_tui import hosts

    return hosts.remove(
        given.load(arguments), arguments.name, is_sure=arguments.yes, is_json=arguments.json
    )


def image(arguments: argparse.Namespace) -> int:
    from swarm_tui import imaging

    return imaging.act(given.load(arguments), arguments)


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
        return demo.simulate(arguments.simulated, given.load(arguments), arguments.view)
    chosen = {"local.agents": arguments.agents, "local.driver": arguments.driver}
    loaded = given.load(
        arguments, **{key: value for key, value in chosen.items() if value is not None}
    )
    if arguments.down:
        return given.run(demo.down(loaded, is_json=arguments.json))
    if arguments.up:
        return given.run(demo.up(loaded, is_json=arguments.json))
    if arguments.check or arguments.json:
        from swarm_tui import rehearsal

        return given.run(rehearsal.check(loaded, is_review=arguments.review))
    return demo.show(
        loaded, given.shell_argv(arguments), is_kept=arguments.keep, view=arguments.view
    )
