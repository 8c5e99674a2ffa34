"""`swarm-tui logs`: several logs as one, chosen, stamped, followed and exported."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm_tui import listening, spool
from swarm_tui.config import Loaded, load
from swarm_tui.errors import GuestUnreachable, HostUnreachable, NotFound, UsageError
from swarm_tui.fact import VmSeen
from swarm_tui.glance import Glance
from swarm_tui.journal import Stamps
from swarm_tui.listening import Wanted, choose, listen, parse_span
from swarm_tui.model import (
    Address,
    Agent,
    AgentId,
    EventBatch,
    EventKind,
    GuestEvent,
    HostName,
    Power,
    State,
    Tag,
    Vm,
)
from swarm_tui.store import Store
from swarm_tui.text import sanitize

HOST = HostName("local")


class StandInVoices:
    """The events side of a guest port: says what it is given, then that it is out of reach."""

    def __init__(self) -> None:
        self.said: dict[int, list[EventBatch]] = {}
        self.asked: dict[int, list[int]] = {}

    async def events(self, address: Address, offset: int) -> AsyncIterator[EventBatch]:
        self.asked.setdefault(address.port, []).append(offset)
        for batch in self.said.get(address.port, []):
            if batch.offset > offset:
                yield batch
        raise GuestUnreachable("The guest is out of reach", "no route")

    async def close(self) -> None:
        pass


def agent(number: int, name: str, *, is_up: bool = True) -> Agent:
    address = Address("127.0.0.1", number, "ssh-ed25519 AAAA", Path("/k")) if is_up else None
    power = Power.RUNNING if is_up else Power.OFF
    id = AgentId(f"0b5e{number:04x}-77aa-4c11-9d20-000000000000")
    vm = Vm(id, sanitize(name), HOST, power, tag=Tag(address=address))
    return Agent(id, sanitize(name), HOST, State.RUNNING, None, vm=vm)


ADA, BOB = agent(1, "ada", is_up=False), agent(2, "bobby", is_up=False)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return load({"SWARM_TUI_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)})


@pytest.fixture
def voices(monkeypatch: pytest.MonkeyPatch) -> StandInVoices:
    made = StandInVoices()
    monkeypatch.setattr(listening, "make_guest", lambda loaded, connect: made)
    return made


def write(loaded: Loaded, who: Agent, count: int, *, step: float, ago: float = 0.0) -> None:
    folder = loaded.paths.catalogue / who.id
    begun = time.time() - ago - count * step
    with spool.Writer(folder) as writer:
        for number in range(count):
            at = begun + number * step
            kind = "ask" if number % 10 == 5 else "log"
            fields = {"ts": at, "kind": kind, "text": f"{who.name}'s \x1b[31m {number}"}
            raw = json.dumps(fields).encode() + b"\n"
            writer.append(EventBatch((), number + 1, 0, raw, at + 0.1))


def said(out: str) -> list[str]:
    return [line.split("␛[31m ")[1] for line in out.splitlines()]


async def test_the_newest_of_several_logs_are_merged_with_names(
    loaded: Loaded, voices: StandInVoices, capsys: pytest.CaptureFixture[str]
) -> None:
    write(loaded, ADA, 30, step=2.0)
    write(loaded, BOB, 60, step=1.0)
    await listen(loaded, None, [ADA, BOB], Wanted(9))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    lines = printed.splitlines()
    assert [line.split()[1] for line in lines].count("ada") == 3
    assert re.fullmatch(r"\d\d:\d\d:\d\d bobby log    bobby's ␛\[31m 59", lines[-1])
    times = [line.split()[0] for line in lines]
    assert times == sorted(times)


async def test_lines_are_chosen_by_expression_time_and_kind(
    loaded: Loaded, voices: StandInVoices, capsys: pytest.CaptureFixture[str]
) -> None:
    write(loaded, ADA, 600, step=1.0)
    await listen(loaded, None, [ADA], Wanted(1000, grep="ADA.* 59.$"))
    assert capsys.readouterr().out == ""
    await listen(loaded, None, [ADA], Wanted(1000, grep="ada.* 59.$"))
    assert said(capsys.readouterr().out) == [str(number) for number in range(590, 600)]
    await listen(loaded, None, [ADA], Wanted(1000, since_s=30.5))
    assert said(capsys.readouterr().out) == [str(number) for number in range(570, 600)]
    await listen(loaded, None, [ADA], Wanted(2, is_asks=True, stamps=Stamps.OFF))
    printed = capsys.readouterr().out
    assert said(printed) == ["585", "595"]
    assert printed.startswith("ask ")
    await listen(loaded, None, [ADA], Wanted(1, stamps=Stamps.DATE, is_json=True))
    [found] = json.loads(capsys.readouterr().out)
    assert (found["name"], found["kind"], found["heard"] > found["claimed"]) == ("ada", "log", True)
    with pytest.raises(UsageError, match="regular expression"):
        await listen(loaded, None, [ADA], Wanted(1, grep="(a"))


async def test_what_is_not_on_disk_yet_is_asked_for_and_followed(
    loaded: Loaded, voices: StandInVoices, capsys: pytest.CaptureFixture[str]
) -> None:
    up, other = agent(7, "up"), agent(8, "other")
    write(loaded, up, 3, step=1.0, ago=5)
    for port, names in ((7, ("fresh", "newest")), (8, ("hello",))):
        voices.said[port] = [
            EventBatch(
                (GuestEvent(EventKind.LOG, sanitize(f"x ␛[31m {name}")),), 10 + number, 0, None
            )
            for number, name in enumerate(names)
        ]
    await listen(loaded, None, [up, other], Wanted(100, is_following=True))
    printed = capsys.readouterr()
    assert voices.asked == {7: [3, 11], 8: [0, 10]}  # on at the byte where the spool ends
    assert set(said(printed.out)) == {"0", "1", "2", "fresh", "newest", "hello"}
    assert said(printed.out)[:3] == ["0", "1", "2"]
    assert "up: The guest is out of reach" in printed.err


async def test_all_is_exported_once_and_what_the_quota_took_is_told(
    loaded: Loaded, voices: StandInVoices, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(loaded, ADA, 300, step=1.0)
    write(loaded, BOB, 200, step=2.0)
    with spool.Writer(loaded.paths.catalogue / ADA.id) as writer:
        writer.turn()
    spool.Quota(loaded.paths.catalogue, 10).enforce()
    target = tmp_path / "all.jsonl"
    await listen(loaded, None, [ADA, BOB], Wanted(0, export=target))
    told = capsys.readouterr().err
    assert f"200 lines in {target}" in told
    assert "300 older lines of ada were removed by the quota" in told
    assert len(target.read_text().splitlines()) == 200
    with pytest.raises(UsageError, match="there already"):
        await listen(loaded, None, [ADA], Wanted(0, export=target))


def test_agents_are_chosen_by_name_and_by_filter(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store()
    for number, who in enumerate((ADA, BOB)):
        assert who.vm
        store.apply(VmSeen(who.vm, number))
    away = HostUnreachable("Host lab is out of reach")
    seen = Glance(store, [away])
    assert [found.name for found in choose(seen, ["bobby", "ada", "bobby"], None)] == [
        "bobby",
        "ada",
    ]
    assert [found.name for found in choose(seen, [], "name:b*")] == ["bobby"]
    assert "Host lab is out of reach" in capsys.readouterr().err
    assert len(choose(seen, ["ada"], "")) == 2
    with pytest.raises(NotFound):
        choose(seen, [], "name:zed")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259200)]
)
def test_spans(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "1.5h", "10 minutes", "9" * 20])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_span(text)
