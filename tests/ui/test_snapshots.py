"""Pictures of every screen, compared with those that were looked at and found good.

`pytest tests/ui/test_snapshots.py --snapshot-update` takes them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from stand_in import StandInSupervisor, make_app, make_fleet, until, utc
from test_timeline import past
from textual.pilot import Pilot

from swarm_tui.errors import StorageFull
from swarm_tui.model import HostState
from swarm_tui.ui.app import Settings
from swarm_tui.ui.grid import View

SMALL, LARGE = (80, 24), (160, 45)
THEMES = ("midnight", "daylight", "contrast")
Compare = Callable[..., bool]


def compare(
    snap_compare: Compare,
    *keys: str,
    size: tuple[int, int] = SMALL,
    swarm: StandInSupervisor | None = None,
    **settings: Any,
) -> None:
    with utc():
        app = make_app(swarm or make_fleet(), Settings(**settings))
        assert snap_compare(app, press=keys, terminal_size=size)


@pytest.mark.parametrize("theme", THEMES)
def test_tiles(snap_compare: Compare, theme: str) -> None:
    compare(snap_compare, theme=theme)


def test_tiles_large(snap_compare: Compare) -> None:
    compare(snap_compare, size=LARGE, banner="simulated swarm")


@pytest.mark.parametrize("theme", THEMES[:2])
def test_table(snap_compare: Compare, theme: str) -> None:
    compare(snap_compare, "j", "space", theme=theme, view=View.TABLE)


def test_table_large_in_groups(snap_compare: Compare) -> None:
    compare(snap_compare, "g", "g", size=LARGE, view=View.TABLE)


def test_tiles_plain(snap_compare: Compare) -> None:
    compare(snap_compare, is_plain=True)


@pytest.mark.parametrize("theme", THEMES[:2])
def test_agent(snap_compare: Compare, theme: str) -> None:
    compare(snap_compare, "enter", theme=theme)


def test_agent_large(snap_compare: Compare) -> None:
    compare(snap_compare, "enter", size=LARGE)


def test_agent_details(snap_compare: Compare) -> None:
    compare(snap_compare, "enter", "i")


def test_hosts(snap_compare: Compare) -> None:
    compare(snap_compare, "H", "j")


def test_hosts_large(snap_compare: Compare) -> None:
    compare(snap_compare, "H", size=LARGE)


def test_filter(snap_compare: Compare) -> None:
    compare(snap_compare, "slash", *"lab-2 stat:asking", view=View.TABLE)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_queue(snap_compare: Compare, size: tuple[int, int]) -> None:
    compare(snap_compare, "W", size=size)


def test_kill(snap_compare: Compare) -> None:
    compare(snap_compare, "K")


def test_kill_many(snap_compare: Compare) -> None:
    compare(snap_compare, "a", "K", size=(100, 30), theme="daylight")


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_spawn(snap_compare: Compare, size: tuple[int, int]) -> None:
    compare(snap_compare, "n", size=size)


def test_help(snap_compare: Compare) -> None:
    compare(snap_compare, "question_mark", size=(100, 40))


def test_error(snap_compare: Compare) -> None:
    swarm = make_fleet()
    swarm.faults.append(
        StorageFull(
            "There is no room for the snapshot of ember",
            "/var/lib/swarm-tui has 120 MiB free; the snapshot needs about 256 MiB.",
            "Remove a snapshot, or set snapshots.keep lower.",
        )
    )

    async def read_it(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: not swarm.faults, "the toast")
        await pilot.press("e")

    with utc():
        assert snap_compare(make_app(swarm), run_before=read_it)


def test_no_agents(snap_compare: Compare) -> None:
    swarm = StandInSupervisor()
    swarm.add_host()
    compare(snap_compare, swarm=swarm)


def test_no_host(snap_compare: Compare) -> None:
    swarm = StandInSupervisor()
    why = "Failed to connect socket to '/run/user/1000/libvirt/libvirt-sock': No such file"
    swarm.add_host("local", HostState.DOWN, detail=f"{why} or directory; next try in 8 s")
    compare(snap_compare, swarm=swarm)


@pytest.mark.parametrize("size", [SMALL, (200, 50)])
def test_logs_of_all(snap_compare: Compare, size: tuple[int, int]) -> None:
    keys = ("a", "L", "slash", *"passed|schemas", "enter", "left_square_bracket")
    compare(snap_compare, *keys, size=size)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_timeline(snap_compare: Compare, size: tuple[int, int]) -> None:
    compare(snap_compare, "b", "j", size=size, swarm=past("moss"), view=View.TABLE)
