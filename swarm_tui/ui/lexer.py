"""A process of its own that says what is what in source text: `python -m swarm_tui.ui.lexer`.

The text is hostile: a lexer's regular expressions may take exponential time on it, without ever
letting another thread run. Here that costs nobody but this process, which the kernel ends when it
has worked for `WORK_S` seconds on one question.

A question and an answer are JSON after four bytes of length. {"name", "first", "text"} is answered
by {"lines": [[start, end, role, …], …]} with places in each line of the text, or by null where
there is no lexer for it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from pygments.lexer import Lexer

ROLES: Final = ("keyword", "string", "number", "comment", "name", "type")
WORK_S: Final = 2.0
LENGTH: Final = struct.Struct(">I")
_MEMORY_BYTES: Final = 512 << 20
_NICE: Final = 5

_SHEBANG: Final = re.compile(r"#!\s*\S*?(?:/env\s+(?:-S\s+)?)?([A-Za-z]+)[\d.]*(?:\s|$)")


def main() -> int:
    """Answer questions on standard input until it ends."""
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl+c is the screen's
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := questions.read(LENGTH.size):
        question = json.loads(questions.read(*LENGTH.unpack(head)))
        signal.setitimer(signal.ITIMER_PROF, WORK_S)
        answer = lex(question)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(answers, answer)
    return 0


def _write(answers: BinaryIO, answer: object) -> None:
    data = json.dumps(answer, separators=(",", ":")).encode()
    answers.write(LENGTH.pack(len(data)) + data)
    answers.flush()


def lex(question: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to a question."""
    lexer = _find_lexer(question["name"], question["first"])
    if lexer is None:
        return None
    lines: list[list[int]] = [[] for _ in range(question["text"].count("\n") + 1)]
    for number, start, end, role in _places(lexer, question["text"]):
        lines[number] += (start, end, role)
    return {"lines": lines}


def _places(lexer: Lexer, text: str) -> Iterator[tuple[int, int, int, int]]:
    """Line, start, end and role of everything that has one."""
    number = column = 0
    for _, token, value in lexer.get_tokens_unprocessed(text):
        role = _role(token)
        for place, part in enumerate(value.split("\n")):
            if place:
                number, column = number + 1, 0
            if role is not None and part.strip():
                yield number, column, column + len(part), role
            column += len(part)


def _find_lexer(name: str, first: str) -> Lexer | None:
    from pygments.lexers import find_lexer_class_for_filename, get_lexer_by_name
    from pygments.util import ClassNotFound

    if found := find_lexer_class_for_filename(name):
        lexer: Lexer = found(stripnl=False, ensurenl=False)
        return lexer
    shebang = _SHEBANG.match(first)
    if shebang is None:
        return None
    try:
        return get_lexer_by_name(shebang[1], stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _role(token: Any) -> int | None:
    """The place in ROLES of a kind of token."""
    from pygments import token as kind_of

    kinds = (
        (kind_of.Comment.Preproc, "keyword"),
        (kind_of.Comment, "comment"),
        (kind_of.Keyword.Type, "type"),
        (kind_of.Keyword.Constant, "number"),
        (kind_of.Keyword, "keyword"),
        (kind_of.Operator.Word, "keyword"),
        (kind_of.Number, "number"),
        (kind_of.String, "string"),
        (kind_of.Literal, "string"),
        (kind_of.Name.Function, "name"),
        (kind_of.Name.Class, "name"),
        (kind_of.Name.Decorator, "name"),
        (kind_of.Name.Tag, "name"),
        (kind_of.Name.Builtin, "type"),
        (kind_of.Name.Attribute, "type"),
    )
    known = _ROLES.get(token, -1)
    if known == -1:
        known = next((ROLES.index(role) for kind, role in kinds if token in kind), None)
        _ROLES[token] = known
    return known


_ROLES: Final[dict[object, int | None]] = {}

if __name__ == "__main__":
    sys.exit(main())
