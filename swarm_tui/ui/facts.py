"""What is known of one agent, number by number with its source, and its graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from swarm_tui.amount import NOT_KNOWN, render_age, render_bytes
from swarm_tui.lifespan import is_nearly_over, tell_left
from swarm_tui.model import Agent, Birth, Host, Link
from swarm_tui.profile import Ending
from swarm_tui.store import History
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.ui.bar import Inked
from swarm_tui.ui.brief import age_of, cpu_figure, cpu_top, is_off, usage_of
from swarm_tui.ui.figures import plural, render_chart, render_count, wrap
from swarm_tui.ui.ink import Ink, Line, Role, fit_line

_LABEL: Final = 11


class Fact(NamedTuple):
    """One line; an empty label and value make a heading of the source."""

    label: str
    value: str
    role: Role = "text"
    source: str = ""


def _when(at: float | None, now: float) -> str:
    if at is None:
        return NOT_KNOWN
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return f"{clock}, {render_age(now - at)} ago"


def _list_life(agent: Agent, now: float) -> Iterable[Fact]:
    """How its life ends, where a rule says so."""
    birth = agent.record.birth if agent.record else Birth()
    if birth.is_pinned:
        yield Fact("life", "no rule ends it: a person keeps it")
        return
    life, left = birth.life, tell_left(agent, now)
    if left:
        role: Role = "warning" if is_nearly_over(agent, now) else "text"
        yield Fact("life", f"{left}, then {life.on_expiry}", role)
    if (life.on_done, life.on_failed) != (Ending.KEEP, Ending.KEEP):
        yield Fact("" if left else "life", f"done: {life.on_done}; failed: {life.on_failed}")
    if birth.unkept:
        yield Fact("unkept", birth.unkept, "bad")


def _tell_parent(birth: Birth, parent: Safe) -> Safe:
    whom = parent or literal(f"{(birth.parent or '')[:8]}, which is not here any more")
    return join((whom, literal(f"at {birth.snapshot}") if birth.snapshot else EMPTY))


def list_facts(agent: Agent, host: Host | None, now: float, parent: Safe = EMPTY) -> Iterable[Fact]:
    """Who it is, where it runs, what it uses."""
    tag, vm, record = agent.tag, agent.vm, agent.record
    yield Fact("state", f"{agent.state} for {render_age(age_of(agent, now))}", "strong")
    if agent.reason:
        yield Fact("because", agent.reason)
    yield Fact("task", tag.task or "none given", "text" if tag.task else "faint")
    if agent.status and agent.status != agent.reason:
        yield Fact("status", agent.status)
    yield Fact("owner", tag.owner or NOT_KNOWN, "text" if tag.owner else "faint")
    if tag.labels:
        yield Fact("labels", join((label.text for label in tag.labels), ", "))
    yield Fact("made", _when(tag.created, now))
    if record and record.birth.parent:
        yield Fact("fork of", _tell_parent(record.birth, parent))
    yield from _list_life(agent, now)
    if agent.model:
        yield Fact("model", agent.model, source="told by the agent")
    if agent.tokens_in or agent.tokens_out:
        tokens = f"{render_count(agent.tokens_in)} in, {render_count(agent.tokens_out)} out"
        yield Fact("tokens", tokens, source="told by the agent")
    yield Fact("", "", source="Where")
    yield Fact("host", agent.host)
    if host:
        yield Fact("", host.uri, "muted")
        if host.capabilities:
            able = host.capabilities
            yield Fact("driver", f"{able.driver} {able.version}")
    yield Fact("vm", agent.id, "muted")
    if vm:
        size = f"{render_bytes(vm.memory_bytes)}, {plural(vm.vcpus, 'vCPU') if vm.vcpus else ''}"
        yield Fact("size", size.rstrip(", "))
        yield Fact("seen", _when(agent.seen or None, now))
        yield Fact("power", f"{vm.power}" + (f", {vm.reason}" if vm.reason else ""))
        for disk in vm.disks or ():
            yield Fact("disk", str(disk), "muted")
    if tag.address:
        address = tag.address
        up: Role = "good" if agent.link is Link.UP else "warning"
        yield Fact("ssh", f"{address.user}@{address.host}:{address.port}")
        heard = "" if agent.link is Link.UP else f", heard {_when(agent.heard, now)}"
        yield Fact("", f"link {agent.link}{heard}", up)
    else:
        yield Fact("ssh", "no address known", "faint")
    if record and record.saved_in:
        yield Fact("snapshot", record.saved_in)
        yield Fact("", _when(record.since, now), "muted")
    yield Fact("", "", source="Uses")
    yield from _list_usage(agent, host)


def _list_usage(agent: Agent, host: Host | None) -> Iterable[Fact]:
    usage = usage_of(agent)
    sources = dict(host.capabilities.sources) if host and host.capabilities else {}
    if usage.is_net_claimed:
        sources |= dict.fromkeys(("net_received", "net_sent"), "told by the guest itself")
    missing = host.capabilities.missing if host and host.capabilities else {}
    cpu = cpu_figure(agent)
    if is_off(agent):
        yield Fact("", "nothing: the VM is off", "muted")
        return
    for label, value, counter in (
        ("cpu", None if cpu == NOT_KNOWN else cpu, "cpu_ns"),
        ("memory", _known(usage.memory_used, render_bytes), "memory_used"),
        ("  given", _known(usage.memory_given, render_bytes), "memory_given"),
        ("  on host", _known(usage.memory_host, render_bytes), "memory_host"),
        ("net in", _rate(usage.net_received_per_s), "net_received"),
        ("net out", _rate(usage.net_sent_per_s), "net_sent"),
        ("disk read", _rate(usage.disk_read_per_s), "disk_read"),
        ("disk write", _rate(usage.disk_written_per_s), "disk_written"),
    ):
        if value is None:
            yield Fact(label, NOT_KNOWN, "faint", missing.get(counter, ""))
        else:
            yield Fact(label, value, "text", sources.get(counter, ""))


def _known(value: float | None, render: Callable[[float | None], str]) -> str | None:
    return None if value is None else render(value)


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{render_bytes(value)}/s"


class Facts(Inked, ScrollView, can_focus=True):
    """The facts as lines; a long value is wrapped, its source stands behind or beneath it."""

    DEFAULT_CSS = """
    Facts { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    def __init__(self) -> None:
        super().__init__(id="facts")
        self._facts: list[Fact] = []
        self._rows: list[tuple[tuple[str, Role], ...]] = []

    def show(self, facts: Iterable[Fact]) -> None:
        """Draw again if anything is another."""
        fresh = list(facts)
        if fresh != self._facts:
            self._facts = fresh
            self._lay_out()

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        width = max(_LABEL + 10, self.scrollable_content_region.width)
        self._rows = [row for fact in self._facts for row in _rows(fact, width - 1)]
        self.virtual_size = Size(width, len(self._rows))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        ink, width = self.ink, self.scrollable_content_region.width
        number = y + self.scroll_offset.y
        line: Line = []
        if number < len(self._rows):
            line = [Segment(text, getattr(ink, role)) for text, role in self._rows[number]]
        return Strip(fit_line([Segment(" ", ink.text), *line], width, ink.text), width)


def _rows(fact: Fact, width: int) -> Iterable[tuple[tuple[str, Role], ...]]:
    if not fact.label and not fact.value:
        yield ()
        yield ((fact.source, "accent"),)
        return
    # Paths, addresses and what drivers call themselves are no safe text yet.
    value, source = sanitize(fact.value), sanitize(fact.source)
    pieces = wrap(value, width - _LABEL)
    behind = f"  {source}" if source else ""
    fits = len(pieces) == 1 and cell_len(value + behind) <= width - _LABEL
    for place, piece in enumerate(pieces):
        label = fact.label if place == 0 else ""
        row: tuple[tuple[str, Role], ...] = ((label.ljust(_LABEL), "faint"), (piece, fact.role))
        yield (*row, (behind, "faint")) if behind and fits else row
    if behind and not fits:
        for piece in wrap(source, width - _LABEL):
            yield ((" " * _LABEL, "faint"), (piece, "faint"))


class Graphs(Inked):
    """CPU and memory over the last two minutes, side by side."""

    DEFAULT_CSS = """
    Graphs { height: 6; width: 100%; }
    """

    def __init__(self) -> None:
        super().__init__(id="graphs")
        self._agent: Agent | None = None
        self._history: History | None = None
        self._lines: list[Line] = []

    def show(self, agent: Agent, history: History | None) -> None:
        """Draw again if there is another sample."""
        was = self._agent
        if was and was.usage is agent.usage and was.vm is agent.vm:
            return
        self._agent, self._history = agent, history
        self._lines = []
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0 or not self._lines:
            self._lines = self._draw(width, self.size.height)
        line = self._lines[y] if y < len(self._lines) else []
        return Strip(fit_line(line, width, self.ink.text), width)

    def _draw(self, width: int, height: int) -> list[Line]:
        agent, history, ink = self._agent, self._history, self.ink
        if agent is None:
            return []
        half = (width - 5) // 2
        usage = usage_of(agent)
        top = cpu_top(agent, history)
        given = usage.memory_given or (agent.vm.memory_bytes if agent.vm else None) or 0
        off = is_off(agent)
        left = _chart(
            ("cpu", cpu_figure(agent), "" if off else f"of {top:.0f}%"),
            history.cpu_percent if history and not off else (),
            (half, height, top),
            ink,
            ink.cpu,
        )
        right = _chart(
            (
                "memory",
                "free" if off else render_bytes(usage.memory_used),
                f"of {render_bytes(given or None)}",
            ),
            history.memory_used if history and not off else (),
            (half, height, float(given)),
            ink,
            ink.memory,
        )
        gap = [Segment(" ", ink.text)]
        return [[*gap, *a, *gap * 3, *b, *gap] for a, b in zip(left, right, strict=True)]


def _chart(
    title: tuple[str, str, str],
    samples: Iterable[float],
    size: tuple[int, int, float],
    ink: Ink,
    style: Style,
) -> list[Line]:
    width, height, top = size
    label, value, limit = title
    head = [
        Segment(f"{label} ", ink.faint),
        Segment(value, ink.strong),
        Segment(f" {limit}" if limit else "", ink.faint),
    ]
    rows = render_chart(list(samples), width, height - 2, top)
    return [
        fit_line(head, width, ink.text),
        *([Segment(row, style)] for row in rows),
        [Segment("─" * width, ink.line)],
    ]
