"""Ages and sizes as they stand in cells."""

from __future__ import annotations

import pytest

from swarm_tui.amount import render_age, render_bytes


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "n/a"),
        (0, "0"),
        (0.4, "0"),
        (512, "512B"),
        (1000, "1.0K"),
        (10_200, "10K"),
        (190 * 2**20, "190M"),
        (1023 * 2**20, "1.0G"),
        (3 * 2**40, "3.0T"),
    ],
)
def test_sizes_take_four_cells(count: float | None, shown: str) -> None:
    assert render_bytes(count) == shown
    assert len(shown) <= 4


@pytest.mark.parametrize("exponent", range(62))
def test_no_size_is_wider_than_four_cells(exponent: int) -> None:
    for near in (-1, 0, 1):
        assert len(render_bytes(2**exponent + near)) <= 4


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "n/a"), (-3, "0s"), (59.9, "59s"), (60, "1m"), (7500, "2h05"), (200_000, "2d")],
)
def test_ages_get_coarser(seconds: float | None, shown: str) -> None:
    assert render_age(seconds) == shown
