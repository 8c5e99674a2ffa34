"""What a reviewer must have seen before an approval counts.

A flag accuses nobody: it says that a change does more, or shows less, than its lines.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from swarm_tui.handoff import ABSENT, EXECUTABLE, SUBMODULE, SYMLINK, Change, Flag, FlagKind
from swarm_tui.review import hidden, places
from swarm_tui.review.diff import FileDiff, is_binary
from swarm_tui.text import sanitize

LONG_LINE: Final = 2000
"""Characters; the screen shows twice as many, but nobody reads them."""
MANY_FILES: Final = 1000
MANY_LINES: Final = 50_000

_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?")
_ODD_BLANK: Final = re.compile("[\\xa0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000]")
_AT_INSTALL: Final = re.compile(
    # npm's that run without being called (npm-scripts), and Composer's events.
    r"(pre|post)?(install|prepare)|prepublish|dependencies|(pre|post)-[a-z-]+"
)


def flags(change: Change, old: bytes | None, new: bytes | None, diff: FileDiff) -> Sequence[Flag]:
    """Flags of one change, with the content as `diff.make` got it; one of a kind and reason."""
    found = chain(
        _of_types(change, old, new),
        _of_content(change, old, new),
        _of_place(change),
        _of_scripts(change, old, new, diff),
        _of_name(change.path),
        _of_lines(change, new, diff),
    )
    return [Flag(kind, sanitize(detail), change.path, line) for kind, detail, line in found]


def whole(
    changes: Sequence[Change], *, is_descended: bool, others: Iterable[bytes] = ()
) -> Sequence[Flag]:
    """Flags of the review as a whole. `others` are unchanged paths, which may clash with new ones.

    `is_descended`: the base is in the history of the head.
    """
    found = []
    if not is_descended:
        found.append(
            Flag(
                FlagKind.HISTORY,
                sanitize("the base is not in the history: the agent began anew or rewrote it"),
            )
        )
    lines = sum((change.added or 0) + (change.removed or 0) for change in changes)
    if len(changes) > MANY_FILES or lines > MANY_LINES:
        detail = f"{len(changes):,} files and {lines:,} lines: more than can be read with care"
        found.append(Flag(FlagKind.TOO_LARGE, sanitize(detail)))
    return [*found, *_clashes(changes, others)]


_Found = Iterator[tuple[FlagKind, str, int | None]]


def _of_types(change: Change, old: bytes | None, new: bytes | None) -> _Found:
    modes = (change.old_mode, change.new_mode)
    if SUBMODULE in modes:
        sides = ((change.old_mode, change.old), (change.new_mode, change.new))
        was, now = (oid[:12] if mode == SUBMODULE else "none" for mode, oid in sides)
        yield FlagKind.SUBMODULE, f"code from elsewhere: {was} -> {now}", None
    if change.new_mode == SYMLINK:
        yield FlagKind.SYMLINK, _target(change.path, new), None
    elif change.old_mode == SYMLINK and change.new_mode != ABSENT:
        yield FlagKind.SYMLINK, f"was a symlink to {_shown(old)}", None
    if change.new_mode not in (ABSENT, SUBMODULE, SYMLINK):
        if change.new_mode == EXECUTABLE and change.old_mode != EXECUTABLE:
            is_new = change.old_mode == ABSENT
            yield FlagKind.MODE, "a new executable" if is_new else "became executable", None
        elif change.new_mode != change.old_mode not in (ABSENT, SUBMODULE, SYMLINK):
            yield FlagKind.MODE, f"mode {change.old_mode} -> {change.new_mode}", None


def _target(path: bytes, target: bytes | None) -> str:
    detail = f"points to {_shown(target)}"
    if target is None:
        return detail
    depth = path.count(b"/")
    is_out = target[:1] in (b"/", b"\\") or target[1:2] == b":"
    for part in target.split(b"/"):
        depth += {b"": 0, b".": 0, b"..": -1}.get(part, 1)
        is_out = is_out or depth < 0
    if is_out:
        return f"{detail}: that leaves the tree"
    inside = [part.lower() for part in target.split(b"/")]
    return f"{detail}: that is git's own" if b".git" in inside else detail


def _shown(target: bytes | None) -> str:
    return "something that is not shown" if target is None else sanitize(target, max_cells=200)


def _of_content(change: Change, old: bytes | None, new: bytes | None) -> _Found:
    sides = ((change.old_mode, old), (change.new_mode, new))
    if any(blob is None and mode not in (ABSENT, SUBMODULE) for mode, blob in sides):
        yield FlagKind.TOO_LARGE, "too large: its content is not shown", None
    texts = [blob for mode, blob in sides if blob and mode not in (ABSENT, SUBMODULE, SYMLINK)]
    if any(map(is_binary, texts)):
        yield FlagKind.BINARY, "binary: its content is not shown", None


def _of_place(change: Change) -> _Found:
    paths = [change.path] if change.old_path is None else [change.path, change.old_path]
    found = dict.fromkeys(chain.from_iterable(map(places.kinds, paths)))
    for kind, does in found:
        yield kind, does, None


def _of_scripts(change: Change, old: bytes | None, new: bytes | None, diff: FileDiff) -> _Found:
    name = change.path.rpartition(b"/")[2].lower()
    if name not in (b"package.json", b"composer.json") or not new:
        return
    was, now = _scripts(old or b"{}"), _scripts(new)
    if now is None:
        yield FlagKind.HOOK, "its scripts cannot be read", None
        return
    changed = sorted(key for key, script in now.items() if (was or {}).get(key) != script)
    if changed:
        key = changed[0].encode()
        lines = (number for number, line in enumerate(diff.new, 1) if b'"%s"' % key in line)
        yield FlagKind.HOOK, f"runs at an install: {', '.join(changed)}", next(lines, None)


def _scripts(content: bytes) -> Mapping[str, Any] | None:
    """Those that run at an install; None when the file cannot be read."""
    try:
        raw = json.loads(content.decode("utf-8-sig"))
        scripts = raw.get("scripts", {}) if isinstance(raw, dict) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(scripts, dict):
        return None
    return {key: script for key, script in scripts.items() if _AT_INSTALL.fullmatch(key)}


def _of_name(path: bytes) -> _Found:
    reasons = list(_oddities(path))
    if reasons:
        yield FlagKind.NAME, "; ".join(reasons), None


def _oddities(path: bytes) -> Iterator[str]:
    try:
        text = path.decode()
    except UnicodeDecodeError:
        yield "its name is not UTF-8"
        text = path.decode("utf-8", "replace")
    parts = text.split("/")
    if not parts[0] or ".." in parts or "\\" in text or re.match("[A-Za-z]:", text):
        yield "its name may lead out of the tree"
    if "\n" in text or "\t" in text or "\r" in text:
        yield "its name has more than one line, or a tab"
    if unseen := hidden.in_name(text.replace("\n", "")):
        yield f"its name has {unseen}"
    if _ODD_BLANK.search(text):
        yield "its name has a blank that is no space"
    folded = [part.casefold() for part in parts]
    if any(part.startswith("-") for part in parts):
        yield "its name can be taken for an option"
    if any(part != part.strip() or part.endswith(".") for part in parts if part not in ("..", ".")):
        yield "its name begins or ends with a blank or a dot that some systems drop"
    if any(_DEVICE.fullmatch(part) for part in folded):
        yield "its name is a device on Windows"
    if any(re.fullmatch(r"\.?git~[0-9]+|\.git[\s.]*(:.*)?", part) for part in folded):
        yield "its name can be taken for git's own folder"


def _of_lines(change: Change, new: bytes | None, diff: FileDiff) -> _Found:
    if new is None or not diff.new:
        return
    spans = [span for span in diff.spans if span.added]
    lines = [line for span in spans for line in diff.new[span.new : span.new + span.added]]

    def number(index: int) -> int:
        """Of a line among the added ones, in the new file."""
        for span in spans:
            if index < span.added:
                return span.new + index + 1
            index -= span.added
        raise IndexError(index)

    long = [at for at, line in enumerate(lines) if len(line) > LONG_LINE and _is_long(line)]
    if long:
        longest = max(len(lines[at].decode("utf-8", "replace")) for at in long)
        detail = f"{_lines(len(long))} of up to {longest:,} characters"
        yield FlagKind.LONG_LINE, detail, number(long[0])
    if not lines:
        return
    is_start = bool(spans) and spans[0].new == 0
    if found := hidden.find(lines, is_start=is_start):
        least = "at least " if found.count == hidden.MANY else ""
        detail = f"{found.what}; in {least}{_lines(found.count)}"
        yield FlagKind.HIDDEN, detail, number(found.index)
    strange = [at for at, line in enumerate(lines) if not _is_utf8(line)]
    if strange and change.new_mode != SYMLINK:
        detail = f"not UTF-8: what is shown is not what is there, in {_lines(len(strange))}"
        yield FlagKind.ENCODING, detail, number(strange[0])


def _is_long(line: bytes) -> bool:
    return len(line.decode("utf-8", "replace")) > LONG_LINE


def _is_utf8(line: bytes) -> bool:
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


def _clashes(changes: Sequence[Change], others: Iterable[bytes]) -> Iterator[Flag]:
    """Paths, and folders of paths, that are one where case or composition does not count."""
    present = [change.path for change in changes if change.new_mode != ABSENT]
    spelt: dict[str, bytes] = {}
    told: set[str] = set()
    for path in others:
        for place in _with_folders(path):
            spelt.setdefault(_folded(place), place)
    for path in present:
        for place in _with_folders(path):
            folded = _folded(place)
            other = spelt.setdefault(folded, place)
            if other != place and folded not in told:
                told.add(folded)
                detail = f"on some systems the same as {sanitize(other)}"
                yield Flag(FlagKind.CASE_CLASH, sanitize(detail), path)


def _with_folders(path: bytes) -> Iterator[bytes]:
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)
    yield path


def _folded(path: bytes) -> str:
    if path.isascii():
        return path.decode().lower()
    text = path.decode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
