"""A foreign image's files as a tree in memory, layer upon layer.

Nothing here touches a file system: names of the image meet only each other, links are followed
within the tree, and so no path of a hostile image can lead out of it. Whiteouts and what replaces
what are as the OCI image specification has it (layer.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_AUFS: Final = b".wh..wh."
"""Other names that begin so are that file system's own bookkeeping."""
_HOPS: Final = 40
"""Links followed on one way, as in Linux."""


class Hostile(Exception):
    """The image is damaged, or made to do harm, or too large; the message says which."""


@dataclass(slots=True, eq=False)
class Node:
    mode: int
    """Permissions, with set-uid and the like."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    layer: int = 0
    """The topmost one that wrote it."""


@dataclass(slots=True, eq=False)
class Directory(Node):
    children: dict[bytes, Node] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class File(Node):
    content: Path = Path()
    """Where its bytes lie, under a name of ours."""
    capability: bytes = b""
    """What the program may do beyond its user, as the kernel has it; empty: nothing."""


@dataclass(slots=True, eq=False)
class Link(Node):
    target: bytes = b""


@dataclass(slots=True, eq=False)
class Pipe(Node):
    pass


class Tree:
    def __init__(self, max_inodes: int, max_path: int, max_depth: int) -> None:
        self.root = Directory(0o755)
        self.layer = 0
        """The one that is being applied."""
        self.inodes = 1
        """All that were ever made, replaced ones too."""
        self._linked: set[tuple[int, bytes]] = set()
        """Names that this layer gave to files of lower ones."""
        self._max_inodes = max_inodes
        self._max_path = max_path
        self._max_depth = max_depth

    # What a layer does

    def begin(self, layer: int) -> None:
        self.layer = layer
        self._linked.clear()

    def put(self, path: bytes, node: Node) -> None:
        """Put a node in its place; what was there goes, but a directory only changes its looks."""
        parts = self.parts(path)
        if not parts:
            if not isinstance(node, Directory):
                raise Hostile("an entry that would replace the root directory")
            self._restyle(self.root, node)
            return
        directory, name = self._place(parts)
        there = directory.children.get(name)
        node.layer = self.layer
        if isinstance(there, Directory) and isinstance(node, Directory):
            self._restyle(there, node)
            return
        self._count()
        directory.children[name] = node

    def link(self, path: bytes, target: bytes) -> None:
        """A hard link: `target`, which must be here already, under one name more."""
        parts, wanted = self.parts(path), self.parts(target)
        found = self._find(wanted) if wanted else None
        if found is None or isinstance(found, Directory):
            raise Hostile("a hard link to what is no file of the image")
        if not parts:
            raise Hostile("an entry that would replace the root directory")
        directory, name = self._place(parts)
        self._count()
        directory.children[name] = found
        self._linked.add((id(directory), name))

    def white_out(self, path: bytes) -> bool:
        """Do what a whiteout says. False: the path is none."""
        parts = self.parts(path)
        if not parts or not parts[-1].startswith(WHITEOUT):
            return False
        name = parts[-1]
        if name == OPAQUE:
            self._prune(self._descend(parts[:-1]))
        elif not name.startswith(_AUFS):
            hidden = name[len(WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise Hostile("a whiteout of no file")
            directory = self._descend(parts[:-1])
            there = directory.children.get(hidden)
            if there is not None and not self._survives(directory, hidden, there):
                del directory.children[hidden]
        return True

    def drop(self, path: bytes) -> None:
        """What this layer has there is left out, and what was there is gone all the same."""
        parts = self.parts(path)
        if parts:
            directory, name = self._place(parts)
            directory.children.pop(name, None)

    def parts(self, path: bytes) -> Sequence[bytes]:
        """The names that a path of the image is made of, from the root."""
        if len(path) > self._max_path:
            raise Hostile(f"a path of more than {self._max_path} bytes")
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise Hostile("a path that leads upwards: " + shown(path))
        if any(len(part) > 255 or b"\0" in part for part in parts):
            raise Hostile("a name that no file can have: " + shown(path))
        if len(parts) > self._max_depth:
            raise Hostile(f"directories nested more than {self._max_depth} deep")
        return parts

    # What we do

    def find(self, path: str) -> Node | None:
        """What a program in the guest would find there, links followed; None: nothing."""
        return self._follow(self.parts(path.encode()), is_made=False)

    def is_program(self, path: str) -> bool:
        node = self.find(path)
        return isinstance(node, File) and bool(node.mode & 0o111)

    def ensure_folder(self, path: str, mode: int = 0o755, owner: int = 0) -> Directory:
        """A directory, or what a link there leads to; what is in the way otherwise goes."""
        parts = self.parts(path.encode())
        found = self.find(path)
        if isinstance(found, Directory):
            return found
        directory, name = self._place(parts)
        self._count()
        made = Directory(mode, owner, owner, layer=self.layer)
        directory.children[name] = made
        return made

    def walk(self) -> Iterator[tuple[bytes, Directory]]:
        """Every directory with its path, the root (empty path) first, parents before children."""
        waiting = [(b"", self.root)]
        while waiting:
            path, directory = waiting.pop()
            yield path, directory
            for name, node in directory.children.items():
                if isinstance(node, Directory):
                    waiting.append((path + b"/" + name, node))

    # How

    def _restyle(self, there: Directory, node: Directory) -> None:
        there.mode, there.uid, there.gid = node.mode, node.uid, node.gid
        there.mtime, there.layer = node.mtime, self.layer

    def _count(self) -> None:
        self.inodes += 1
        if self.inodes > self._max_inodes:
            raise Hostile(f"more than {self._max_inodes:,} files")

    def _place(self, parts: Sequence[bytes]) -> tuple[Directory, bytes]:
        return self._descend(parts[:-1]), parts[-1]

    def _descend(self, parts: Sequence[bytes]) -> Directory:
        """The directory there; links are followed inside the tree, missing ones are made."""
        found = self._follow(parts, is_made=True)
        if not isinstance(found, Directory):
            raise Hostile("a path that leads through a file")
        return found

    def _find(self, parts: Sequence[bytes]) -> Node | None:
        """What is there; a link at the end is not followed."""
        directory = self._follow(parts[:-1], is_made=False)
        return directory.children.get(parts[-1]) if isinstance(directory, Directory) else None

    def _follow(self, parts: Sequence[bytes], *, is_made: bool) -> Node | None:
        trail, ahead, hops = [self.root], list(reversed(parts)), 0
        while ahead:
            part = ahead.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":  # of a link; above the root there is only the root
                del trail[max(1, len(trail) - 1) :]
                continue
            node = trail[-1].children.get(part)
            if node is None:
                if not is_made:
                    return None
                self._count()
                node = trail[-1].children[part] = Directory(0o755, layer=self.layer)
            if isinstance(node, Link):
                hops += 1
                if hops > _HOPS:
                    raise Hostile("links that lead in a circle")
                if node.target.startswith(b"/"):
                    del trail[1:]
                ahead.extend(reversed(node.target.split(b"/")))
            elif isinstance(node, Directory):
                trail.append(node)
                if len(trail) > self._max_depth + 1:
                    raise Hostile(f"directories nested more than {self._max_depth} deep")
            else:
                return None if ahead else node
        return trail[-1]

    def _prune(self, directory: Directory) -> None:
        """Leave only what the present layer wrote."""
        for name, node in list(directory.children.items()):
            if not self._survives(directory, name, node):
                del directory.children[name]

    def _survives(self, directory: Directory, name: bytes, node: Node) -> bool:
        if not isinstance(node, Directory):
            return node.layer == self.layer or (id(directory), name) in self._linked
        self._prune(node)
        return node.layer == self.layer or bool(node.children)


def shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "replace")[:80])
