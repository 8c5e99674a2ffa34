"""Numbers and text as they stand in cells."""

from __future__ import annotations

import math

import pytest
from rich.cells import cell_len

from swarm_tui.ui import figures


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
    assert figures.render_bytes(count) == shown
    assert len(shown) <= 4


@pytest.mark.parametrize("exponent", range(62))
def test_no_size_is_wider_than_four_cells(exponent: int) -> None:
    for near in (-1, 0, 1):
        assert len(figures.render_bytes(2**exponent + near)) <= 4


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "n/a"), (-3, "0s"), (59.9, "59s"), (60, "1m"), (7500, "2h05"), (200_000, "2d")],
)
def test_ages_get_coarser(seconds: float | None, shown: str) -> None:
    assert figures.render_age(seconds) == shown


@pytest.mark.parametrize(
    "text", ["plain", "日本語のテキスト", "a" * 50, "é́́ combining", "two\nlines"]
)
@pytest.mark.parametrize("width", [0, 1, 2, 5, 9, 40])
def test_text_is_cut_to_cells(text: str, width: int) -> None:
    fitted = figures.fit(text, width)
    assert cell_len(fitted) == width
    assert "\n" not in fitted


@pytest.mark.parametrize("text", ["", "a bc def ghij " * 9, "x" * 100, "日本語" * 20, "word " * 30])
@pytest.mark.parametrize("width", [8, 13, 40])
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    pieces = figures.wrap(text, width)
    assert "".join(pieces) == text
    assert all(cell_len(piece) <= width for piece in pieces)


def test_a_spark_line_shows_gaps_and_ends_with_the_newest() -> None:
    samples = [0.0, 100.0, math.nan, 50.0, 200.0]
    assert figures.render_spark(samples, 5, 100.0) == "▁█ ▅█"
    assert figures.render_spark(samples, 2, 100.0) == "▅█"
    assert figures.render_spark(samples, 7, 100.0) == "  ▁█ ▅█"
    assert figures.render_spark(samples, 0, 100.0) == ""
    assert len(figures.render_spark(samples, 5, 0.0)) == 5


def test_a_chart_fills_from_below() -> None:
    assert figures.render_chart([0.0, 50.0, 100.0, math.nan], 5, 2, 100.0) == ["   █ ", " ▁██ "]
    assert figures.render_chart([], 3, 2, 0.0) == ["   ", "   "]


def test_something_in_use_fills_at_least_one_cell() -> None:
    assert figures.bar_cells(1, 2**40, 10) == 1
    assert figures.bar_cells(5, 4, 10) == 10
    assert figures.bar_cells(None, 4, 10) == 0
    assert figures.bar_cells(1, None, 10) == 0
