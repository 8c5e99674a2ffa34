"""Deciding on the review screen, and how a review is opened and left."""

from __future__ import annotations

import asyncio

from stand_in import running, seen, type_ahead, until
from test_review import PARSER, SIZE, find, is_open, make_desk, opened, press

from swarm_tui.command import Approve, Reject, Review, SendBack
from swarm_tui.errors import Refused, ReviewError, SignatureError
from swarm_tui.fact import Recorded, VmGone
from swarm_tui.handoff import Comment
from swarm_tui.model import AgentId
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.review import ReviewScreen
from swarm_tui.ui.verdict import VerdictDialog


async def test_flags_must_be_seen_before_an_approval() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, "a") as pilot:
        await until(pilot, lambda: "3 flags have not been seen" in seen(desk.app), "the toast")
        await until(pilot, lambda: "check.yml  modified" in seen(desk.app), "the first of them")
        assert not desk.swarm.done
        await press(desk, pilot, "exclamation_mark")
        await until(pilot, lambda: "logo.png  modified" in seen(desk.app), "the next flag")


async def test_an_approval_names_what_it_does_and_is_given_by_y() -> None:
    desk = make_desk()
    desk.view_all()
    async with opened(desk, SIZE, "a") as pilot:
        shown = seen(desk.app)
        review = desk.reading.review
        assert "Approve moss?" in shown
        assert review.head[:12] in shown
        assert review.digest[7:19] in shown
        assert "swarm/moss/3 in /home/hanne/src/invoices" in shown
        assert "finds the approval." in shown
        assert "The verdict is not signed." in shown
        await pilot.press("y")  # too soon: it was meant for something else
        assert not desk.swarm.done
        assert "y  approve" in shown
        await press(desk, pilot, "m", *"nice")
        await until(pilot, lambda: "ctrl+s  approve" in seen(desk.app), "how to end it")
        await press(desk, pilot, "ctrl+s")
        await until(pilot, lambda: desk.swarm.done, "the verdict")
        assert desk.swarm.done == [Approve(desk.agent.id, 3, review.digest, "nice")]
        await until(pilot, lambda: isinstance(desk.app.screen, FleetScreen), "the fleet")
        assert desk.reading.is_closed


WORDS = "yes, n q X y K a space"


async def test_a_message_is_typed_without_any_of_it_being_a_key() -> None:
    for key, kind in (("s", SendBack), ("X", Reject)):
        for is_commented in (False, True):
            desk = make_desk()
            if is_commented:
                desk.reading.comment(Comment("1", "Why?", PARSER, "new", 21, 22))
            async with opened(desk, SIZE, key, *WORDS) as pilot:
                assert isinstance(desk.app.screen, VerdictDialog)
                assert not desk.swarm.done
                assert not desk.reading.said.viewed
                await press(desk, pilot, "ctrl+s")
                await until(pilot, lambda: desk.swarm.done, "the verdict")  # noqa: B023
                (command,) = desk.swarm.done
                assert isinstance(command, kind)
                assert command.message == WORDS


async def test_a_message_typed_ahead_of_its_dialog_is_whole() -> None:
    desk = make_desk()
    async with opened(desk) as pilot:
        type_ahead(desk.app, "s", *"why?", "ctrl+s")
        await until(pilot, lambda: desk.swarm.done, "the verdict")
        (command,) = desk.swarm.done
        assert isinstance(command, SendBack)
        assert command.message == "why?"
        assert not desk.reading.said.viewed


async def test_only_keys_of_an_approval_do_anything() -> None:
    desk = make_desk()
    desk.view_all()
    async with opened(desk, SIZE, "a", *"nqsXKcz", "space", "ctrl+t") as pilot:
        assert isinstance(desk.app.screen, VerdictDialog)
        assert not desk.swarm.done
        await press(desk, pilot, "escape")
        assert isinstance(desk.app.screen, ReviewScreen)


async def test_a_message_that_was_left_is_there_again() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, "s", *"later", "escape") as pilot:
        assert isinstance(desk.app.screen, ReviewScreen)
        await press(desk, pilot, "s", *" on", "ctrl+s")
        await until(pilot, lambda: desk.swarm.done, "the verdict")
        (command,) = desk.swarm.done
        assert isinstance(command, SendBack)
        assert command.message == "later on"


async def test_nothing_is_not_said() -> None:
    for keys in (("s", "ctrl+s"), ("X", "ctrl+s"), ("X", "ctrl+t"), ("s", "tab", "enter")):
        desk = make_desk()
        async with opened(desk, SIZE, *keys) as pilot:
            assert "Nothing is said" in seen(desk.app)
            assert isinstance(desk.app.screen, VerdictDialog)
            await press(desk, pilot, "escape")
            assert isinstance(desk.app.screen, ReviewScreen)
            assert not desk.swarm.done


async def test_a_message_outlives_a_verdict_that_is_refused() -> None:
    for failure in (Refused("It has no repository"), SignatureError("The agent has no key")):
        desk = make_desk()
        async with opened(desk, SIZE) as pilot:
            desk.swarm.failure = failure
            await press(desk, pilot, "s", *"too slow", "ctrl+s")
            await until(pilot, lambda: failure.title in seen(desk.app), "the refusal")  # noqa: B023
            desk.swarm.failure = None
            desk.swarm.done.clear()
            await until(pilot, lambda: desk.reading.is_closed, "the end of the reading")  # noqa: B023
            find(desk)
            await press(desk, pilot, "r")
            await until(pilot, lambda: is_open(desk.app), "the review again")  # noqa: B023
            await press(desk, pilot, "s", "ctrl+s")
            await until(pilot, lambda: desk.swarm.done, "the verdict")  # noqa: B023
            (command,) = desk.swarm.done
            assert isinstance(command, SendBack)
            assert command.message == "too slow"


async def test_a_rejection_keeps_or_kills() -> None:
    for key, is_kept in (("ctrl+s", True), ("ctrl+t", False)):
        desk = make_desk()
        async with opened(desk, SIZE, "X", *"no", key) as pilot:
            await until(pilot, lambda: bool(desk.swarm.done), "the verdict")  # noqa: B023
            (command,) = desk.swarm.done
            assert isinstance(command, Reject)
            assert command.is_kept is is_kept


async def test_a_verdict_from_elsewhere_is_told_and_ends_ours() -> None:
    desk = make_desk()
    desk.view_all()
    async with opened(desk) as pilot:
        desk.swarm.save(desk.agent, review=None)
        await until(pilot, lambda: "had its verdict elsewhere" in seen(desk.app), "the banner")
        await press(desk, pilot, "a")
        await until(pilot, lambda: "Cannot approve now" in seen(desk.app), "the refusal")
        assert not desk.swarm.done


async def test_an_agent_that_goes_while_it_is_reviewed() -> None:
    desk = make_desk()
    async with opened(desk) as pilot:
        desk.swarm.seq += 1
        desk.swarm.apply(VmGone(desk.agent.id, desk.swarm.seq))
        desk.swarm.apply(Recorded(AgentId(desk.reading.review.agent), None))
        await until(pilot, lambda: "the agent is gone" in seen(desk.app), "the banner")
        await press(desk, pilot, "escape")
        assert isinstance(desk.app.screen, FleetScreen)


# Opening and leaving


async def test_a_review_is_taken_then_opened_and_left_as_it_is() -> None:
    desk = make_desk(is_taken=False)
    async with opened(desk) as pilot:
        assert desk.swarm.done == [Review(desk.agent.id)]
        await press(desk, pilot, "escape")
        assert isinstance(desk.app.screen, FleetScreen)
        await until(pilot, lambda: desk.reading.is_closed, "the end of the reading")
        await press(desk, pilot, "r")
        await until(pilot, lambda: is_open(desk.app), "the review again")
        assert desk.swarm.done == [Review(desk.agent.id)]  # it was only opened


async def test_a_review_that_is_ready_does_not_take_the_screen_from_who_moved_on() -> None:
    desk = make_desk(is_taken=False)
    desk.swarm.gate = asyncio.Event()
    async with running(desk.app, SIZE) as pilot:
        find(desk)
        await pilot.press("r", "r", "question_mark")
        await until(pilot, lambda: "Keys of swarm-tui" in seen(desk.app), "the help")
        desk.swarm.gate.set()
        told = "The review of moss is ready"
        await until(pilot, lambda: told in seen(desk.app), "the toast")
        assert desk.swarm.done == [Review(desk.agent.id)]  # pressed twice, done once
        await pilot.press("escape")
        assert isinstance(desk.app.screen, FleetScreen)


async def test_a_review_that_fails_is_told() -> None:
    desk = make_desk(is_taken=False)
    desk.swarm.failure = ReviewError("The pack is too large", "It has more than 256 MiB.")
    async with running(desk.app, SIZE) as pilot:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: "The pack is too large" in seen(desk.app), "the toast")
