"""The colours of source text, asked of a process apart; text is plain until, and if, they come."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from swarm_tui.handoff import Change, Side
from swarm_tui.review.diff import FileDiff
from swarm_tui.text import sanitize
from swarm_tui.ui.lexer import LENGTH, ROLES
from swarm_tui.ui.shade import Span

ANSWER_S: Final = 10.0
"""By then there is an answer or none. The lexer's process itself gives up sooner, by its own CPU
time; this is for a machine that is too busy, and for a process that hangs."""
CHUNK: Final = 800
"""Lines that are asked for at once."""
_LEAD_IN: Final = 300
"""Lines before a chunk that the lexer reads, to know where it is."""
_REST_S: Final = 0.05
_ANSWER_BYTES: Final = 32 << 20

Lines = Sequence[Sequence[Span]]


class Lexer:
    """The process apart: started when it is first needed, and anew after it was ended."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._answer: asyncio.Task[Lines | None] | None = None
        """That to the last question, which may still be under way."""

    async def ask(self, name: str, first: str, text: str) -> Lines | None:
        """What is what in each line of `text`; None when it cannot be told, or not in time."""
        question = json.dumps({"name": name, "first": first, "text": text}).encode()
        async with self._turn:
            if self._answer:
                await asyncio.wait([self._answer])
            # Who asked may be gone before the answer is there: it is taken in all the same, so
            # that the next answer is that to the next question.
            self._answer = asyncio.create_task(self._take_answer(question), name="lexer")
            return await asyncio.shield(self._answer)

    async def _take_answer(self, question: bytes) -> Lines | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                return _read(await self._exchange(question))
        except (TimeoutError, OSError, EOFError, ValueError):
            # Too slow, ended by its own limit, or talking nonsense: the text stays plain.
            await self._end()
            return None

    async def close(self) -> None:
        if self._answer:
            self._answer.cancel()
            await asyncio.wait([self._answer])
        await self._end()

    async def _exchange(self, question: bytes) -> bytes:
        if self._process is None:
            # -P: nothing is imported from the folder in which the program was started.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "swarm_tui.ui.lexer",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        questions.write(LENGTH.pack(len(question)) + question)
        await questions.drain()
        (length,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
        if length > _ANSWER_BYTES:
            raise ValueError(length)
        return await answers.readexactly(length)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())


def _read(answer: bytes) -> Lines | None:
    """Raises ValueError for what is no answer."""
    parsed = json.loads(answer)
    if parsed is None:
        return None
    try:
        return [
            [
                (line[at], line[at + 1], ROLES[line[at + 2]])
                for at in range(0, len(line), 3)
                if 0 <= line[at] < line[at + 1]
            ]
            for line in parsed["lines"]
        ]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError("no answer") from error


class Coat:
    """The colours of one file, as far as they are known: asked for by chunks, as they are seen."""

    def __init__(self, diff: FileDiff, lexer: Lexer, on_painted: Callable[[], None]) -> None:
        self._diff = diff
        self._lexer = lexer
        self._on_painted = on_painted
        self._chunks: dict[tuple[Side, int], Lines] = {}
        self._wanted: list[tuple[Side, int]] = []
        self._task: asyncio.Task[None] | None = None
        self._is_plain = False
        """No colours will come: there is no lexer, or it failed on this file."""

    @property
    def change(self) -> Change:
        return self._diff.change

    @property
    def is_settled(self) -> bool:
        """Nothing is under way."""
        return self._task is None or self._task.done()

    def spans(self, side: Side, line: int) -> Sequence[Span]:
        """Of a line (from 1); none as long as they are not known, but then they are asked for."""
        if self._is_plain:
            return ()
        number, place = divmod(line - 1, CHUNK)
        chunk = self._chunks.get((side, number))
        if chunk is None:
            self._want((side, number))
            return ()
        return chunk[place] if place < len(chunk) else ()

    def close(self) -> None:
        if self._task:
            self._task.cancel()

    def _want(self, chunk: tuple[Side, int]) -> None:
        if chunk in self._wanted:
            return
        self._wanted.append(chunk)
        if self.is_settled:
            self._task = asyncio.create_task(self._paint(), name="paint")

    async def _paint(self) -> None:
        await asyncio.sleep(_REST_S)  # who only passes by needs no colours
        while self._wanted and not self._is_plain:
            side, number = self._wanted[-1]  # what was asked for last is what is seen now
            lines = await self._ask(side, number)
            self._wanted.remove((side, number))
            if lines is None:
                self._is_plain = True
            else:
                self._chunks[side, number] = lines
                self._on_painted()

    async def _ask(self, side: Side, number: int) -> Lines | None:
        change = self._diff.change
        path = change.old_path if side == "old" and change.old_path is not None else change.path
        count = len(self._diff.old if side == "old" else self._diff.new)
        first = number * CHUNK
        lead_in = max(0, first - _LEAD_IN)
        texts = [
            self._diff.text(side, line)
            for line in range(lead_in + 1, min(first + CHUNK, count) + 1)
        ]
        shebang = self._diff.text(side, 1) if count else ""
        name = sanitize(path.rpartition(b"/")[2])
        lines = await self._lexer.ask(name, shebang, "\n".join(texts))
        return None if lines is None else lines[first - lead_in :]
