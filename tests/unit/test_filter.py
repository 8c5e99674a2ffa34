"""Which agents a filter lets through, what is said of a wrong one, and what may follow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm_tui.errors import UsageError
from swarm_tui.filter import complete, parse, quote
from swarm_tui.label import make_labels
from swarm_tui.model import (
    Agent,
    AgentId,
    HostName,
    Operation,
    Power,
    State,
    Tag,
    Verb,
    Vm,
)
from swarm_tui.text import EMPTY, sanitize


def agent(
    name: str,
    host: str = "lab",
    state: State = State.RUNNING,
    task: str = "",
    owner: str = "",
    *labels: str,
) -> Agent:
    tag = Tag(task=sanitize(task), owner=sanitize(owner), labels=make_labels(labels))
    id, safe, at = AgentId(f"id-{name}"), sanitize(name), HostName(host)
    return Agent(id, safe, at, state, None, vm=Vm(id, safe, at, Power.RUNNING, tag=tag))


FLEET = (
    agent("web-1", "lab", State.RUNNING, "Log in, twice", "ada@example.org", "team=web", "urgent"),
    agent("web-10", "lab-2", State.ASKING, "Page the orders", "ada", "team=web"),
    agent("core", "lab", State.FAILED, "Mend the host: lab", "grace", "team=core", "tier=web"),
    agent("spare", "Edge", State.SAVED),
)


def chosen(text: str) -> list[str]:
    found = parse(text, me="ada")
    return [one.name for one in FLEET if found.matches(one)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["web-1", "web-10", "core", "spare"]),
        ("  - ! ", ["web-1", "web-10", "core", "spare"]),
        ("WEB", ["web-1", "web-10", "core"]),
        ("web lab-2", ["web-10"]),
        ("-web", ["spare"]),
        ("!web !edge", []),
        ("host:lab", ["web-1", "core"]),
        ("host:LAB", ["web-1", "core"]),
        ("host:lab*", ["web-1", "web-10", "core"]),
        ("host:edge,lab-2", ["web-10", "spare"]),
        ("-host:lab,edge", ["web-10"]),
        ("state:asking,failed", ["web-10", "core"]),
        ("!state:running", ["web-10", "core", "spare"]),
        ("is:waiting", ["web-10"]),
        ("label:team=web", ["web-1", "web-10"]),
        ("label:team", ["web-1", "web-10", "core"]),
        ("label:urgent", ["web-1"]),
        ("label:web", []),
        ("label:t*=web", ["web-1", "web-10", "core"]),
        ("label:urgent,tier=web", ["web-1", "core"]),
        ("-label:team=web", ["core", "spare"]),
        ("owner:me", ["web-1", "web-10"]),
        ('owner:"me"', []),
        ("owner:grace", ["core"]),
        ("name:web-1", ["web-1"]),
        ("name:web-*", ["web-1", "web-10"]),
        ("name:*e*", ["web-1", "web-10", "core", "spare"]),
        ("name:*1*1", []),
        ("name:w*b**0", ["web-10"]),
        ("task:log", ["web-1"]),
        ('task:"log in, twice"', ["web-1"]),
        ('"host: lab"', ["core"]),
        ('-"host: lab" host:lab', ["web-1"]),
        ("state:running host:lab label:urgent twice", ["web-1"]),
        ('name:"web-*"', []),
        ("12:30", []),
    ],
)
def test_a_filter_lets_through_what_it_says(text: str, names: list[str]) -> None:
    assert chosen(text) == names


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("state:asleep", "state:asleep is none"),
        ("stat:asking", "There is no stat:"),
        ("host:", "host: needs a value"),
        ("host:,", "host: needs a value"),
        ('task:"log', "A quote is not closed"),
        ("is:red", "is:red is none"),
        ("x" * 3000, "The filter is too long"),
    ],
)
def test_a_wrong_filter_says_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse(text)


def test_the_nearest_word_is_offered() -> None:
    with pytest.raises(UsageError) as caught:
        parse("stat:asking")
    assert "Did you mean state:?" in caught.value.detail
    with pytest.raises(UsageError) as caught:
        parse("state:askin")
    assert "Did you mean asking?" in caught.value.detail


def test_who_is_busy_can_be_asked_for() -> None:
    busy = replace(FLEET[0], operation=Operation(Verb.PAUSE, EMPTY))
    assert parse("is:busy").matches(busy)
    assert not parse("is:busy").matches(FLEET[0])


@pytest.mark.parametrize("value", ["lab", "two words", "a,b", "a*b", "-x", "!x", "x:y", "me"])
def test_a_quoted_value_is_found_whatever_is_in_it(value: str) -> None:
    found = parse(quote("host", value), me="ada")
    assert found.matches(agent("x", value))
    assert not found.matches(agent("x", f"{value}2"))


@pytest.mark.parametrize(
    ("text", "shown", "first"),
    [
        ("ho", ["host:"], "host:"),
        ("web -la", ["label:"], "web -label:"),
        ("state:as", ["asking"], "state:asking"),
        ("x state:asking,f", ["failed", "frozen"], "x state:asking,failed"),
        ("host:", ["lab", "lab-2", "two words"], "host:lab"),
        ('host:"tw', ["two words"], 'host:"two words"'),
        ("host:lab-2", [], ""),
        ("is:w", ["waiting"], "is:waiting"),
        ('task:"a b" st', ["state:"], 'task:"a b" state:'),
    ],
)
def test_what_may_follow_is_offered(text: str, shown: list[str], first: str) -> None:
    found = complete(text, {"host": ["lab-2", "lab", "two words"]})
    assert [completion.shown for completion in found] == shown
    if found:
        assert found[0].text == first


def test_an_empty_filter_offers_every_key() -> None:
    assert {"host:", "owner:", "state:", "label:"} <= {one.shown for one in complete("", {})}
