"""What the supervisor needs of the world, written from its side. Adapters conform to these.

Every call may raise the errors named in `swarm_tui.errors`; none of them raises a library's own.
Every call that waits has a deadline of its own and raises DeadlineExceeded when it passes: then
the outcome is unknown and must be read again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from swarm_tui.label import Label
from swarm_tui.model import (
    Address,
    AgentId,
    Capabilities,
    Completed,
    Counters,
    EventBatch,
    Hint,
    HostName,
    Message,
    Tag,
    Vm,
)
from swarm_tui.premises import Footprint, Process, Survey
from swarm_tui.profile import PLAIN, Profile
from swarm_tui.text import EMPTY, Safe

Progress = Callable[[Safe, float | None], None]
"""Told a step in words and, where known, the fraction done (0 to 1). Called on the event loop."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A host's size, for capacity and placement. `None` is unknown."""

    cpus: int | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    """Name of one that is unknown → the reason shown to users."""


class Console(Protocol):
    """The serial console of a VM, both ways."""

    def read(self) -> AsyncIterator[bytes]:
        """Output as it comes; ends when the VM stops or the console is taken by another."""
        ...

    async def write(self, data: bytes) -> None: ...


class Hypervisor(Protocol):
    """One connection to one libvirt host (or a stand-in for one).

    After `HostUnreachable` the connection is dead: `close` it and `open` it again, then list
    everything anew. Agent ids stay valid across that.
    """

    @property
    def host(self) -> HostName: ...

    @property
    def uri(self) -> str: ...

    async def open(self, on_hint: Callable[[Hint], None]) -> Capabilities:
        """Connect, probe what the driver can do, and begin to give hints.

        `on_hint` is called on the event loop. A closed connection gives `Hint(None, "closed")`.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; VMs go on. Safe to call at any time, also twice."""
        ...

    async def list(self) -> Sequence[Vm]:
        """Every VM that carries our tag, running or not; one that hangs with what is known of it.

        Then its `disks` are None, here and in `describe`.
        """
        ...

    async def describe(self, agent: AgentId) -> Vm:
        """One VM, read now. Raises AgentGone."""
        ...

    async def definition(self, agent: AgentId) -> str:
        """The definition (XML) from which the VM can be defined again."""
        ...

    async def counters(self) -> Mapping[AgentId, Counters]:
        """Counters of all active VMs that carry our tag, in one round trip where possible."""
        ...

    async def facts(self) -> HostFacts: ...

    async def define(self, definition: str) -> AgentId:
        """Make a VM known, not started."""
        ...

    async def undefine(self, agent: AgentId) -> None:
        """Forget a stopped VM; files stay. Already gone is fine."""
        ...

    async def start(self, agent: AgentId) -> None:
        """Cold boot. Raises Refused when it runs already."""
        ...

    async def suspend(self, agent: AgentId) -> None:
        """Stop the vCPUs. Already suspended is fine; raises Refused when it is off."""
        ...

    async def resume(self, agent: AgentId) -> None:
        """Let suspended vCPUs run. Running already is fine; raises Refused when it is off."""
        ...

    async def destroy(self, agent: AgentId) -> None:
        """Pull the plug. Already off is fine."""
        ...

    async def save(self, agent: AgentId, target: Path, on_progress: Progress) -> None:
        """Write memory and devices to `target`, which must not exist, and stop the VM.

        `target` becomes a file or a folder, as the driver likes. The disks are not copied, and
        the VM stays defined. On failure the VM runs on (or is left paused; describe tells) and
        `target` may be left over, incomplete. Raises StorageFull where the disk is the reason.
        """
        ...

    async def check_saved(self, target: Path) -> None:
        """Raise SnapshotError unless `target` is a whole save of this driver."""
        ...

    async def restore(self, agent: AgentId, target: Path) -> None:
        """Bring back what `save` wrote and let it run, even if it was suspended then.

        `target` is only read. Raises SnapshotError when it is no save, or that of another VM.
        """
        ...

    async def dump(self, agent: AgentId, target: Path) -> None:
        """Write memory and devices of a suspended VM to `target`, as `save` does.

        It stays suspended, and its disks hold what the memory believes until it is resumed. Raises
        Refused when it is not suspended, StorageFull. On failure `target` may be left over.
        """
        ...

    async def checkpoint(self, agent: AgentId) -> str:
        """Put memory and devices of a suspended VM into its own disk image.

        Returns the driver's description of it, for `fork`. The VM stays suspended. Raises Refused
        when it is not.
        """
        ...

    async def fork(self, definition: str, checkpoint: str) -> AgentId:
        """Define a VM and run it from the checkpoint that a copy of its disk holds.

        `checkpoint` is the text from `checkpoint`, with the source's name, id, disk path, port
        and console log already replaced by the new VM's own.
        """
        ...

    def console(self, agent: AgentId) -> AbstractAsyncContextManager[Console]:
        """Open the serial console; an earlier reader loses it."""
        ...


class Outpost(Protocol):
    """Our eyes and hands on a host where libvirt has none: its kernel and a folder of our own.

    In this process where the host is this machine, over SSH otherwise. Calls raise
    HostUnreachable when the way there is cut, and HostDenied where the login may not do it.
    """

    async def open(self) -> None:
        """Make ready; again after HostUnreachable."""
        ...

    async def close(self) -> None:
        """Let go of the host. Safe to call at any time, also twice."""
        ...

    async def measure(self, asked: Mapping[int, Sequence[str]]) -> Mapping[int, Footprint]:
        """The footprints of processes, by number; of each its taps' names are given.

        A process that has ended (or is a zombie) is not in the answer.
        """
        ...

    async def holders(self, files: Sequence[Path]) -> Mapping[Path, Process]:
        """Which process has a file open for writing; files that none has are not in the answer."""
        ...

    async def end(self, process: Process) -> None:
        """Kill a process and wait until it is gone. Gone already, or another by now, is fine."""
        ...

    async def tell_vmm(self, socket: Path, command: str, body: str, timeout_s: float) -> str:
        """Give a command such as "vm.pause" to a Cloud Hypervisor's API socket; its answer's body.

        For VMMs that no libvirt daemon speaks to any more. Commands that only ask ("vm.info",
        "vm.counters", "vmm.ping") are GETs. Raises HostError with the VMM's words, AgentGone when
        there is no such socket, and DeadlineExceeded.
        """
        ...

    async def begin_save(self, folder: Path, definition: str) -> None:
        """Make a folder as libvirt does before Cloud Hypervisor saves to it."""
        ...

    async def room(self, folder: Path) -> int:
        """Free bytes where `folder` lies, or will lie."""
        ...

    async def survey(self, is_session: bool, named: Path | None, disks: Sequence[Path]) -> Survey:
        """What there is on the host. `named` is the socket of the daemon, where one is named."""
        ...

    async def keep(self, agent: AgentId, name: str, content: str) -> Path:
        """Keep a small text of an agent on the host, durably; replaces the one of that name.

        Returns the file that it is in there.
        """
        ...

    async def kept(self, name: str) -> Mapping[AgentId, str]:
        """All agents' texts of that name."""
        ...

    async def drop(self, agent: AgentId, name: str | None = None) -> None:
        """Forget one text of an agent, or all of them."""
        ...

    async def check_saved(self, folder: Path) -> str:
        """The definition in a folder that Cloud Hypervisor was saved to by libvirt.

        Raises SnapshotError when a part of it is missing or shorter than it must be.
        """
        ...


class Guest(Protocol):
    """SSH into guests. One connection per guest is kept and made anew when it breaks.

    Nothing that a guest says is believed: sizes are capped, text is sanitized, keys are pinned.
    """

    def events(self, address: Address, offset: int) -> AsyncIterator[EventBatch]:
        """Follow the guest's event file from a byte offset. Raises GuestError when cut.

        The first batch comes as soon as the guest answers, and may be empty. A file shorter than
        `offset` is a new one and is read from its start.
        """
        ...

    def traffic(self, address: Address, interval_s: float) -> AsyncIterator[tuple[int, int]]:
        """Network totals (received, sent) in bytes, as the guest tells them, again and again."""
        ...

    async def freeze(self, address: Address, timeout_s: float) -> None:
        """Stop the agent's processes; returns when they stand still. Freezing twice is fine."""
        ...

    async def thaw(self, address: Address, timeout_s: float) -> None:
        """Let them go on. Thawing what runs is fine."""
        ...

    async def refresh(self, address: Address, timeout_s: float) -> None:
        """After a restore: set the clock to now and stir fresh entropy into the RNG.

        Waits for the guest to answer, as long as `timeout_s` allows.
        """
        ...

    async def deliver(self, address: Address, message: Message, timeout_s: float) -> None:
        """Put a message into the inbox, atomically; one that was read already stays so."""
        ...

    async def run(
        self, address: Address, script: str, *, stdin: bytes = b"", timeout_s: float
    ) -> Completed:
        """Run a POSIX shell script as root, its output capped at 1 MiB per stream.

        Waits for the guest to answer, as long as `timeout_s` allows.
        """
        ...

    async def download(
        self,
        address: Address,
        script: str,
        target: Path,
        *,
        stdin: bytes = b"",
        limit_bytes: int,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        """As `run`, but standard output goes into `target`, which is made anew.

        Nothing beyond `limit_bytes` is written: then the script is stopped, `target` removed, and
        GuestFailed raised. `on_bytes` is told the total so far. Raises StorageFull.
        """
        ...

    async def upload(
        self,
        address: Address,
        script: str,
        source: Path,
        *,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        """As `run`, but standard input comes out of the file `source`, a piece at a time.

        `on_bytes` is told how much was sent so far. Raises SetupError when it cannot be read.
        """
        ...

    async def shell(self, address: Address, command: str | None, user: str | None) -> int:
        """Join this process's terminal to a login shell, or to `command`; its exit status.

        Without a terminal on standard input none is asked for, and bytes pass unchanged. Ended
        by a signal: 128 + its number.
        """
        ...

    async def forget(self, address: Address) -> None:
        """Drop the connection, e.g. because the VM was stopped on purpose."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A commit of a repository, ready to be a guest's workspace."""

    repository: Path
    """The owner's, here; work on top of the commit can land in it."""
    commit: str
    archive: Path
    """A tar of one folder `.git`, to be unpacked in an empty workspace."""
    size_bytes: int
    """Of the archive."""


@dataclass(frozen=True, slots=True)
class Order:
    """One agent that is wanted."""

    name: str = ""
    """Empty: the next free one."""
    task: str = ""
    labels: tuple[Label, ...] = ()
    """With those of the profile among them."""
    profile: Profile = PLAIN
    source: Source | None = None
    """What its workspace shall be; None: the image's own project."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of its program. Secrets may be among them: they go into the guest and nowhere else."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A new agent that answered over SSH."""

    agent: AgentId
    name: Safe
    seconds: float
    host: HostName | None = None
    """Told by the supervisor, as is the reason."""
    reason: Safe = EMPTY
    """Why on that host."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The memory, in bytes, that one agent takes of a host."""

    guest: int
    overhead: int
    """Of its VMM itself, at most; an estimate."""

    @property
    def total(self) -> int:
        return self.guest + self.overhead


OnNamed = Callable[[AgentId, Safe], Awaitable[None]]
"""Told who a new agent will be, before there is anything of it; when it raises, there will not be.
Told more than once, the earlier one came to nothing."""


class Spawner(Protocol):
    """Makes new agents on one host."""

    def needs(self, profile: Profile) -> Needs:
        """What an agent of it takes there. Does not block.

        Raises Unsupported with the reason where none can be made.
        """
        ...

    async def spawn(self, order: Order, on_progress: Progress, on_named: OnNamed) -> Spawned:
        """Make an agent and wait until it answers over SSH.

        A spawn that fails half-way leaves nothing behind. What one that was killed left goes by
        `Hypervisor.destroy`, `undefine` and `discard` of the agent that was named.
        """
        ...

    async def discard(self, vm: Vm) -> None:
        """Remove the files of a VM that this spawner made, and that is undefined by now.

        Never touches files outside its own folder.
        """
        ...


@dataclass(frozen=True, slots=True)
class Parent:
    """An agent as one of its snapshots holds it. The files are only read."""

    id: AgentId
    name: Safe
    tag: Tag
    definition: str
    memory: Path
    disks: Sequence[Path]
    is_frozen: bool


@runtime_checkable
class Forker(Protocol):
    """A spawner that also makes agents of a snapshot."""

    @property
    def unforking(self) -> str:
        """Why it cannot, for people; empty: it can."""
        ...

    async def fork(
        self, parent: Parent, name: str, task: str, on_progress: Progress, on_named: OnNamed
    ) -> Spawned:
        """Make an agent that goes on from the snapshot, and wait until it is somebody of its own.

        Its name, keys, addresses and randomness are. Without a `task` it has its parent's. One
        that fails half-way leaves nothing behind, as with `Spawner.spawn`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Signature:
    armored: str
    """SSHSIG as `ssh-keygen -Y sign` writes it."""
    key: str
    """The public key that made it: "ssh-ed25519 AAAA…"."""


class Signer(Protocol):
    """The reviewer's SSH key, from the reviewer's agent or a file."""

    async def sign(self, payload: bytes) -> Signature:
        """Sign a verdict. Raises SignatureError when no key can be used, and says what to do."""
        ...

    async def check(
        self, payload: bytes, armored: str, principal: str, allowed_signers: Path
    ) -> str:
        """Raise SignatureError unless a key that `allowed_signers` allows to `principal` made it.

        The same file and rules as `ssh-keygen -Y verify`. Returns the key's fingerprint
        ("SHA256:…").
        """
        ...
