"""How actions are bound to keys, and how their keys are written for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from textual.binding import Binding, BindingType

from swarm_tui.ui.action import (
    AGENT,
    AUDIT,
    COMPARE,
    DIFFS,
    FLEET,
    HOSTS,
    LOGS,
    RESULTS,
    REVIEW,
    TIMELINE,
    WAITING,
    Action,
    Place,
    Section,
)
from swarm_tui.ui.actions import ACTIONS, at


def bindings(place: Place) -> list[BindingType]:
    """Textual's bindings of one screen, one for each key.

    They have priority: each key is done with before the next one is looked at, so that keys typed
    ahead, into a filter that is about to open, go where they were meant to.
    """
    return [
        Binding(
            key,
            f"act('{action.id}', '{key}')",
            action.help,
            show=False,
            priority=True,
            id=f"{place}.{action.id}" if key == action.keys[0] else None,
        )
        for action in at(place)
        if action.is_bound
        for key in action.keys
    ]


def quiet(keys: str, action: str) -> Binding:
    """A binding that is told elsewhere, likewise done with before the next key."""
    return Binding(keys, action, show=False, priority=True)


_NAMES: Final = {
    "slash": "/",
    "asterisk": "*",
    "colon": ":",
    "question_mark": "?",
    "escape": "esc",
    "enter": "↵",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "ampersand": "&",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "exclamation_mark": "!",
}


def key_name(key: str) -> str:
    """A key as it is written for people: "/", "esc", "ctrl+p"."""
    return _NAMES.get(key, key)


def key_names(action: Action) -> str:
    """All its keys."""
    return action.told or " ".join(key_name(key) for key in action.keys)


def by_section(actions: Iterable[Action]) -> dict[Section, list[Action]]:
    sections: dict[Section, list[Action]] = {}
    for action in actions:
        sections.setdefault(action.section, []).append(action)
    return {section: sections[section] for section in Section if section in sections}


def render_keys_markdown() -> str:
    """The table of keys for the README."""
    lines = []
    for section, actions in by_section(ACTIONS).items():
        lines += [f"**{section}**", "", "| key | what it does |", "|---|---|"]
        for action in actions:
            keys = " ".join(f"`{key}`" for key in key_names(action).split())
            where = {
                FLEET: " (fleet)",
                AGENT: " (agent)",
                LOGS: " (log)",
                REVIEW: " (review)",
                AUDIT: " (audit)",
                HOSTS: " (hosts)",
                RESULTS: " (results)",
                TIMELINE: " (timeline)",
                DIFFS: " (review, compare)",
                COMPARE: " (compare)",
                WAITING: " (queue)",
            }.get(action.places, "")
            lines.append(f"| {keys} | {action.help}{where} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
