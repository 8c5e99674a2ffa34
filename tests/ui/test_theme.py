"""Theme files: strict, complete, readable."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.style import Style
from stand_in import make_app, make_fleet, running, seen, until
from textual.color import Color

from swarm_tui.errors import ConfigError
from swarm_tui.model import State
from swarm_tui.ui.app import Settings
from swarm_tui.ui.theme import SECTIONS, Palette, builtin_folder, load_themes, read_palette

BUILTIN = load_themes([builtin_folder()])


def luminance(colour: str) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.03928 else ((channel + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(part / 255) for part in Color.parse(colour).rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_three_themes_are_shipped() -> None:
    assert not BUILTIN.problems
    assert set(BUILTIN.palettes) == {"midnight", "daylight", "contrast"}
    assert not BUILTIN.palettes["daylight"].is_dark


@pytest.mark.parametrize("palette", BUILTIN.palettes.values(), ids=lambda palette: palette.name)
def test_every_word_can_be_read(palette: Palette) -> None:
    least = 7.0 if palette.name == "contrast" else 4.5
    for surface in ("background", "surface", "panel", "cursor"):
        ground = palette.colours["surfaces"][surface]
        words = {
            **palette.colours["states"],
            **palette.colours["signals"],
            **{key: palette.colours["text"][key] for key in ("normal", "muted", "accent")},
        }
        for key, colour in words.items():
            assert contrast(colour, ground) >= min(least, 4.5 if surface == "cursor" else least), (
                key,
                surface,
            )
        assert contrast(palette.colours["text"]["faint"], ground) >= 3.0, surface


def test_every_state_has_a_variable() -> None:
    variables = BUILTIN.palettes["midnight"].variables()
    assert {f"state-{state}" for state in State} <= set(variables)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_all_problems_are_told_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    text = (builtin_folder() / "midnight.toml").read_text()
    text = text.replace("dark = true", 'dark = "yes"')
    text = text.replace("askin", "asken").replace('accent = "#7aa8ff"', 'accent = "bluish"')
    text = text.replace("[signals]", "[signal]") + "\n[extra]\n"
    with pytest.raises(ConfigError) as caught:
        read_palette(write(tmp_path, "mine.toml", text))
    told = caught.value.detail
    assert 'states.askeng: no such key; did you mean "asking"?' in told
    assert "states.asking: is missing" in told
    assert "text.accent: 'bluish' is not a colour" in told
    assert 'signal: no such key; did you mean "signals"?' in told
    assert "[signals]: is missing" in told
    assert "dark: must be true or false" in told
    assert "mine.toml" in caught.value.title


@pytest.mark.parametrize("text", ["not toml at all [", "\0", "dark = true"])
def test_a_file_that_cannot_be_used_is_left_out(tmp_path: Path, text: str) -> None:
    write(tmp_path, "mine.toml", text)
    themes = load_themes([builtin_folder(), tmp_path])
    assert "mine" not in themes.palettes
    assert [type(problem) for problem in themes.problems] == [ConfigError]


def test_a_theme_of_ones_own_replaces_a_shipped_one(tmp_path: Path) -> None:
    text = (builtin_folder() / "midnight.toml").read_text().replace("#7aa8ff", "#ffffff")
    write(tmp_path, "midnight.toml", text)
    themes = load_themes([builtin_folder(), tmp_path])
    assert themes.palettes["midnight"].colours["text"]["accent"] == "#FFFFFF"


async def test_the_app_starts_with_a_broken_theme_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "mine.toml", "dark = true\n[states]\nasking = 'amber-ish'\n")
    app = make_app(make_fleet(), Settings(theme="mine", themes=(tmp_path,)))
    async with running(app, (100, 50)) as pilot:
        await until(pilot, lambda: "mine.toml is not complete" in seen(app), "the toast")
        assert "There is no theme “mine”" in seen(app)
        assert app.theme == "midnight"
        assert "moss" in seen(app)


async def test_a_theme_is_chosen_at_run_time() -> None:
    app = make_app(make_fleet())
    async with running(app) as pilot:
        await pilot.press("t")
        await until(pilot, lambda: "daylight" in seen(app), "the list of themes")
        await pilot.press(*"dayl")
        await until(pilot, lambda: "midnight" not in seen(app), "the narrowed list")
        await pilot.press("enter")
        await until(pilot, lambda: app.theme == "daylight", "the new theme")
        surface = app.theme_variables["surface-surface"]
        assert surface == BUILTIN.palettes["daylight"].colours["surfaces"]["surface"]
        drawn = app.screen.query_one("#summary").render_line(0)
        grounds = {segment.style and segment.style.bgcolor for segment in drawn}
        assert grounds == {Style(bgcolor=surface).bgcolor}


def test_sections_cover_all_states() -> None:
    assert SECTIONS["states"] == tuple(state.value for state in State)
