"""Numbers and text as they stand in cells."""

from __future__ import annotations

import math

import pytest
from rich.cells import cell_len

from swarm_tui.ui import figures


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
