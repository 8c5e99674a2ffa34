"""Pools of ready agents as files: claims, cuts, staleness, quotas. No VM is needed for those."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarm_tui.errors import Busy, SetupError, StorageFull
from swarm_tui.local import pool as pools
from swarm_tui.local.forks import Template, write_template
from swarm_tui.local.home import HostKey
from swarm_tui.local.machine import Machine
from swarm_tui.local.pool import FIGURES, STEM, Pool, Way, key_of, pools_in
from swarm_tui.model import AgentId
from swarm_tui.profile import Profile
from swarm_tui.text import literal

KEY = "0123456789abcdef"
PROFILE = Profile(name=literal("quick"), ready=4)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    made = Pool(tmp_path / "pools", PROFILE)
    grow(made, KEY)
    return made


def grow(pool: Pool, key: str) -> Path:
    """A stem as it is on disk; its guest is only words here."""
    stem = pool.folder / key / STEM
    stem.mkdir(parents=True)
    (stem / "disk.qcow2").write_bytes(b"a guest")
    machine = Machine(AgentId("11111111-0000-4000-8000-000000000000"), "swarm-pool", stem, 22100)
    write_template(stem, Template(machine, "<domain/>", "<checkpoint/>", "ssh-ed25519 stem"))
    return stem


def host_key(number: int) -> HostKey:
    return HostKey(b"private %d" % number, f"ssh-ed25519 {number}")


def fill(pool: Pool, count: int) -> None:
    for number in range(count):
        pool.add(KEY, host_key(number))


def seat(folder: Path, number: int) -> Machine:
    folder.mkdir(exist_ok=True)
    return Machine(AgentId(f"agent-{number}"), f"agent-{number}", folder / f"{number}", 22200)


def test_a_claim_takes_a_ready_one_whole_and_leaves_no_key_of_it_behind(
    pool: Pool, tmp_path: Path
) -> None:
    fill(pool, 1)
    machine = seat(tmp_path / "agents", 1)
    found = pool.claim(KEY, machine)
    assert found
    assert found.way is Way.HIT
    assert found.host_key == host_key(0)
    assert found.template.machine.folder == pool.folder / KEY / STEM
    assert [path.name for path in machine.folder.iterdir()] == ["disk.qcow2"]
    assert pool.claim(KEY, seat(tmp_path / "agents", 2)) is None
    assert pool.stock(KEY).ready == 0


def test_of_many_threads_none_gets_what_another_got(pool: Pool, tmp_path: Path) -> None:
    fill(pool, 12)
    machines = [seat(tmp_path / "agents", number) for number in range(20)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda machine: pool.claim(KEY, machine), machines))
    keys = [one.host_key.public for one in found if one]
    assert len(keys) == len(set(keys)) == 12


def claim_all(folder: Path, first: int, queue: multiprocessing.Queue[list[str]]) -> None:
    pool = Pool(folder / "pools", PROFILE)
    machines = [seat(folder / "agents", first + number) for number in range(12)]
    found = [pool.claim(KEY, machine) for machine in machines]
    queue.put([one.host_key.public for one in found if one])


def test_of_two_processes_none_gets_what_the_other_got(pool: Pool, tmp_path: Path) -> None:
    fill(pool, 12)
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[list[str]] = context.Queue()
    children = [
        context.Process(target=claim_all, args=(tmp_path, first, queue)) for first in (0, 100)
    ]
    for child in children:
        child.start()
    taken = [key for _ in children for key in queue.get(timeout=60)]
    for child in children:
        child.join(60)
    assert sorted(taken) == sorted(host_key(number).public for number in range(12))


def test_without_a_ready_one_the_stem_is_copied_and_stays(pool: Pool, tmp_path: Path) -> None:
    machine = seat(tmp_path / "agents", 1)
    assert pool.claim(KEY, machine) is None
    found = pool.copy(KEY, machine, lambda: host_key(7))
    assert found
    assert found.way is Way.COPY
    assert found.host_key == host_key(7)
    assert (machine.folder / "disk.qcow2").read_bytes() == b"a guest"
    assert pool.stem(KEY)
    assert pool.copy("other", seat(tmp_path / "agents", 2), lambda: host_key(8)) is None


def test_a_stem_that_was_cut_off_is_found_and_none_is_made_of_it(
    pool: Pool, tmp_path: Path
) -> None:
    stem = pool.folder / KEY / STEM
    (stem / "template.json").unlink()
    assert pool.stem(KEY) is None
    assert pool.copy(KEY, seat(tmp_path / "agents", 1), lambda: host_key(0)) is None
    with pool.held():
        assert pool.unfinished() == [stem]


def test_a_full_disk_is_told_and_leaves_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pools, "_copy_disk", full)
    with pytest.raises(StorageFull):
        pool.add(KEY, host_key(0))
    assert [path.name for path in (pool.folder / KEY).iterdir()] == [STEM]
    monkeypatch.setattr(pools, "RESERVE_BYTES", 1 << 62)
    with pytest.raises(StorageFull, match="No room"):
        pool.add(KEY, host_key(0))


def test_what_is_stale_is_counted_never_claimed_and_removed(pool: Pool, tmp_path: Path) -> None:
    fill(pool, 2)
    changed = key_of("template", "another commit", "/repository")
    assert changed != key_of("template", "a commit", "/repository")
    assert pool.claim(changed, seat(tmp_path / "agents", 1)) is None
    told = pool.stock(changed)
    assert (told.ready, told.stale) == (0, 2)
    with pool.held():
        assert pool.sweep(changed) == 2
    assert list(pool.folder.glob("*/*")) == []


def test_a_spoilt_one_is_told_and_not_tried_by_another(pool: Pool, tmp_path: Path) -> None:
    fill(pool, 1)
    (ready,) = [path for path in (pool.folder / KEY).iterdir() if path.name != STEM]
    (ready / "template.json").write_text("{")
    with pytest.raises(SetupError):
        pool.claim(KEY, seat(tmp_path / "agents", 1))
    assert pool.claim(KEY, seat(tmp_path / "agents", 2)) is None


def test_only_one_fills_it(pool: Pool) -> None:
    with pool.held(), pytest.raises(Busy), Pool(pool.folder.parent, PROFILE).held():
        pytest.fail("two fill it")
    with pool.held():
        pass


def test_no_more_are_wanted_than_the_profile_says(pool: Pool) -> None:
    assert pool.lacks(KEY) == 4
    fill(pool, 3)
    assert pool.lacks(KEY) == 1
    fill(pool, 1)
    assert pool.lacks(KEY) == 0


def test_figures_are_counted_bounded_and_never_in_the_way(pool: Pool) -> None:
    for number in range(FIGURES + 5):
        pool.note(Way.HIT, float(number))
    pool.note(Way.MISS, 9.0)
    pool.note(Way.COPY, 1.5)
    told = pool.stock(KEY)
    assert (told.hits, told.misses, told.copies) == (FIGURES + 5, 1, 1)
    assert len(told.claims_s) == FIGURES
    assert told.claims_s[-1] == 1.5
    assert told.spawns_s == (9.0,)
    (pool.folder / "figures.json").write_text(json.dumps({"hit": "many", "claims_s": 3}))
    assert pool.stock(KEY).hits == 0
    pool.note(Way.HIT, 1.0)
    assert pool.stock(KEY).hits == 1


def test_a_profile_that_went_is_known_by_what_it_left(tmp_path: Path) -> None:
    odd = Pool(tmp_path / "pools", Profile(name=literal("../An odd name"), ready=1))
    odd.note(Way.MISS, 1.0)
    assert odd.folder.parent == tmp_path / "pools"
    assert [profile.name for profile in pools_in(tmp_path / "pools")] == ["../An odd name"]
    assert pools_in(tmp_path / "nowhere") == []
