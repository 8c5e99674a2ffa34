"""What would be made of what stands in the form: told before it is done."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from swarm_tui.amount import render_age, render_bytes
from swarm_tui.command import Spawn
from swarm_tui.model import HostName
from swarm_tui.placement import Forecast
from swarm_tui.profile import Ending, Life, Profile
from swarm_tui.profiles import Entry
from swarm_tui.stock import Stock
from swarm_tui.ui.facts import Fact
from swarm_tui.ui.figures import plural

NAMED: Final = 4
"""So many names are told; of more the first and the last."""
_ENDED: Final[Mapping[Ending, str]] = {
    Ending.KEEP: "kept",
    Ending.PAUSE: "paused to disk",
    Ending.END: "ended, its result kept",
}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of their chances."""

    forecast: Forecast
    image: str | None = ""
    """Why the image cannot be used; empty: it can; None: it is being looked for."""
    lacking: Sequence[str] = ()
    """Variables of our own environment that the program shall have, and that are not set."""
    stocks: Mapping[HostName, Sequence[Stock]] = field(default_factory=dict)

    @property
    def obstacle(self) -> str:
        """Why not even one can be made; empty: it can be tried."""
        if self.image:
            return self.image
        if self.lacking:
            return f"{', '.join(self.lacking)}: not set here"
        error = self.forecast.error
        return error.title if error and not self.forecast.placed else ""


def tell_prospect(commands: Sequence[Spawn], outlook: Outlook) -> Iterable[Fact]:
    """As lines, the most telling first."""
    profile = commands[0].profile
    yield Fact("makes", _tell_names(commands))
    yield from _tell_image(profile, outlook)
    yield from _tell_places(commands, outlook.forecast)
    own = Fact("work", "the image's own project", "muted")
    yield Fact("work", f"{profile.repository} at {profile.ref}") if profile.repository else own
    yield Fact("runs", shlex.join(profile.command) if profile.command else "the image's own agent")
    yield from _tell_environment(profile, outlook.lacking)
    yield from _tell_checkpoint(profile)
    yield Fact("ends", _tell_life(profile.life))
    if profile.ready:
        yield Fact("ready", _tell_ready(profile, outlook.stocks))


def tell_broken(entry: Entry) -> Iterable[Fact]:
    """What is wrong with a profile."""
    if entry.error:
        yield Fact("broken", entry.error.title, "bad")
        for line in (*entry.error.detail.split("\n"), entry.error.hint):
            yield Fact("", line)


def _tell_names(commands: Sequence[Spawn]) -> str:
    names = [command.name for command in commands]
    if not names[0]:
        told = "the next free name" + ("s" if len(names) > 1 else "")
    elif len(names) > NAMED:
        told = f"{names[0]} … {names[-1]}"
    else:
        told = ", ".join(names)
    return f"{plural(len(names), 'agent')}: {told}"


def _tell_image(profile: Profile, outlook: Outlook) -> Iterable[Fact]:
    if not profile.image:
        yield Fact("image", "swarm-tui's own", "muted", "built when it is first needed")
    elif outlook.image:
        yield Fact("image", profile.image, "bad", outlook.image)
    else:
        state = "looking for it …" if outlook.image is None else "built"
        yield Fact("image", profile.image, "text", state)


def _tell_places(commands: Sequence[Spawn], forecast: Forecast) -> Iterable[Fact]:
    placed = forecast.placed
    vcpus = plural(commands[0].profile.vcpus, "vCPU")
    disk = commands[0].profile.disk_mib
    if placed:
        each = render_bytes(placed[0].needs.guest)
        total = render_bytes(sum(one.needs.total for one in placed))
        sized = f"{vcpus}, {each} of memory"
        sized += f", {render_bytes(disk << 20)} of disk" if disk else ""
        yield Fact("size", sized, "text", f"{total} with their VMMs")
        counts = ", ".join(f"{count} on {host}" for host, count in forecast.counts.items())
        yield Fact("where", counts if len(commands) > 1 else placed[0].reason, "good")
        for host in dict.fromkeys(one.host for one in placed) if len(commands) > 1 else ():
            first = next(one for one in placed if one.host == host)
            free = (
                "free memory unknown" if first.free is None else f"{render_bytes(first.free)} free"
            )
            yield Fact("", f"{host}: {free}", "muted")
    else:
        yield Fact("size", vcpus)
    if forecast.error:
        missing = len(commands) - len(placed)
        told = f"{missing} of {len(commands)}: " if placed else ""
        yield Fact("no place", f"{told}{forecast.error.title}", "bad")
        for line in forecast.error.detail.split("\n") if forecast.error.detail else ():
            yield Fact("", line, "muted")


def _tell_environment(profile: Profile, lacking: Sequence[str]) -> Iterable[Fact]:
    # Names only: a value may be a secret wherever it comes from.
    names = [name for name, _ in profile.environment]
    names += [
        name if name == origin else f"{name} from {origin}" for name, origin in profile.inherited
    ]
    if names:
        told = f"not set here: {', '.join(lacking)}" if lacking else ""
        yield Fact("with", ", ".join(names), "bad" if lacking else "text", told)


def _tell_checkpoint(profile: Profile) -> Iterable[Fact]:
    if profile.checkpoint:
        by_time = profile.checkpoint != "off"
        told = f"one every {profile.checkpoint}" if by_time else "none by time"
        yield Fact("saved", f"checkpoints: {told}", "muted")


def _tell_life(life: Life) -> str:
    told = f"done: {_ENDED[life.on_done]} · failed: {_ENDED[life.on_failed]}"
    if life.ttl_s is None:
        return f"no end by itself · {told}"
    return f"after {render_age(life.ttl_s)}: {_ENDED[life.on_expiry]} · {told}"


def _tell_ready(profile: Profile, stocks: Mapping[HostName, Sequence[Stock]]) -> str:
    told = [
        f"{host}: {stock.missing or f'{stock.ready} of {profile.ready}'}"
        for host, kept in stocks.items()
        for stock in kept
        if stock.profile == profile.name
    ]
    return ", ".join(told) or "not looked at so far"
