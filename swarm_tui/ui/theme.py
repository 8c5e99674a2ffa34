"""Theme files: read strictly, told what is wrong all at once, and made into Textual themes.

A file themes/NAME.toml gives every colour that the screen uses; there is no inheritance and no
default, so that a theme looks as its file says.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from textual.color import Color, ColorParseError
from textual.theme import Theme

from swarm_tui.errors import ConfigError
from swarm_tui.model import State

DEFAULT: Final = "midnight"

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "surfaces": ("background", "surface", "panel", "cursor", "line"),
    "text": ("normal", "muted", "faint", "accent", "match"),
    "signals": ("good", "warning", "bad"),
    "graphs": ("cpu", "memory"),
    "states": tuple(state.value for state in State),
    "diff": ("added", "added-word", "removed", "removed-word"),
    "syntax": ("keyword", "string", "number", "comment", "name", "type"),
}
"""Section of a theme file → its keys, each of which needs a colour."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one theme, as "#rrggbb", by section and key."""

    name: str
    is_dark: bool
    colours: Mapping[str, Mapping[str, str]]

    def to_textual(self) -> Theme:
        """The theme for Textual, with a variable for each of our colours: `$state-asking`."""
        surfaces, text, signals = (self.colours[key] for key in ("surfaces", "text", "signals"))
        return Theme(
            name=self.name,
            dark=self.is_dark,
            primary=text["accent"],
            secondary=text["muted"],
            accent=text["accent"],
            foreground=text["normal"],
            background=surfaces["background"],
            surface=surfaces["surface"],
            panel=surfaces["panel"],
            success=signals["good"],
            warning=signals["warning"],
            error=signals["bad"],
            variables={
                **self.variables(),
                "border": text["accent"],
                "border-blurred": surfaces["line"],
                "block-cursor-background": surfaces["cursor"],
                "block-cursor-foreground": text["normal"],
                "block-cursor-text-style": "bold",
                "input-selection-background": surfaces["cursor"],
                "scrollbar": surfaces["line"],
                "scrollbar-hover": text["faint"],
                "scrollbar-active": text["muted"],
                "scrollbar-background": surfaces["background"],
                "scrollbar-background-hover": surfaces["background"],
                "scrollbar-background-active": surfaces["background"],
                "scrollbar-corner-color": surfaces["background"],
            },
        )

    def variables(self) -> dict[str, str]:
        singular = {"states": "state", "surfaces": "surface", "signals": "signal"}
        return {
            f"{singular.get(section, section)}-{key}": colour
            for section, colours in self.colours.items()
            for key, colour in colours.items()
        }


@dataclass(frozen=True, slots=True)
class Themes:
    """What was found in the theme folders; a broken file is told and left out."""

    palettes: Mapping[str, Palette]
    problems: tuple[ConfigError, ...]


def builtin_folder() -> Path:
    """Where the shipped themes are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "themes"
    return inside if inside.is_dir() else package.parent / "themes"


def load_themes(folders: Iterable[Path]) -> Themes:
    """Read every *.toml of the folders; a later folder's theme replaces an earlier one's."""
    palettes: dict[str, Palette] = {}
    problems = []
    for folder in folders:
        for file in sorted(folder.glob("*.toml")) if folder.is_dir() else ():
            try:
                palette = read_palette(file)
            except ConfigError as error:
                problems.append(error)
            else:
                palettes[palette.name] = palette
    return Themes(palettes, tuple(problems))


def read_palette(file: Path) -> Palette:
    """Read one theme file; its name is the theme's. Raises ConfigError with every problem."""
    try:
        tree = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"The theme {file.name} cannot be read",
            str(error),
            f"Mend or remove {file}; another theme is used until then.",
        ) from error
    problems: list[str] = []
    if not re.fullmatch(r"[A-Za-z0-9_-]+", file.stem):
        problems.append("the file's name may have letters, digits, - and _ only")
    is_dark = tree.pop("dark", None)
    if not isinstance(is_dark, bool):
        problems.append("dark: must be true or false")
    colours = {
        section: _read_section(section, tree.pop(section, None), keys, problems)
        for section, keys in SECTIONS.items()
    }
    problems += [_refuse(key, ("dark", *SECTIONS)) for key in tree]
    if problems:
        raise ConfigError(
            f"The theme {file.name} is not complete",
            "\n".join(problems),
            f"Mend {file}; another theme is used until then.",
        )
    return Palette(file.stem, is_dark is True, colours)


def _read_section(
    section: str, entries: object, keys: tuple[str, ...], problems: list[str]
) -> dict[str, str]:
    if not isinstance(entries, dict):
        problems.append(f"[{section}]: is missing")
        return {}
    problems += [_refuse(f"{section}.{key}", keys) for key in entries if key not in keys]
    colours = {}
    for key in keys:
        raw = entries.get(key)
        if raw is None:
            problems.append(f"{section}.{key}: is missing")
        elif colour := _read_colour(raw):
            colours[key] = colour
        else:
            problems.append(f'{section}.{key}: {raw!r} is not a colour like "#1f2d3d"')
    return colours


def _read_colour(raw: object) -> str | None:
    if not isinstance(raw, str):
        return None
    try:
        colour = Color.parse(raw)
    except ColorParseError:
        return None
    return colour.hex if colour.a == 1 and colour.ansi is None else None


def _refuse(key: str, known: Iterable[str]) -> str:
    near = get_close_matches(key.rpartition(".")[2], known, n=1)
    return f"{key}: no such key" + (f'; did you mean "{near[0]}"?' if near else "")
