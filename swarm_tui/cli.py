"""The command line: the app's verbs for scripts and other programs, each with --json.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 no such agent · 4 refused by policy ·
5 host out of reach · 6 guest out of reach · 7 no answer in time, outcome unknown ·
8 configuration · 9 snapshot · 10 no room · 11 audit log · 12 set-up incomplete.
`shell AGENT -- CMD` passes on the command's own code.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swarm_tui import __version__
from swarm_tui.errors import NotFound, SwarmError, UsageError

if TYPE_CHECKING:
    from swarm_tui.command import Command
    from swarm_tui.config import Loaded
    from swarm_tui.glance import Glance
    from swarm_tui.model import Agent, AgentId
    from swarm_tui.text import Safe

CONNECT_S: Final = 15.0
EXIT_CODES: Final = "\n".join((__doc__ or "").splitlines()[2:])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    # What follows -- is another program's; argparse would read options in it.
    own = given[: given.index("--")] if "--" in given else given
    arguments = build_parser().parse_args(own)
    arguments.command = given[len(own) + 1 :]
    is_json: bool = getattr(arguments, "json", False)
    try:
        return int(arguments.run(arguments))
    except SwarmError as error:
        from swarm_tui.report import write_error

        write_error(error, is_json=is_json)
        if getattr(arguments, "hold", False):
            _wait_for_enter()
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be told to them.
        sys.stderr.close()
        return 141


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarm-tui",
        description="Supervise a swarm of AI coding agents, each in a microVM of its own.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"swarm-tui {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="another configuration file")
    parser.add_argument(
        "--connect", metavar="URI", help="this libvirt host only, e.g. qemu:///system"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting for this run, e.g. ui.theme=daylight",
    )
    parser.set_defaults(run=_tui)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], int], summary: str, *, agent: bool = False
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        if agent:
            command.add_argument("agent", help="name, HOST/NAME, id, or the id's beginning")
        if name != "shell":
            command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return command

    add("ls", _ls, "list the agents of all hosts")
    add("show", _show, "everything known of one agent", agent=True)
    pause = add("pause", _pause, "pause an agent to a snapshot, freeing its memory", agent=True)
    pause.add_argument("--quick", action="store_true", help="only stop its vCPUs; nothing is saved")
    add("resume", _resume, "let an agent go on exactly where it stood", agent=True)
    kill = add("kill", _kill, "end an agent; its disk and snapshots go too", agent=True)
    kill.add_argument("--yes", action="store_true", help="do not ask")
    shell = add("shell", _shell, "a shell in an agent's VM, or one command", agent=True)
    shell.add_argument("--user", help="log in as USER instead of the agent's own user")
    shell.add_argument(
        "--hold", action="store_true", help="when no shell can be had, wait for Enter at the end"
    )
    shell.usage = "swarm-tui shell [-h] [--user USER] [--hold] AGENT [-- COMMAND…]"
    logs = add("logs", _logs, "an agent's log", agent=True)
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    logs.add_argument("-n", "--lines", type=int, default=200, help="how many to begin with (200)")
    spawn = add("spawn", _spawn, "make a new agent")
    spawn.add_argument("--host", help="on which host; default: the only one that can")
    spawn.add_argument("--name", default="", help="default: the next free name")
    spawn.add_argument("--task", default="", help="what it shall do")
    add("config", _config, "every setting, its value, and where the value came from")
    add("doctor", _doctor, "find what is missing or broken before it hurts")
    demo = add("demo", _demo, "bring up a local swarm of real VMs and watch it")
    demo.add_argument("--agents", type=int, metavar="N", help="how many (default 3)")
    demo.add_argument("--up", action="store_true", help="no screen: bring it up and leave it so")
    demo.add_argument("--keep", action="store_true", help="leave the swarm running afterwards")
    demo.add_argument("--down", action="store_true", help="end a swarm that was kept")
    demo.add_argument("--check", action="store_true", help="no screen: prove that all of it works")
    demo.add_argument(
        "--simulated", type=int, metavar="N", help="N pretended agents in memory; nothing is real"
    )
    return parser


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


def _run(work: Coroutine[Any, Any, int]) -> int:
    import asyncio

    return asyncio.run(work)


def _glance(arguments: argparse.Namespace, loaded: Loaded) -> Glance:
    import asyncio

    from swarm_tui.glance import glance

    return asyncio.run(glance(loaded, arguments.connect))


def _tell(step: Safe, fraction: float | None) -> None:
    share = f" {fraction:.0%}" if fraction is not None else ""
    print(f"  {step}{share}", file=sys.stderr, flush=True)


def _act(arguments: argparse.Namespace, make: Callable[[Agent], Command]) -> int:
    """Do one verb to one agent, and tell how the agent stands afterwards."""
    from swarm_tui.bootstrap import make_supervisor
    from swarm_tui.glance import find, is_named_fully
    from swarm_tui.report import agent_object, write_json

    async def act() -> int:
        supervisor = make_supervisor(
            _load(arguments), connect=arguments.connect, is_following=False
        )
        async with supervisor:
            agents = supervisor.store.agents
            await supervisor.connected(CONNECT_S, lambda: is_named_fully(agents(), arguments.agent))
            agent = find(agents(), arguments.agent)
            if agent is None:
                raise NotFound("No such agent", arguments.agent, "`swarm-tui ls` shows all.")
            done = await supervisor.do(make(agent), None if arguments.json else _tell)
            now = supervisor.store.agent(agent.id)
            if arguments.json:
                write_json({"done": done, "agent": agent_object(now) if now else None})
            else:
                print(f"{agent.name}: {done}")
        return 0

    return _run(act())


def _wait_for_enter() -> None:
    """Leave what was said on the terminal, if there is one, until it has been read."""
    if sys.stdin.isatty():
        print("[Enter closes this] ", end="", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.readline()


# The commands


def _tui(arguments: argparse.Namespace) -> int:
    from swarm_tui.bootstrap import make_supervisor, run_app

    loaded = _load(arguments)
    supervisor = make_supervisor(loaded, connect=arguments.connect)
    return run_app(supervisor, loaded, _shell_argv(arguments))


def _ls(arguments: argparse.Namespace) -> int:
    from swarm_tui import report
    from swarm_tui.store import sort_key

    seen = _glance(arguments, _load(arguments))
    agents = sorted(seen.store.agents(), key=sort_key)
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
    elif not seen.errors:
        where = "on any host" if seen.store.hosts() else "and no host; try `swarm-tui demo`"
        print(f"no agents {where}", file=sys.stderr)
    for error in seen.errors:
        report.write_error(error, is_json=False)
    return seen.errors[0].exit_code if seen.errors else 0


def _show(arguments: argparse.Namespace) -> int:
    from swarm_tui import report
    from swarm_tui.bootstrap import open_audit, open_snapshots

    loaded = _load(arguments)
    agent = _glance(arguments, loaded).find(arguments.agent)
    folder = open_snapshots(loaded)
    snapshots = [folder.read(agent.id, snapshot) for snapshot in folder.ids(agent.id)]
    acts = open_audit(loaded).recent(agent.id)
    if arguments.json:
        more = {"snapshots": report.plain(snapshots), "acts": report.plain(acts)}
        report.write_json(report.agent_object(agent) | more)
    else:
        report.write_agent(agent, snapshots, acts)
    return 0


def _pause(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Pause

    return _act(arguments, lambda agent: Pause(agent.id, is_quick=arguments.quick))


def _resume(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Resume

    return _act(arguments, lambda agent: Resume(agent.id))


def _kill(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Kill

    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UsageError("kill needs --yes when nobody can be asked")
        agent = _glance(arguments, _load(arguments)).find_surely(arguments.agent)
        print(f"End {agent.name} on {agent.host} ({agent.state}); disk and snapshots go too.")
        if input("Type its name to go on: ") != agent.name:
            raise UsageError("Nothing was done: the name was not typed")
        # Held by its id: another agent may bear the name by now.
        arguments.agent = agent.id
    return _act(arguments, lambda agent: Kill(agent.id))


def _spawn(arguments: argparse.Namespace) -> int:
    from swarm_tui.bootstrap import make_supervisor
    from swarm_tui.command import Spawn
    from swarm_tui.model import HostName
    from swarm_tui.report import agent_object, write_json

    async def act() -> int:
        supervisor = make_supervisor(
            _load(arguments), connect=arguments.connect, is_following=False
        )
        async with supervisor:
            await supervisor.connected(CONNECT_S)
            hosts = supervisor.spawners()
            if not arguments.host and len(hosts) != 1:
                raise UsageError(
                    "Say where with --host",
                    f"Hosts that can make agents: {', '.join(hosts) or 'none'}.",
                    "`swarm-tui demo --keep` sets up a local one.",
                )
            before = {agent.id for agent in supervisor.store.agents()}
            done = await supervisor.do(
                Spawn(HostName(arguments.host or hosts[0]), arguments.name, arguments.task),
                None if arguments.json else _tell,
            )
            new = [agent for agent in supervisor.store.agents() if agent.id not in before]
            if arguments.json:
                write_json({"done": done, "agents": [agent_object(agent) for agent in new]})
            else:
                print(done)
        return 0

    return _run(act())


def _shell(arguments: argparse.Namespace) -> int:
    from swarm_tui.attach import attach

    loaded = _load(arguments)
    glance = _glance(arguments, loaded)
    return _run(attach(loaded, glance, arguments.agent, arguments.command, arguments.user))


def _logs(arguments: argparse.Namespace) -> int:
    from swarm_tui.attach import follow_log

    loaded = _load(arguments)
    agent = _glance(arguments, loaded).find(arguments.agent)
    return _run(
        follow_log(
            loaded,
            agent,
            lines=arguments.lines,
            is_following=arguments.follow,
            is_json=arguments.json,
        )
    )


def _config(arguments: argparse.Namespace) -> int:
    from swarm_tui.config import render_config, rows
    from swarm_tui.report import write_json

    loaded = _load(arguments)
    listed = rows(loaded)
    if arguments.json:
        write_json({"file": loaded.file, "settings": listed})
    else:
        print(render_config(listed))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from swarm_tui.doctor import examine
    from swarm_tui.report import write_json

    findings = examine(arguments.config)
    if arguments.json:
        write_json(findings)
    else:
        for finding in findings:
            print(f"{finding.level:4}  {finding.name}: {finding.what}")
            for line in (finding.why, finding.remedy):
                if line and finding.level != "ok":
                    print(f"      {line}")
    return 12 if any(finding.level == "fail" for finding in findings) else 0


def _demo(arguments: argparse.Namespace) -> int:
    from swarm_tui import demo

    if arguments.simulated is not None:
        return demo.simulate(arguments.simulated, _load(arguments))
    overrides = {} if arguments.agents is None else {"local.agents": arguments.agents}
    loaded = _load(arguments, **overrides)
    if arguments.down:
        return _run(demo.down(loaded, is_json=arguments.json))
    if arguments.up:
        return _run(demo.up(loaded, is_json=arguments.json))
    if arguments.check or arguments.json:
        return _run(demo.check(loaded))
    return demo.show(loaded, _shell_argv(arguments), is_kept=arguments.keep)
