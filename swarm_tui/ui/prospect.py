"""What would be made of what stands in the form: told before it is done."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from swarm_tui.amount import render_age, render_bytes
from swarm_tui.command import Spawn
from swarm_tui.label import Label
from swarm_tui.model import HostName
from swarm_tui.placement import Forecast
from swarm_tui.profile import PLAIN, Ending, Life, Profile
from swarm_tui.profiles import Entry
from swarm_tui.stock import Stock
from swarm_tui.text import EMPTY, Safe, literal
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
class Wish:
    """What stands in the form."""

    profile: Profile = PLAIN
    task: str = ""
    count: int = 1
    name: str = ""
    """Of several what each name begins with."""
    host: HostName | None = None
    labels: tuple[Label, ...] = ()
    life: Life = PLAIN.life
    """Instead of the profile's own."""

    @property
    def names(self) -> Sequence[str]:
        if self.count == 1 or not self.name:
            return [self.name] * self.count
        return [f"{self.name}-{number}" for number in range(1, self.count + 1)]

    @property
    def commands(self) -> Sequence[Spawn]:
        profile = replace(self.profile, life=self.life)
        return [Spawn(self.host, name, self.task, self.labels, profile) for name in self.names]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of the wish's chances."""

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


def tell_prospect(wish: Wish, outlook: Outlook) -> Iterable[Fact]:
    """As lines, the most telling first."""
    profile = wish.profile
    yield Fact("makes", _tell_names(wish))
    yield from _tell_image(profile, outlook)
    yield from _tell_places(wish, outlook.forecast)
    own = Fact("work", "the image's own project", "muted")
    yield Fact("work", f"{profile.repository} at {profile.ref}") if profile.repository else own
    yield Fact("runs", shlex.join(profile.command) if profile.command else "the image's own agent")
    yield from _tell_environment(profile, outlook.lacking)
    yield Fact("ends", _tell_life(wish.life))
    if profile.ready:
        yield Fact("ready", _tell_ready(profile, outlook.stocks))


def tell_broken(entry: Entry) -> Iterable[Fact]:
    """What is wrong with a profile."""
    if entry.error:
        yield Fact("broken", entry.error.title, "bad")
        for line in (*entry.error.detail.split("\n"), entry.error.hint):
            yield Fact("", line)


def _tell_names(wish: Wish) -> str:
    names = wish.names
    if not wish.name:
        told = "the next free name" + ("s" if wish.count > 1 else "")
    elif len(names) > NAMED:
        told = f"{names[0]} … {names[-1]}"
    else:
        told = ", ".join(names)
    return f"{plural(wish.count, 'agent')}: {told}"


def _tell_image(profile: Profile, outlook: Outlook) -> Iterable[Fact]:
    if not profile.image:
        yield Fact("image", "swarm-tui's own", "muted", "built when it is first needed")
    elif outlook.image:
        yield Fact("image", profile.image, "bad", outlook.image)
    else:
        state = "looking for it …" if outlook.image is None else "built"
        yield Fact("image", profile.image, "text", state)


def _tell_places(wish: Wish, forecast: Forecast) -> Iterable[Fact]:
    placed = forecast.placed
    vcpus = plural(wish.profile.vcpus, "vCPU")
    disk = wish.profile.disk_mib
    if placed:
        each = render_bytes(placed[0].needs.guest)
        total = render_bytes(sum(one.needs.total for one in placed))
        sized = f"{vcpus}, {each} of memory"
        sized += f", {render_bytes(disk << 20)} of disk" if disk else ""
        yield Fact("size", sized, "text", f"{total} with their VMMs")
        counts = ", ".join(f"{count} on {host}" for host, count in forecast.counts.items())
        yield Fact("where", counts if wish.count > 1 else placed[0].reason, "good")
        for host in dict.fromkeys(one.host for one in placed) if wish.count > 1 else ():
            first = next(one for one in placed if one.host == host)
            free = (
                "free memory unknown" if first.free is None else f"{render_bytes(first.free)} free"
            )
            yield Fact("", f"{host}: {free}", "muted")
    else:
        yield Fact("size", vcpus)
    if forecast.error:
        missing = wish.count - len(placed)
        told = f"{missing} of {wish.count}: " if placed else ""
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


def check_name(name: str) -> Safe:
    """Why no agent can have it; empty: it can."""
    if not name or re.fullmatch("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
        return EMPTY
    return literal("up to 32 of a-z, 0-9 and -")
