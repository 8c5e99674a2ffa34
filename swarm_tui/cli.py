"""The command line: the app's verbs for scripts and other programs, each with --json.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 no such agent · 4 refused by policy ·
5 host out of reach · 6 guest out of reach · 7 no answer in time, outcome unknown ·
8 configuration · 9 snapshot · 10 no room · 11 audit log · 12 set-up incomplete ·
13 not reviewable, or a verdict is void · 14 signature · 15 shared store · 16 foreign image.
`shell AGENT -- CMD` passes on the command's own code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from swarm_tui import __version__, commands, judging
from swarm_tui.errors import SwarmError
from swarm_tui.given import wait_for_enter

EXIT_CODES: Final = "\n".join((__doc__ or "").splitlines()[2:])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # What follows -- is another program's; argparse would read options in it.
    own = words[: words.index("--")] if "--" in words else words
    arguments = build_parser().parse_args(own)
    arguments.command = words[len(own) + 1 :]
    is_json: bool = getattr(arguments, "json", False)
    try:
        return int(arguments.run(arguments))
    except SwarmError as error:
        from swarm_tui.report import write_error

        write_error(error, is_json=is_json)
        if getattr(arguments, "hold", False):
            wait_for_enter()
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
    parser.add_argument(
        "--view", default="", metavar="NAME", help="begin with this view of the fleet"
    )
    parser.set_defaults(run=commands.tui)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(
        name: str,
        run: Callable[[argparse.Namespace], int],
        summary: str,
        *,
        agent: bool = False,
        agents: str = "",
        asks: bool = True,
    ) -> argparse.ArgumentParser:
        """`agents`: how many may be named, as argparse has it; then a filter may do it, too."""
        command = subparsers.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        who = "name, HOST/NAME, id, or the id's beginning"
        if agent:
            command.add_argument("agent", help=who)
        if agents:
            command.add_argument("agents", nargs=agents, metavar="AGENT", help=who)
            command.add_argument(
                "--filter", metavar="FILTER", help="all that it lets through; see `ls --filter`"
            )
            if asks:
                command.add_argument("--yes", action="store_true", help="do not ask")
        if name != "shell":
            command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return command

    ls = add("ls", commands.ls, "list the agents of all hosts")
    ls.add_argument("--filter", default="", metavar="FILTER", help="e.g. 'state:asking host:lab'")
    waiting = add("waiting", commands.waiting, "what waits for you, the oldest first; 1: nothing")
    waiting.add_argument("--wait", action="store_true", help="look on until something waits")
    waiting.add_argument("--mine", action="store_true", help="only what concerns your own agents")
    waiting.add_argument(
        "--summary", action="store_true", help="one line of counts, for a status bar"
    )
    add("show", commands.show, "everything known of one agent", agent=True)
    pause = add(
        "pause", commands.pause, "pause agents to snapshots, freeing their memory", agents="*"
    )
    pause.add_argument("--quick", action="store_true", help="only stop its vCPUs; nothing is saved")
    add("resume", commands.resume, "let agents go on exactly where they stood", agents="*")
    checkpoint = add(
        "checkpoint", commands.checkpoint, "keep snapshots of agents that go on", agents="*"
    )
    checkpoint.add_argument("--name", default="", help="what to call it; a named one stays")
    timeline = add("timeline", commands.timeline, "an agent's snapshots, in order", agent=True)
    marks = timeline.add_mutually_exclusive_group()
    marks.add_argument("--pin", metavar="SNAPSHOT", help="no rule removes it")
    marks.add_argument("--unpin", metavar="SNAPSHOT", help="the rules hold for it again")
    marks.add_argument("--rename", nargs=2, metavar=("SNAPSHOT", "NAME"), help='"": no name')
    marks.add_argument("--discard", metavar="SNAPSHOT", help="remove it")
    roll_back = add(
        "roll-back", commands.roll_back, "back to a snapshot; the present is kept", agent=True
    )
    roll_back.add_argument("snapshot", help="its id, the id's beginning, or its name")
    fork = add("fork", commands.fork, "more agents that go on from where one stands", agent=True)
    fork.add_argument("--count", type=int, default=1, metavar="N", help="how many (1)")
    fork.add_argument("--name", default="", metavar="PREFIX", help="NAME-1, NAME-2…")
    fork.add_argument("--task", default="", help="what they shall do; else what it does")
    fork.add_argument("--snapshot", default="", help="where they begin: id, its beginning, or name")
    message = add("message", commands.message, "write to an agent's inbox", agents="?")
    message.add_argument("text", nargs="*", help="what to say; - reads standard input")
    _add_review_commands(add)
    kill = add("kill", commands.kill, "end agents; their disks and snapshots go too", agents="*")
    kill.add_argument(
        "--graceful", action="store_true", help="let its guest shut down first, for up to 15 s"
    )
    add("end", commands.end, "keep what came of agents, then end their VMs", agents="*")
    extend = add("extend", commands.extend, "give an agent more time", agent=True)
    extend.add_argument(
        "time", metavar="TIME", help="e.g. 30m, 2h, 3d; never: no end; keep: no rule ends it"
    )
    extend.set_defaults(filter=None)
    results = add("results", commands.results, "what was kept of ended agents")
    results.add_argument("name", nargs="?", default="", help="of one: its name or id")
    results.add_argument("-n", "--lines", type=int, default=20, help="of its log to show (20)")
    results.add_argument("--remove", action="store_true", help="forget it, and remove its log")
    gc = add("gc", commands.gc, "remove what nobody needs any more, and end whom a rule ends")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go, and why")
    shell = add("shell", commands.shell, "a shell in an agent's VM, or one command", agent=True)
    shell.add_argument("--user", help="log in as USER instead of the agent's own user")
    shell.add_argument(
        "--hold", action="store_true", help="when no shell can be had, wait for Enter at the end"
    )
    shell.usage = "swarm-tui shell [-h] [--user USER] [--hold] AGENT [-- COMMAND…]"
    _add_logs(add("logs", commands.logs, "what agents said, merged", agents="*", asks=False))
    pool = add("pool", commands.pool, "agents that profiles keep ready: list, fill or drain them")
    pool.add_argument("act", nargs="?", choices=("list", "fill", "drain"), default="list")
    pool.add_argument("profile", nargs="?", default="", help="default: all that keep any")
    spawn = add("spawn", commands.spawn, "make new agents")
    spawn.add_argument(
        "profile", nargs="?", default="", metavar="PROFILE", help="of what; `profiles` lists them"
    )
    spawn.add_argument("--count", type=int, default=1, metavar="N", help="how many (1)")
    spawn.add_argument("--host", help="on which host; default: by free memory, and spread")
    spawn.add_argument(
        "--name", default="", help="of several: what their names begin with; default: free ones"
    )
    spawn.add_argument("--task", default="", help="what they shall do")
    spawn.add_argument(
        "--ttl",
        default="",
        metavar="TIME",
        help="their time, e.g. 2h, or never; else the profile's",
    )
    spawn.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="a mark to find it by; may be given again",
    )
    profiles = add("profiles", commands.profiles, "what agents can be made of, or one in full")
    profiles.add_argument("name", nargs="?", default="", metavar="PROFILE")
    audit = add("audit", commands.audit, "who did what to which agent, and how it ended")
    audit.add_argument("--agent", default="", metavar="AGENT", help="only what was done to it")
    audit.add_argument(
        "--since", default="", metavar="TIME", help="all since then, e.g. 2h, 3d, 2026-11-23"
    )
    audit.add_argument("--verify", action="store_true", help="check that nothing was altered")
    add("config", commands.config, "every setting, its value, and where the value came from")
    doctor = add("doctor", commands.doctor, "find what is missing or broken before it hurts")
    doctor.add_argument(
        "--probe",
        action="store_true",
        help="also start, save, restore and remove a small VM on each Cloud Hypervisor host",
    )
    _add_host_commands(subparsers)
    _add_image_commands(subparsers)
    demo = add("demo", commands.demo, "bring up a local swarm of real VMs and watch it")
    demo.add_argument("--agents", type=int, metavar="N", help="how many (default 3)")
    demo.add_argument(
        "--driver", choices=("auto", "ch", "qemu"), help="what runs the VMs (local.driver)"
    )
    demo.add_argument("--up", action="store_true", help="no screen: bring it up and leave it so")
    demo.add_argument("--keep", action="store_true", help="leave the swarm running afterwards")
    demo.add_argument("--down", action="store_true", help="end a swarm that was kept")
    demo.add_argument("--check", action="store_true", help="no screen: prove that all of it works")
    demo.add_argument("--review", action="store_true", help="with --check: a whole review instead")
    demo.add_argument(
        "--simulated", type=int, metavar="N", help="N pretended agents in memory; nothing is real"
    )
    return parser


def _add_logs(logs: argparse.ArgumentParser) -> None:
    add = logs.add_argument
    add("-f", "--follow", action="store_true", help="go on as lines come")
    add("-n", "--lines", type=int, default=200, help="how many to begin with (200)")
    add("--grep", default="", metavar="RE", help="only lines that match; small letters: any case")
    add("--since", metavar="SPAN", help="only what was said within 90s, 10m, 2h or 3d")
    add("--asks", action="store_true", help="only where a human was asked")
    add(
        "--timestamps",
        choices=("clock", "relative", "date", "claimed", "off"),
        default="clock",
        help="what stands before each line (clock)",
    )
    add(
        "--export",
        type=Path,
        metavar="FILE",
        help="write all lines into a new file: text, or JSON lines if it ends in .jsonl",
    )


def _add_host_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "add, list, check and remove libvirt hosts"
    host = subparsers.add_parser("host", help=summary, description=summary)
    verbs = host.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], summary: str, *, host: bool = True
    ) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        if host:
            command.add_argument("name", metavar="NAME", help="what the host is called here")
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return command

    ls = add("ls", commands.host_ls, "every host, and where it is configured", host=False)
    ls.add_argument(
        "--check", action="store_true", help="also whether it answers, and its capacity"
    )
    new = add("add", commands.host_add, "trust a host's SSH key, configure the host, and check it")
    new.add_argument("uri", metavar="URI", help="e.g. ch+ssh://me@lab/system or qemu:///system")
    new.add_argument("--identity", metavar="FILE", help="private key to log in to the host")
    new.add_argument("--guest-identity", metavar="FILE", help="private key for its agents")
    new.add_argument("--repository", metavar="DIR", help="where its agents' work lands")
    new.add_argument("--snapshots", metavar="DIR", help="where they are kept on that host")
    new.add_argument(
        "--fingerprint",
        default="",
        metavar="SHA256:…",
        help="of the SSH key that the host must show; nobody is asked",
    )
    new.add_argument("--yes", action="store_true", help="trust whatever key it shows")
    new.add_argument("--no-check", action="store_true", help="do not look whether it works")
    check = add("check", commands.host_check, "what works on a host, and what does not")
    check.add_argument(
        "--probe", action="store_true", help="also start, save, restore and remove a small VM"
    )
    remove = add(
        "remove", commands.host_remove, "forget a host; its VMs and what is kept of them stay"
    )
    remove.add_argument("--yes", action="store_true", help="do not ask")


def _add_image_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "build, list, inspect and remove images for agents, from OCI images"
    image = subparsers.add_parser("image", help=summary, description=summary)
    verbs = image.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(verb: str, summary: str, operand: str = "") -> argparse.ArgumentParser:
        command = verbs.add_parser(verb, help=summary, description=summary)
        command.set_defaults(run=commands.image, verb=verb)
        if operand:
            command.add_argument("operand", metavar=operand)
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return command

    build = add("build", "oci:DIR:TAG, docker-archive:FILE or debian:12, made bootable", "SOURCE")
    build.add_argument("--name", default="", help="what profiles call it; default: by the source")
    add("list", "every image, and how many agents use it")
    add("inspect", "what an image is made of, and what was changed in it", "NAME")
    add("remove", "remove an image that nothing uses", "NAME")


def _add_review_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    review = add(
        "review", judging.review, "freeze an agent, save it, and show its work", agent=True
    )
    review.add_argument("--patch", action="store_true", help="the patch alone, for another tool")
    compare = add("compare", judging.compare, "what two agents have done until now, file by file")
    compare.add_argument("a", metavar="A", help="name or id")
    compare.add_argument("b", metavar="B", help="name or id")
    compare.add_argument("--patch", action="store_true", help="only a patch from A's files to B's")
    approve = add(
        "approve", judging.approve, "land what was reviewed, and resume the agent", agent=True
    )
    approve.add_argument("--digest", required=True, help="of what you have seen: `review` tells it")
    approve.add_argument(
        "--flags-seen", action="store_true", help="you have looked at every flagged change"
    )
    send_back = add(
        "send-back", judging.send_back, "resume the agent with your comments", agent=True
    )
    send_back.add_argument(
        "--comments",
        metavar="FILE",
        help="lines PATH:LINE: TEXT, or a JSON list; - reads standard input",
    )
    reject = add("reject", judging.reject, "refuse what was reviewed", agent=True)
    reject.add_argument("--kill", action="store_true", help="end the agent instead of resuming it")
    for command in (approve, send_back, reject):
        command.add_argument("--message", default="", metavar="TEXT", help="to the agent")
    for command in (send_back, reject):
        command.add_argument("--digest", default="", help="refuse when the review is another one")
    verify = add("verify", judging.verify, "prove a landed branch against its signed verdict")
    verify.add_argument("branch", help="e.g. swarm/agent-01/3")
    verify.add_argument(
        "--repository", type=Path, default=Path(), metavar="DIR", help="default: this folder"
    )
