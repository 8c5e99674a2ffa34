"""The calls that an outpost takes from afar, and who answers them.

Each call is one function or method of ours; its type hints are the format in which it travels.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from swarm_tui import durable
from swarm_tui.errors import HostError
from swarm_tui.model import AgentId
from swarm_tui.outpost import daemon, process, saved, survey, vmm
from swarm_tui.outpost.ledger import Ledger
from swarm_tui.outpost.wire import decode_arguments, encode
from swarm_tui.outpost.workshop import Workbench
from swarm_tui.paths import make_private
from swarm_tui.snapshot import Draft, Snapshots

_CALLS: Final[Sequence[Callable[..., Any]]] = (
    process.measure,
    process.holders,
    process.end,
    vmm.tell_vmm,
    saved.begin_save,
    saved.exists,
    saved.room,
    saved.check_saved,
    daemon.find_socket,
    survey.survey,
    Ledger.keep,
    Ledger.kept,
    Ledger.drop,
    Snapshots.ids,
    Snapshots.read,
    Snapshots.draft,
    Snapshots.drafts,
    Snapshots.has_memory,
    Snapshots.plan,
    Snapshots.room,
    Snapshots.copy_disks,
    Snapshots.is_copied,
    Snapshots.seal,
    Snapshots.is_torn,
    Snapshots.put_back,
    Snapshots.set_aside,
    Snapshots.discard,
    Snapshots.verify,
    Snapshots.stage,
    Snapshots.parts,
    Snapshots.scratch,
    Snapshots.take_in,
    Snapshots.unstage,
    Snapshots.definition,
    Snapshots.label,
    Snapshots.prune,
    Snapshots.remove,
    Workbench.root,
    Workbench.choose_accel,
    Workbench.make_folder,
    Workbench.has,
    Workbench.write,
    Workbench.copy,
    Workbench.overlay,
    Workbench.extend,
    Workbench.remove,
    Workbench.room,
    Workbench.free_port,
    Workbench.is_free,
    Workbench.wire,
    Workbench.take_address,
    Workbench.begin,
    Workbench.put,
    Workbench.finish,
)
NAMES: Final[Mapping[Callable[..., Any], str]] = {call: call.__qualname__ for call in _CALLS}
"""What each call is called on its way."""
_BY_NAME: Final = {name: call for call, name in NAMES.items()}


class Desk:
    """Answers calls, on the host that they are about. Everything here blocks."""

    def __init__(self, data: Path, snapshots: Path) -> None:
        """`data` is a folder of our own; `snapshots` is where snapshots are kept."""
        self._locks = data / "locks"
        self._owners: Mapping[str, object] = {
            "Ledger": Ledger(data / "ledger"),
            "Snapshots": Snapshots(snapshots),
            "Workbench": Workbench(data / "workshop"),
        }

    def answer(self, name: str, raw: object) -> Any:
        """The answer as JSON has it. Raises SwarmError, and Garbled for what is no call."""
        call = _BY_NAME.get(name)
        if call is None:
            raise HostError("The outpost takes no such call", repr(name))
        arguments = decode_arguments(call, raw)
        owner = self._owners.get(name.rpartition(".")[0])
        if owner is None:
            return encode(call(*arguments))
        with self._locked(arguments[0]) if isinstance(owner, Snapshots) else nullcontext():
            return encode(call(owner, *arguments))

    @contextmanager
    def _locked(self, subject: AgentId | Draft) -> Iterator[None]:
        """Wait until nobody else is at an agent's snapshots, and keep others from them.

        An outpost whose connection was cut finishes what it does while the next one begins.
        """
        agent = subject.folder.parent.name if isinstance(subject, Draft) else subject
        with durable.storage("lock the agent's snapshots"):
            make_private(self._locks)
            handle = os.open(self._locks / agent, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
