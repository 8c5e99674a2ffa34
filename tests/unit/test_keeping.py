"""`gc` finds what nobody needs, with its reason, and nothing else; `results` tells what is kept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui import keeping
from swarm_tui.cli import main
from swarm_tui.command import End, Pause, Resume
from swarm_tui.errors import Refused
from swarm_tui.keeping import View
from swarm_tui.leftover import Leftover
from swarm_tui.model import AgentId, Birth, HostName, Record, SnapshotId, Verb
from swarm_tui.profile import Ending, Life, Profile
from swarm_tui.retention import Keeping
from swarm_tui.stock import Stock
from swarm_tui.stocks import Stocks
from swarm_tui.text import literal

from .hall import Hall, make_hall
from .lab import Lab
from .standin import AGENT, HOST

GONE = AgentId("6f1c7b0e-0000-4000-8000-00000000dead")


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return make_hall(tmp_path / "hall")


@pytest.fixture
def lab(hall: Hall) -> Lab:
    return Lab(hall.home)


def old(path: Path, age_s: float = 3 * 86_400) -> Path:
    at = time.time() - age_s
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            os.utime(Path(folder, name), (at, at))
        os.utime(folder, (at, at))
    os.utime(path, (at, at))
    return path


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@asynccontextmanager
async def looking(lab: Lab, *, is_whole: bool = True) -> AsyncIterator[View]:
    async with lab.running() as supervisor:
        update = lab.catalogue.update(0)
        alive = {agent.id for agent in supervisor.store.agents()} | update.records.keys()
        yield View(
            supervisor,
            lab.catalogue,
            frozenset(alive),
            lab.home / "local",
            lab.home / "profiles",
            lab.home / "cache",
            lab.home / "snapshots",
            Keeping(keep=1),
            is_whole,
        )


def by_kind(found: list[Leftover] | object) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    assert isinstance(found, list)
    for one in found:
        assert one.reason, "nobody says why"
        told.setdefault(one.kind, []).append(str(one.name))
    return told


async def test_an_orderly_home_has_nothing_to_remove(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
    async with looking(lab) as view:
        assert await keeping.find(view) == []


async def test_what_gone_agents_left_goes_and_what_is_young_or_known_stays(lab: Lab) -> None:
    log = put(lab.home / "catalogue" / GONE / "events.jsonl").parent
    objects = put(lab.home / "reviews" / GONE / "quarantine.git" / "HEAD").parent
    young = put(lab.home / "catalogue" / f"{GONE[:-1]}e" / "events.jsonl").parent
    own = put(lab.home / "catalogue" / AGENT / "events.jsonl").parent
    spawn = put(lab.home / "local" / "agents" / GONE / "disk.qcow2").parent
    alive = put(lab.home / "local" / "agents" / AGENT / "disk.qcow2").parent
    for path in (log, objects, own, spawn, alive):
        old(path)
    async with looking(lab, is_whole=False) as view:
        assert await keeping.find(view) == [], "it may be on the host that was not asked"
    async with looking(lab) as view:
        found = await keeping.find(view)
        assert by_kind(found) == {"log": [GONE], "review": [GONE], "spawn": [GONE]}
        for one in found:
            assert one.size_bytes
            await one.remove()
        assert await keeping.find(view) == []
    assert not log.exists()
    assert not objects.exists()
    assert young.exists()
    assert own.exists()
    assert alive.exists()
    assert not spawn.exists()


async def test_an_image_goes_when_nothing_names_it_and_nothing_runs_on_it(lab: Lab) -> None:
    def build(digit: str, made: float = 0.0) -> Path:
        folder = lab.home / "cache/oci/images" / (digit * 32)
        put(folder / "base.raw")
        put(folder / "oci.json", json.dumps({"source": "oci:x:1", "made": made}))
        put(folder / "image.json", json.dumps({"base_commit": "0" * 40}))
        return folder

    idle, used, named, meant, young = (build(digit) for digit in "abcde")
    build("e", time.time())
    put(lab.home / "local/agents" / AGENT / "image", f"{used.name}\n")
    put(lab.home / "cache/oci/names/probe", f"{named.name}\n")
    put(lab.home / "profiles/one.toml", f'image = "{meant.name[:8]}"\n')
    async with looking(lab, is_whole=False) as view:
        assert await keeping.find(view) == []
    async with looking(lab) as view:
        [one] = await keeping.find(view)
        assert (one.kind, one.name) == ("image", idle.name[:12])
        claimed = put(lab.home / "local/agents/later/image", f"{idle.name}\n")
        with pytest.raises(Refused):
            await one.remove()
        claimed.unlink()
        await one.remove()
    assert [path.exists() for path in (idle, used, named, meant, young)] == [False] + [True] * 4


async def test_a_record_goes_only_when_its_host_was_asked_and_nothing_is_saved(lab: Lab) -> None:
    def keep(number: int, **facts: object) -> None:
        agent = AgentId(f"6f1c7b0e-0000-4000-8000-{number:012}")
        record = Record(agent, literal(f"gone-{number}"), HOST)
        lab.catalogue.write(replace(record, **facts))  # type: ignore[arg-type]

    keep(50)
    keep(51, saved_in=SnapshotId("20261124T000000.000Z-aaaaaa"))
    keep(52, verb=Verb.PAUSE)
    keep(53, host="elsewhere")
    keep(54, birth=Birth(is_pinned=True))
    async with looking(lab) as view:
        found = await keeping.find(view)
        assert by_kind(found) == {"record": ["gone-50"]}
        [one] = found
        held = lab.catalogue.record(AgentId("6f1c7b0e-0000-4000-8000-000000000050"))
        assert held
        lab.catalogue.write(replace(held, verb=Verb.RESUME))
        with pytest.raises(Refused):
            await one.remove()
        lab.catalogue.write(replace(held, verb=None))
        await one.remove()
    assert lab.catalogue.record(held.id) is None


class StandInStocks(Stocks):
    """One host with what is kept of three profiles."""

    def __init__(self) -> None:
        super().__init__()
        self.drained: list[str] = []

    async def read(self) -> Mapping[HostName, Sequence[Stock]]:
        names = ("claude", "own", "broken", "gone")
        return {HOST: [Stock(literal(name), ready=2, size_bytes=1 << 20) for name in names]}

    async def drain(self, host: HostName, profile: Profile) -> int:
        self.drained.append(str(profile.name))
        return 2


async def test_a_pool_goes_only_when_its_profile_is_no_more(lab: Lab) -> None:
    put(lab.home / "profiles" / "own.toml", 'task = "x"\n')
    put(lab.home / "profiles" / "broken.toml", "this is no TOML")
    async with looking(lab) as view:
        view.supervisor.stocks = stocks = StandInStocks()
        [one] = await keeping.find(view)
        assert (one.kind, one.name, one.size_bytes) == ("pool", "gone", 1 << 20)
        await one.remove()
    assert stocks.drained == ["gone"]


async def test_whom_a_rule_ends_is_told_before_and_ended_then(hall: Hall, lab: Lab) -> None:
    hall.work()
    record = Record(AGENT, literal("ember"), HOST)
    birth = Birth(life=Life(60.0, Ending.END), expires=1.0)
    lab.catalogue.write(replace(record, birth=birth))
    async with looking(lab) as view:
        [one] = await keeping.find(view)
        assert (one.kind, one.name) == ("agent", "ember")
        assert one.reason == "its time is over; its rule says end"
        await one.remove()
    assert not lab.world.agents()


async def test_snapshots_go_by_the_rules_and_what_is_the_present_stays(lab: Lab) -> None:
    async with lab.running() as supervisor:
        for _ in range(3):
            await supervisor.do(Pause(AGENT))
            await supervisor.do(Resume(AGENT))
        await supervisor.do(Pause(AGENT))
    async with looking(lab) as view:
        found = await keeping.find(view)
        record = lab.catalogue.record(AGENT)
        assert record
        there = view.supervisor.snapshots.ids(AGENT)
        going = {str(one.name).removeprefix("ember ") for one in found}
        assert by_kind(found).keys() == {"snapshot"}
        assert set(there) - going == {record.saved_in, there[-2]}
        await found[0].remove()
        assert len(view.supervisor.snapshots.ids(AGENT)) == len(there) - 1


async def test_cut_writes_go_and_those_at_work_stay(lab: Lab) -> None:
    cut = old(put(lab.home / "catalogue" / ".record.json.4194303"))
    at_work = old(put(lab.home / "catalogue" / f".record.json.{os.getpid()}"))
    async with looking(lab) as view:
        found = await keeping.find(view)
        assert by_kind(found) == {"file": [cut.name]}
        await found[0].remove()
    assert not cut.exists()
    assert at_work.exists()


async def test_results_are_listed_shown_and_forgotten(
    hall: Hall, lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hall.work()
    async with lab.running() as supervisor:
        await supervisor.do(End(AGENT))
    state = lab.home / "state"
    state.mkdir()
    monkeypatch.setenv("SWARM_TUI_HOME", str(lab.home))
    (state / "results").symlink_to(lab.home / "results")
    (lab.home / "store.db").rename(state / "store.db")
    import asyncio

    def run(*words: str) -> str:
        assert main(["results", *words]) == 0
        return capsys.readouterr().out

    assert "ember" in await asyncio.to_thread(run)
    told = await asyncio.to_thread(run, "ember")
    assert "no: nobody has approved it" in told
    assert "refs/swarm/results/ember" in told
    await asyncio.to_thread(run, "ember", "--remove")
    assert '"results": []' in await asyncio.to_thread(run, "--json")
