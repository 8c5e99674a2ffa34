"""The workshop of a host far away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar, cast

from swarm_tui.adapters.road.road import Road
from swarm_tui.outpost.accel import Accel
from swarm_tui.outpost.workshop import Wiring, Workbench

P = ParamSpec("P")
T = TypeVar("T")

FILES_S: Final = 600.0
"""For what copies or digests a disk, however busy the host is."""


class RemoteWorkshop:
    """Implements `outpost.workshop.Workshop` on the host at the end of a road.

    Everything here blocks, and must be called from another thread than the event loop's.
    """

    def __init__(self, road: Road) -> None:
        self._road = road

    def root(self) -> Path:
        return self._ask(Workbench.root)

    def choose_accel(self, kernel: Path, initrd: Path, force: str) -> Accel:
        return self._ask(Workbench.choose_accel, kernel, initrd, force)

    def make_folder(self, folder: Path) -> None:
        self._ask(Workbench.make_folder, folder)

    def has(self, path: Path) -> bool:
        return self._ask(Workbench.has, path)

    def write(self, path: Path, content: str) -> None:
        self._ask(Workbench.write, path, content)

    def copy(self, source: Path, target: Path) -> None:
        self._ask(Workbench.copy, source, target)

    def overlay(self, base: Path, target: Path) -> None:
        self._ask(Workbench.overlay, base, target)

    def extend(self, source: Path, target: Path, more: str) -> None:
        self._ask(Workbench.extend, source, target, more)

    def remove(self, folder: Path) -> None:
        self._ask(Workbench.remove, folder)

    def room(self) -> int:
        return self._ask(Workbench.room)

    def free_port(self, taken: Sequence[int]) -> int:
        return self._ask(Workbench.free_port, taken)

    def is_free(self, port: int) -> bool:
        return self._ask(Workbench.is_free, port)

    def wire(self, wanted: str) -> Wiring:
        return self._ask(Workbench.wire, wanted)

    def take_address(self, folder: Path, taken: Sequence[str]) -> str:
        return self._ask(Workbench.take_address, folder, taken)

    def begin(self, target: Path, size: int) -> Path:
        return self._ask(Workbench.begin, target, size)

    def put(self, partial: Path, offset: int, piece: str) -> None:
        self._ask(Workbench.put, partial, offset, piece)

    def finish(self, partial: Path, target: Path, sha256: str) -> None:
        self._ask(Workbench.finish, partial, target, sha256)

    def _ask(self, call: Callable[Concatenate[Workbench, P], T], *args: P.args, **_: P.kwargs) -> T:
        return cast(T, self._road.ask_from_thread(call, args, FILES_S))
