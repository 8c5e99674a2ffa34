"""A file of JSON lines, each of which carries its number and the digest of what stands before it.

    {"seq": 8, "prev": "<sha256>", "chain": "<id>", …}

`prev` is the SHA-256 of everything from the start of the numbered line before to this one, without
the last newline: that line alone, unless a crash left a torn one behind it. Before the first
numbered line it is of the whole file: a log from the time before the chain is its beginning.
Whoever changes, removes or moves a line breaks the next one; that the last ones were removed is
seen by who knows the head.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from swarm_tui import durable
from swarm_tui.errors import AuditError

LONGEST_LINE_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 1 << 16
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CHAIN: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest line of a chain: who knows it, knows of all lines before it."""

    chain: str
    seq: int
    sha256: str
    """Of the line, without its newline."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What holds of a whole file."""

    head: Head | None
    """None: it has no numbered line."""
    unchained: int
    """Lines from the time before the chain."""
    torn: tuple[int, ...]
    """Lines of the file, from 1, that a crash cut short. They were never acknowledged."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it stands in a file."""

    chain: str
    seq: int
    """Below 1: from before the chain."""
    content: bytes
    torn: bytes
    """What stands between the numbered line before and this one; mostly nothing."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class Chain:
    """The file. Several processes may append to it: each holds its lock for a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, fields: Mapping[str, Any]) -> Head:
        """Add a line that is on the disk when this returns. Raises AuditError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            is_new = not self.path.exists()
            with self._locked() as handle:
                head = _append(handle, fields)
            if is_new:
                durable.sync_folder(self.path.parent)
        except OSError as error:
            raise AuditError(
                "The audit log cannot be written",
                f"{self.path}: {error}",
                "Nothing is done without its record: make room or mend the folder's permissions.",
            ) from error
        return head

    @contextmanager
    def _locked(self) -> Iterator[int]:
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # While another one writes, the file's size may be ahead of its last byte.
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def lines(self, since_byte: int = 0) -> Iterator[bytes]:
        """The lines as they are now, without newlines; of a negative number, the file's end.

        Of one that is over-long, a part. No file, no lines. Raises AuditError.
        """
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = max(0, size + since_byte) if since_byte < 0 else since_byte
                file.seek(start)
                if start and since_byte < 0:
                    file.readline()
                while file.tell() < size and (line := file.readline(LONGEST_LINE_BYTES)):
                    yield line.removesuffix(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise AuditError("The audit log cannot be read", f"{self.path}: {error}") from error

    def size(self) -> int:
        """Bytes of the file; 0 without one. Raises AuditError."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise AuditError("The audit log cannot be read", f"{self.path}: {error}") from error

    def head(self) -> Head | None:
        """The newest line; None while there is none. Raises AuditError."""
        lines = self.lines_from(None)
        return Head(lines[-1].chain, lines[-1].seq, lines[-1].sha256) if lines else None

    def lines_from(self, seq: int | None) -> Sequence[Line]:
        """Those from the one of that number on; from 0 also what is before the chain.

        None: the last numbered one alone. Raises AuditError.
        """
        try:
            with open(self.path, "rb") as file:
                return _read_from(file.fileno(), os.fstat(file.fileno()).st_size, seq)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AuditError("The audit log cannot be read", f"{self.path}: {error}") from error

    def verify(self) -> Proof:
        """Check every line. Raises AuditError that says which is the first that is wrong."""
        check = _Check()
        try:
            # Not a part of a line that is being written.
            with self._locked() as handle:
                size = os.fstat(handle).st_size
            with open(self.path, "rb") as file:
                while file.tell() < size:
                    line = file.readline(LONGEST_LINE_BYTES)
                    if problem := check.take(line):
                        raise AuditError(
                            "The audit log was altered",
                            f"{self.path}, line {check.number}: {problem}.",
                            "What stands before that line still holds.",
                        )
        except FileNotFoundError:
            pass
        except OSError as error:
            raise AuditError("The audit log cannot be read", f"{self.path}: {error}") from error
        return Proof(check.head, check.unchained, tuple(check.torn))


def parse(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that is no JSON object."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def link_of(raw: Mapping[str, Any] | None) -> tuple[str, int, str] | None:
    """Chain, number and digest of what is before a line; None for one that is not numbered."""
    if raw is None:
        return None
    chain, seq, prev = raw.get("chain"), raw.get("seq"), raw.get("prev")
    if not (isinstance(chain, str) and isinstance(prev, str) and isinstance(seq, int)):
        return None
    if not _CHAIN.fullmatch(chain) or not _SHA256.fullmatch(prev) or seq < 1:
        return None
    return chain, seq, prev


@dataclass(slots=True)
class _Check:
    """Goes through the lines of a file in their order."""

    number: int = 0
    head: Head | None = None
    unchained: int = 0
    torn: list[int] = field(default_factory=list)
    _since: Any = field(default_factory=hashlib.sha256)
    """Of all since the start of the last numbered line, without the newline that is due."""
    _owed: bytes = b""

    def take(self, line: bytes) -> str:
        """What is wrong with the next line; empty when nothing is."""
        self.number += 1
        if len(line) >= LONGEST_LINE_BYTES and not line.endswith(b"\n"):
            return "it is longer than any that is written here"
        content = line.removesuffix(b"\n")
        raw = parse(content)
        if link := link_of(raw):
            problem = self._follow(*link)
            self._since, self._owed = hashlib.sha256(), b""
            self.head = Head(link[0], link[1], hashlib.sha256(content).hexdigest())
        else:
            problem = self._pass_over(raw is not None)
        self._since.update(self._owed + content)
        self._owed = b"\n"
        return problem

    def _follow(self, chain: str, seq: int, prev: str) -> str:
        was = self.head
        expected = was.seq + 1 if was else 1
        if was and chain != was.chain:
            return "it is of another log"
        if seq > expected:
            count = seq - expected
            return f"{count:,} {'line is' if count == 1 else 'lines are'} missing before it"
        if seq < expected:
            return f"number {seq:,} is there again, behind {expected - 1:,}"
        if prev != self._since.hexdigest():
            return f"what stands before it, number {expected - 1:,}, is not what was written"
        return ""

    def _pass_over(self, is_object: bool) -> str:
        if self.head is None:
            self.unchained += 1
        elif is_object:
            return "it was not written as a part of the log"
        else:
            self.torn.append(self.number)
        return ""


def _append(handle: int, fields: Mapping[str, Any]) -> Head:
    size = os.fstat(handle).st_size
    was, since = _read_end(handle, size)
    chain, seq = (was[0], was[1] + 1) if was else (secrets.token_hex(8), 1)
    prev = hashlib.sha256(since.removesuffix(b"\n")).hexdigest()
    content = json.dumps({"seq": seq, "prev": prev, "chain": chain, **fields}).encode()
    is_torn = since != b"" and not since.endswith(b"\n")  # a crash or a full disk cut it short
    line = b"\n" * is_torn + content + b"\n"
    if os.write(handle, line) != len(line):
        raise OSError("the line was cut short")
    os.fsync(handle)
    return Head(chain, seq, hashlib.sha256(content).hexdigest())


def _read_end(handle: int, size: int) -> tuple[tuple[str, int, str] | None, bytes]:
    """The link of the last numbered line, and all from its start; without one the whole file."""
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        tail = os.pread(handle, size - start, start)
        end = len(tail.removesuffix(b"\n"))
        while end > 0:
            at = tail.rfind(b"\n", 0, end) + 1
            # Where the tail begins in the middle of a line, that line is not looked at.
            if (at or not start) and (link := link_of(parse(tail[at:end]))):
                return link, tail[at:]
            end = at - 1
        if start == 0:
            return None, tail
        length *= 4


def _read_from(handle: int, size: int, seq: int | None) -> Sequence[Line]:
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        whole = os.pread(handle, size - start, start)
        # Where it begins in the middle of a line, that line is not looked at.
        lines = _number(whole if not start else whole.partition(b"\n")[2], is_whole=not start)
        numbered = [line for line in lines if line.seq > 0]
        if seq is None and (numbered or not start):
            return numbered[-1:]
        if seq is not None and (not start or (seq > 0 and numbered and numbered[0].seq <= seq)):
            return [line for line in lines if line.seq >= seq or seq == 0]
        length *= 4


def _number(content: bytes, *, is_whole: bool) -> Sequence[Line]:
    """The lines of a file, or of its end. Torn ones are with those that follow them."""
    found: list[Line] = []
    loose: list[bytes] = []
    for line in content.removesuffix(b"\n").split(b"\n"):
        link = link_of(parse(line))
        if link is None:
            loose.append(line)
            continue
        if not found and is_whole:
            first = 1 - len(loose)
            found += [Line("", first + at, older, b"") for at, older in enumerate(loose)]
            loose = []
        found.append(Line(link[0], link[1], line, b"\n".join(loose)))
        loose = []
    return found
