"""What review and verdict cost over the bare save and restore, on a real VM of a swarm of its own.

Each round changes ten files in the guest, opens a review of them, gives a verdict, and saves and
restores the same VM by libvirt alone. The example agent stands by meanwhile.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import libvirt
from figure import Figure
from verbs import QUIET_S, WAIT_S, Stopwatch, at_home, ignore, own, save_bare, until_running

from swarm_tui.bootstrap import ensure_local, local_host, make_guest, make_supervisor, open_local
from swarm_tui.command import Approve, Review, SendBack, Spawn
from swarm_tui.config import Loaded
from swarm_tui.handoff import Comment
from swarm_tui.local.accel import Mode
from swarm_tui.model import Address, Agent, Verb
from swarm_tui.ports import Guest
from swarm_tui.supervisor import Supervisor

OPEN_S: Final = 1.5
FILES: Final = 10
MEMORY_MIB: Final = 256

_OPENED: Final = "review opened"
_STAND_BY: Final = """
echo 3600 >/run/swarm/pace
until ps -o args | grep -qx 'sleep 3600'; do sleep 0.5; done
"""
"""Whatever it was about before is done then."""
_CHANGE: Final = """
set -e
cd "$1"
git reset -q --hard "$2" && git clean -qfd
for file in $(git ls-files | head -n 5); do
  printf '# round %s, line one\\n# line two\\n# line three\\n' "$3" >>"$file"
done
for number in 1 2 3 4 5; do
  printf 'Note %s of round %s.\\n' "$number" "$3" >"note-$number.txt"
done
"""


def review(_folder: Path, is_quick: bool) -> Iterator[Figure]:
    """From the command to the open review of a real VM, and back, against bare save and restore."""
    watch = Stopwatch()
    with at_home() as loaded:
        mode = asyncio.run(_measure(loaded, watch, 4 if is_quick else 10))
    yield from _figures(watch, mode)


def _figures(watch: Stopwatch, mode: Mode) -> Iterator[Figure]:
    how = (
        f"difference of medians on one VM of {MEMORY_MIB} MiB ({mode}), in turn with the bare "
        f"libvirt call on it; {FILES} files changed and not committed"
    )
    yield Figure(
        f"review of {FILES} files: command to open diff, over the bare save",
        watch.median(_OPENED) - watch.median("bare save"),
        "s",
        f"{how}; until the first file's both sides and their difference are there",
        OPEN_S,
        detail={
            **watch.medians(_OPENED, Verb.REVIEW, "save", "bare save"),
            "steps, s": watch.median_steps(Verb.REVIEW),
        },
    )
    for verb in (Verb.SEND_BACK, Verb.APPROVE):
        yield Figure(
            f"{verb}: the whole verb over the bare restore",
            watch.median(verb) - watch.median("bare restore"),
            "s",
            f"{how}; until the agent goes on with the verdict in its inbox",
            detail={
                **watch.medians(verb, "restore", "bare restore"),
                "rounds": len(watch.seconds[verb]),
                "steps, s": watch.median_steps(verb),
            },
        )


async def _measure(loaded: Loaded, watch: Stopwatch, rounds: int) -> Mode:
    uri = await asyncio.to_thread(ensure_local, loaded)
    bare = await asyncio.to_thread(libvirt.open, uri)
    guest = make_guest()
    async with open_local(loaded) as spawner:
        try:
            mode = (await spawner.prepare(ignore)).accel
            async with make_supervisor(loaded) as supervisor:
                await supervisor.connected(WAIT_S)
                await supervisor.do(Spawn(local_host(loaded)))
                (agent,) = own(supervisor, loaded)
                await _stand_by(guest, agent)
                for number in range(rounds):
                    await _change(guest, agent, number)
                    await until_running(supervisor, agent.id)
                    await asyncio.sleep(QUIET_S)
                    await _review(supervisor, agent, watch, is_approved=number % 2 == 1)
                    await until_running(supervisor, agent.id)
                    await asyncio.to_thread(save_bare, bare, agent, loaded, watch)
                    await until_running(supervisor, agent.id)
        finally:
            await guest.close()
            await spawner.down()
            await asyncio.to_thread(bare.close)
    return mode


async def _stand_by(guest: Guest, agent: Agent) -> None:
    done = await guest.run(_address(agent), _STAND_BY, timeout_s=WAIT_S)
    assert done.exit_status == 0, done.stderr


async def _change(guest: Guest, agent: Agent, number: int) -> None:
    assert agent.vm
    address = _address(agent)
    words = ("sh", "-c", _CHANGE, "sh", address.workspace, agent.vm.tag.base, str(number))
    as_owner = f'su -s /bin/sh "$(stat -c %U {shlex.quote(address.workspace)})" -c '
    done = await guest.run(address, as_owner + shlex.quote(shlex.join(words)), timeout_s=WAIT_S)
    assert done.exit_status == 0, done.stderr


async def _review(
    supervisor: Supervisor, agent: Agent, watch: Stopwatch, *, is_approved: bool
) -> None:
    with watch.lap(_OPENED):
        await watch.do(supervisor, Review(agent.id))
        reading = await supervisor.reading(agent.id)
        taken = reading.review
        diff = await reading.file(taken.changes[0])
    assert len(taken.changes) == FILES
    assert diff.spans
    reading.comment(Comment("bench", "Why?", diff.change.path, "new", 1, 1))
    for key in (taken.about, *(change.key for change in taken.changes)):
        reading.mark(key, is_viewed=True)
    await reading.close()
    await asyncio.sleep(QUIET_S)
    verdict = Approve if is_approved else SendBack
    await watch.do(supervisor, verdict(agent.id, taken.number, taken.digest))


def _address(agent: Agent) -> Address:
    assert agent.tag.address
    return agent.tag.address
