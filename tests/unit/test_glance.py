"""Which agent a name on the command line means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.bootstrap import open_catalogue
from swarm_tui.config import load
from swarm_tui.errors import HostUnreachable, NotFound
from swarm_tui.fact import Listed
from swarm_tui.glance import Glance, find, glance
from swarm_tui.model import AgentId, HostName, Record, State
from swarm_tui.store import Store
from swarm_tui.text import literal

from .facts import vm

ONE, OTHER = HostName("one"), HostName("other")
FIRST = AgentId("aaaa1111-0000-0000-0000-000000000001")
SECOND = AgentId("aaaa2222-0000-0000-0000-000000000002")


@pytest.fixture
def store() -> Store:
    store = Store()
    name = literal("worker")
    store.apply(Listed(ONE, (replace(vm(), id=FIRST, host=ONE, name=name),), 1))
    store.apply(Listed(OTHER, (replace(vm(), id=SECOND, host=OTHER, name=name),), 2))
    return store


@pytest.mark.parametrize("wanted", ["one/worker", FIRST, "aaaa1"])
def test_an_agent_is_found_by_each_of_its_names(store: Store, wanted: str) -> None:
    agent = find(store.agents(), wanted)
    assert agent is not None
    assert agent.id == FIRST


@pytest.mark.parametrize("wanted", ["worker", "aaaa"])
def test_a_name_of_two_agents_is_refused_and_both_are_told(store: Store, wanted: str) -> None:
    with pytest.raises(NotFound) as caught:
        find(store.agents(), wanted)
    assert "one/worker" in caught.value.detail
    assert "other/worker" in caught.value.detail


@pytest.mark.parametrize("wanted", ["nobody", "aaa", "other/nobody", ""])
def test_nobody_is_found_by_another_name(store: Store, wanted: str) -> None:
    assert find(store.agents(), wanted) is None


def test_no_verb_acts_by_a_name_that_an_unread_host_may_have_too() -> None:
    store = Store()
    store.apply(Listed(ONE, (replace(vm(), id=FIRST, host=ONE, name=literal("worker")),), 1))
    seen = Glance(store, [HostUnreachable("Host other is out of reach")])
    assert seen.find("worker").id == FIRST
    assert seen.find_surely("one/worker").id == FIRST
    with pytest.raises(NotFound, match="may not be the only one"):
        seen.find_surely("worker")


async def test_a_record_counts_whatever_its_host_is_called_by_now(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    host = Path(__file__).parents[1] / "adapters/data/host.xml"
    file.write_text(f'[hosts.lab]\nuri = "test://{host}"')
    loaded = load(file=file)
    agent = AgentId("00000000-0000-4000-8000-000000000001")
    open_catalogue(loaded).write(Record(agent, literal("agent-01"), ONE, is_frozen=True))
    seen = await glance(loaded, None)
    assert seen.find("lab/agent-01").state is State.FROZEN
