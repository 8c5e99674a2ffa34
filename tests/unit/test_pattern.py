"""Typed expressions: smart case, clear refusals, and no expression that hangs."""

from __future__ import annotations

import pytest

from swarm_tui.errors import UsageError
from swarm_tui.pattern import compile_pattern


@pytest.mark.parametrize(
    ("text", "line", "is_found"),
    [
        ("error", "An ERROR came", True),
        ("Error", "An ERROR came", False),
        ("Error", "An Error came", True),
        (r"\Dx\S", "1XX", False),
        (r"\Dx\S", "aXb", True),  # \D and \S are no capitals
        (r"^\d+ passed$", "42 passed", True),
        (r"^\d+ passed$", "42 passed, 1 failed", False),
        ("größe", "GRÖSSE GRÖßE", True),
        (r"\p{Lu}", "a", True),
        ("[[:upper:]]", "a", True),
    ],
)
def test_smart_case(text: str, line: str, is_found: bool) -> None:
    assert compile_pattern(text).matches(line) is is_found


def test_places_are_those_of_the_text() -> None:
    assert compile_pattern("ü.").spans("日本 üx and Üy") == [(3, 5), (10, 12)]
    assert compile_pattern("x*").spans("axxb") == [(1, 3)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(foo", "missing )"),
        ("[z", "missing ]"),
        ("a{2,1}", "repetition"),
        ("*a", "no argument for repetition"),
        (r"(?<=a)b", "(?<="),
        (r"(a)\1", r"\1"),
        ("a\\", "trailing"),
        ("x" * 1001, "1001 characters"),
        ("((a{100}){100}){100}", ""),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as refused:
        compile_pattern(text)
    assert said in f"{refused.value.title} {refused.value.detail}"
    assert capfd.readouterr().err == ""  # the library's own words would stand across the screen


@pytest.mark.parametrize("text", ["(a+)+$", "(a|aa)+$", "(.*a){20}$", "(x+x+)+y"])
def test_no_expression_is_slow(text: str) -> None:
    # With a backtracking matcher each of these takes longer than the universe has existed.
    assert not compile_pattern(text).matches("a" * 60 + "x" * 4000 + "!")


@pytest.mark.parametrize(
    "text", ["b", "^b", "b$", r"\s", "[^a]", "x*", "^$", "ü", "日|b", r"a\nb", "B", "nowhere"]
)
def test_many_lines_match_as_each_alone(text: str) -> None:
    lines = ["ab", "b", "", "ba x", "über", "日本", "a", "B", "", "end b"]
    pattern = compile_pattern(text)
    assert pattern.among(lines) == [pattern.matches(line) for line in lines]
    assert pattern.among([]) == []
