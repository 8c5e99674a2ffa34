"""What a person reads of a failure, and what a script sees."""

from __future__ import annotations

import inspect

import pytest

from swarm_tui import cli, errors
from swarm_tui.errors import Busy, HostError, HostUnreachable, SwarmError

TREE = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SwarmError) and kind is not SwarmError
]


@pytest.mark.parametrize("kind", TREE)
def test_every_kind_of_failure_has_a_documented_exit_code(kind: type[SwarmError]) -> None:
    assert kind.exit_code > 1, "1 says nothing"
    assert f"{kind.exit_code} " in cli.EXIT_CODES
    for parent in kind.__mro__:
        if parent in TREE and issubclass(parent, SwarmError):
            assert kind.exit_code == parent.exit_code, "scripts go by the branch of the tree"


def test_branches_do_not_share_a_code() -> None:
    branches = [kind for kind in TREE if kind.__mro__[1] is SwarmError]
    assert len({kind.exit_code for kind in branches}) == len(branches)


def test_foreign_text_in_an_error_is_safe_to_print() -> None:
    error = HostError("\x1b[2Jtitle\n", "de\u202etail\nsecond line", "h\x07int")
    assert error.title == "␛[2Jtitle␊"
    assert error.detail == "de\ufffdtail\nsecond line"
    assert error.hint == "h␇int"
    assert str(error) == "␛[2Jtitle␊: de\ufffdtail\nsecond line"
    assert len(HostError("x" * 10_000, "y" * 10_000).title) == 200


def test_a_failure_is_caught_by_what_it_is_about() -> None:
    assert isinstance(HostUnreachable("gone"), HostError)
    assert str(Busy("at work")) == "at work"
