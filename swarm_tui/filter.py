"""The language in which agents are chosen: on the screen, in saved views, on the command line.

    words           all of them occur in name, host, state, task, owner or labels
    host:lab        the whole value; * stands for anything
    state:asking,failed   one of several
    label:team=web, label:team, owner:me, name:web-*, is:waiting, is:busy
    task:login      part of the task
    -word  !host:lab      not
    task:"log in"   quotes keep spaces, commas and signs together

Everything that is said must hold. Capitals make no difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from swarm_tui.errors import UsageError
from swarm_tui.model import Agent, State
from swarm_tui.person import login
from swarm_tui.text import sanitize

Predicate = Callable[[Agent], bool]
_Match = Callable[[str], bool]

_IS: Final[Mapping[str, Predicate]] = {
    "waiting": lambda agent: agent.is_waiting,
    "busy": lambda agent: agent.operation is not None,
}
KEYS: Final[Mapping[str, str]] = {
    "state": "what it is doing",
    "host": "where it runs",
    "owner": "whose it is; me: yours",
    "label": "KEY or KEY=VALUE",
    "name": "what it is called",
    "task": "words of its task",
    "is": "waiting for a human, or busy with a verb",
}
"""Key → what it is about."""
_FIXED: Final = {"state": tuple(State), "is": tuple(_IS)}
_LONGEST: Final = 2000
"""Characters of a filter; nobody types more."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was understood."""

    text: str
    matches: Predicate
    is_everything: bool
    """It leaves nobody out."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the last word may become."""

    shown: str
    text: str
    """The whole filter with it."""


def parse(text: str, me: str | None = None) -> Filter:
    """Understand a filter. `me` is the login that "owner:me" means; None: our own.

    Raises UsageError, which says what is wrong with it.
    """
    if len(text) > _LONGEST:
        raise UsageError("The filter is too long", hint=f"Up to {_LONGEST:,} characters.")
    terms = [term for term in _terms(text) if term.characters]
    words = [term for term in terms if not term.key]
    checks = [_compile(term, me) for term in terms if term.key]
    if words:  # after what is quicker to ask
        checks.append(_check_words(words))
    match checks:
        case []:
            return Filter(text, _everything, is_everything=True)
        case [only]:
            return Filter(text, only, is_everything=False)
    return Filter(text, lambda agent: all(check(agent) for check in checks), is_everything=False)


def complete(text: str, known: Mapping[str, Iterable[str]]) -> Sequence[Completion]:
    """What the word at the end of `text` may become: a key, or a value out of `known`, by key."""
    start = len(text) - len(re.split(r'\s(?=(?:[^"]*"[^"]*")*[^"]*$)', text)[-1])
    word = text[start:]
    bare = word.lstrip("!-")
    key, colon, values = bare.partition(":")
    if not colon:
        keys = [name for name in KEYS if name.startswith(bare.casefold())] if bare else list(KEYS)
        sign = word[: len(word) - len(bare)]
        return [Completion(f"{name}:", f"{text[:start]}{sign}{name}:") for name in keys]
    begun = values.rpartition(",")[2]
    kept = text[: len(text) - len(begun)]
    wanted = begun.strip('"').casefold()
    candidates = _FIXED.get(key.casefold(), known.get(key.casefold(), ()))
    return [
        Completion(value, kept + _quote(value))
        for value in sorted(set(candidates), key=str.casefold)
        if value.casefold().startswith(wanted) and value.casefold() != wanted
    ]


def quote(key: str, value: str) -> str:
    """The filter for exactly this value of a key."""
    return f"{key}:{_quote(value)}"


@dataclass(frozen=True, slots=True)
class _Term:
    """One word of a filter, its characters each with whether it stood in quotes."""

    is_negated: bool
    characters: tuple[tuple[str, bool], ...]

    @property
    def colon(self) -> int:
        """Where it stands outside of quotes; -1: nowhere."""
        return next((at for at, found in enumerate(self.characters) if found == (":", False)), -1)

    @property
    def key(self) -> str:
        """Empty for a word: without a colon, or with one as in 12:30."""
        key = _plain(self.characters[: max(self.colon, 0)])
        return key if key.isalpha() else ""


def _terms(text: str) -> Iterator[_Term]:
    at, end = 0, len(text)
    while at < end:
        if text[at].isspace():
            at += 1
            continue
        is_negated = text[at] in "!-"
        at += is_negated
        characters: list[tuple[str, bool]] = []
        is_quoted = False
        while at < end and (is_quoted or not text[at].isspace()):
            if text[at] == '"':
                is_quoted = not is_quoted
            else:
                characters.append((text[at], is_quoted))
            at += 1
        if is_quoted:
            raise UsageError("A quote is not closed", hint='Quotes go in pairs: task:"log in".')
        yield _Term(is_negated, tuple(characters))


def _compile(term: _Term, me: str | None) -> Predicate:
    check = _check(term, me)
    return (lambda agent: not check(agent)) if term.is_negated else check


def _check(term: _Term, me: str | None) -> Predicate:
    key = term.key
    if key not in KEYS:
        meant = _guess(key, list(KEYS), ":")
        raise UsageError(
            f"There is no {key}:",
            f"{meant}Keys are {', '.join(f'{name}:' for name in KEYS)}.",
            "Quotes make it a word to look for.",
        )
    values = [value for value in _split(term.characters[term.colon + 1 :], ",") if value]
    if not values:
        raise UsageError(f"{key}: needs a value", KEYS[key])
    match key:
        case "state":
            states = frozenset(_one_of("state", _plain(value), _FIXED["state"]) for value in values)
            return lambda agent: agent.state in states
        case "is":
            checks = [_IS[_one_of("is", _plain(value), _FIXED["is"])] for value in values]
            return lambda agent: any(check(agent) for check in checks)
        case "task":
            words = [_plain(value) for value in values]
            return lambda agent: any(word in agent.tag.task.casefold() for word in words)
        case "label":
            return _check_labels(values)
        case "owner":
            return _check_owner(values, me)
        case "host":
            is_host = _any(values)
            return lambda agent: is_host(agent.host.casefold())
    is_name = _any(values)
    return lambda agent: is_name(agent.name.casefold())


def _check_words(terms: Sequence[_Term]) -> Predicate:
    wanted = [_plain(term.characters) for term in terms if not term.is_negated]
    unwanted = [_plain(term.characters) for term in terms if term.is_negated]

    def matches(agent: Agent) -> bool:
        about = _about(agent)
        return all(word in about for word in wanted) and not any(word in about for word in unwanted)

    return matches


def _check_labels(values: Sequence[Sequence[tuple[str, bool]]]) -> Predicate:
    pairs = [value for value in values if "=" in _plain(value)]
    is_pair = _any(pairs)
    is_key = _any([value for value in values if value not in pairs])

    def matches(agent: Agent) -> bool:
        return any(
            is_key(label.key.casefold()) or is_pair(label.text.casefold())
            for label in agent.tag.labels
        )

    return matches


def _check_owner(values: Sequence[Sequence[tuple[str, bool]]], me: str | None) -> Predicate:
    mine = ""
    if any(value == [("m", False), ("e", False)] for value in map(list, values)):
        mine = (me or login()).casefold()
    is_owner = _any(values)

    def matches(agent: Agent) -> bool:
        owner = agent.tag.owner.casefold()
        return is_owner(owner) or (bool(mine) and (owner == mine or owner.startswith(f"{mine}@")))

    return matches


def _one_of(key: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        meant = _guess(value, allowed)
        raise UsageError(f"{key}:{value} is none", f"{meant}It can be {', '.join(allowed)}.")
    return value


def _guess(word: str, known: Sequence[str], sign: str = "") -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    return f"Did you mean {near[0]}{sign}? " if near else ""


def _any(values: Sequence[Sequence[tuple[str, bool]]]) -> _Match:
    """Whether a text (casefolded) is one of these values."""
    exact = frozenset(_plain(value) for value in values if ("*", False) not in value)
    starred = [_starred(value) for value in values if ("*", False) in value]
    if not starred:
        return exact.__contains__
    return lambda text: text in exact or any(matches(text) for matches in starred)


def _starred(value: Sequence[tuple[str, bool]]) -> _Match:
    first, *middle, last = (_plain(part) for part in _split(value, "*"))

    def matches(text: str) -> bool:
        at, end = len(first), len(text) - len(last)
        if at > end or not (text.startswith(first) and text.endswith(last)):
            return False
        for part in middle:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return matches


def _plain(characters: Sequence[tuple[str, bool]]) -> str:
    return "".join(character for character, _ in characters).casefold()


def _split(
    characters: Sequence[tuple[str, bool]], sign: str
) -> Iterator[Sequence[tuple[str, bool]]]:
    """Divide at a sign that is not in quotes."""
    start = 0
    for at, found in enumerate(characters):
        if found == (sign, False):
            yield characters[start:at]
            start = at + 1
    yield characters[start:]


def _about(agent: Agent) -> str:
    tag = agent.tag
    labels = [label.text for label in tag.labels]
    parts = (agent.name, agent.host, agent.state.value, tag.task, tag.owner, *labels)
    return "\n".join(parts).casefold()


def _everything(_: Agent) -> bool:
    return True


def _quote(value: str) -> str:
    plain = sanitize(value).replace('"', "")  # it goes into an input, and a host may be called so
    is_odd = not plain or re.search(r"[\s,*:!]|^-", plain) or plain == "me"
    return f'"{plain}"' if is_odd else plain
