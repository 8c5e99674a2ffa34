"""Pictures of the review screen, compared with those that were looked at and found good.

`pytest tests/ui/test_review_look.py --snapshot-update` takes them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from stand_in import make_app, until, utc
from stand_in_reading import change_of
from test_review import Desk, find, is_open, make_desk, press, to_file
from textual.pilot import Pilot

from swarm_tui.handoff import Comment
from swarm_tui.ui.app import Settings
from swarm_tui.ui.patch import Patch

SMALL, MIDDLE, LARGE = (80, 24), (120, 40), (250, 70)
THEMES = ("midnight", "daylight", "contrast")
PARSER = b"src/invoices/parser.py"
Compare = Callable[..., bool]


def said_desk() -> Desk:
    desk = make_desk()
    text = "Why fullmatch here?\nA blank at the end used to be accepted."
    desk.reading.comment(Comment("1", text, PARSER, "new", 21, 22))
    for change in desk.reading.review.changes[:2]:
        desk.reading.mark(change.key, is_viewed=True)
    return desk


def compare(
    snap_compare: Compare,
    *keys: str,
    size: tuple[int, int] = MIDDLE,
    desk: Desk | None = None,
    **settings: Any,
) -> None:
    desk = desk or said_desk()

    async def go(pilot: Pilot[Any]) -> None:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: is_open(desk.app) or size == SMALL, "the review")
        await press(desk, pilot, *keys)
        await until(pilot, lambda: is_coloured(desk), "the colours")

    with utc():
        desk.app = make_app(desk.swarm, Settings(**settings))
        assert snap_compare(desk.app, run_before=go, terminal_size=size)


def is_coloured(desk: Desk) -> bool:
    """Nothing is under way that would change the picture."""
    patches = [found for screen in desk.app.screen_stack for found in screen.query(Patch)]
    return bool(patches) and all(patch.is_settled for patch in patches)


def test_about(snap_compare: Compare) -> None:
    compare(snap_compare)


@pytest.mark.parametrize("theme", THEMES)
def test_file(snap_compare: Compare, theme: str) -> None:
    desk = said_desk()
    compare(snap_compare, *to_file(desk, PARSER), desk=desk, theme=theme)


@pytest.mark.parametrize("theme", THEMES)
def test_file_small(snap_compare: Compare, theme: str) -> None:
    desk = said_desk()
    keys = (*to_file(desk, PARSER), "j", "V", "down", "down")
    compare(snap_compare, *keys, size=SMALL, desk=desk, theme=theme)


def test_file_large(snap_compare: Compare) -> None:
    desk = said_desk()
    compare(snap_compare, *to_file(desk, PARSER), "j", size=LARGE, desk=desk)


def test_file_plain(snap_compare: Compare) -> None:
    desk = said_desk()
    compare(snap_compare, *to_file(desk, PARSER), size=SMALL, desk=desk, is_plain=True)


def test_file_without_colours(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    desk = said_desk()
    compare(snap_compare, *to_file(desk, PARSER), size=SMALL, desk=desk)


def test_files_small(snap_compare: Compare) -> None:
    compare(snap_compare, "b", "down", size=SMALL)


def test_flagged(snap_compare: Compare) -> None:
    desk = said_desk()
    compare(snap_compare, *to_file(desk, b"src/invoices/access.py"), desk=desk)


def test_binary(snap_compare: Compare) -> None:
    desk = said_desk()
    compare(snap_compare, *to_file(desk, b"docs/logo.png"), size=SMALL, desk=desk)


def test_search(snap_compare: Compare) -> None:
    desk = said_desk()
    compare(snap_compare, *to_file(desk, PARSER), "slash", *"invoice", "enter", desk=desk)


def test_comment(snap_compare: Compare) -> None:
    desk = said_desk()
    keys = (*to_file(desk, PARSER), "c", *"Is an empty line an invoice now?")
    compare(snap_compare, *keys, size=SMALL, desk=desk)


def test_since(snap_compare: Compare) -> None:
    desk = said_desk()
    old, new = b"a = 1\nb = 2\n", b"a = 1\nb = 3\n"
    change = change_of(PARSER, old, new)
    desk.reading.before = replace(desk.reading.of, number=2)
    desk.reading.later = (change,)
    desk.reading.contents[change.key] = (old, new)
    compare(snap_compare, "i", desk=desk)


def test_unseen(snap_compare: Compare) -> None:
    compare(snap_compare, "a")


@pytest.mark.parametrize("size", [SMALL, MIDDLE])
def test_approve(snap_compare: Compare, size: tuple[int, int]) -> None:
    desk = said_desk()
    desk.view_all()
    compare(snap_compare, "a", size=size, desk=desk)


def test_send_back(snap_compare: Compare) -> None:
    compare(snap_compare, "s", theme="daylight")


def test_reject(snap_compare: Compare) -> None:
    compare(snap_compare, "X", size=SMALL)


def test_verdict_elsewhere(snap_compare: Compare) -> None:
    desk = said_desk()

    async def go(pilot: Pilot[Any]) -> None:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: is_open(desk.app), "the review")
        desk.swarm.save(desk.agent, review=None)
        await pilot.pause(0.3)

    with utc():
        assert snap_compare(desk.app, run_before=go, terminal_size=(100, 30))


def test_help(snap_compare: Compare) -> None:
    compare(snap_compare, "question_mark", size=(110, 60))
