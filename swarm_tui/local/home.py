"""What all agents of one local swarm share: its folder and keys, its host; what some are made of.

<folder>/keys/            our login key for the guests (0700)
<folder>/agents/UUID/     what belongs to one agent: its disk, for one
"""

from __future__ import annotations

import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swarm_tui.errors import AgentGone, GuestFailed
from swarm_tui.local.guest import dropbear_key
from swarm_tui.local.image import Image
from swarm_tui.model import Address, AgentId, HostName
from swarm_tui.outpost.programs import make_folder, run
from swarm_tui.ports import Guest, Hypervisor


@dataclass(frozen=True, slots=True)
class HostKey:
    """A guest's."""

    private: bytes
    """In dropbear's format."""
    public: str


@dataclass(frozen=True, slots=True)
class Mould:
    """What agents that are made alike have in common."""

    image: Image
    vcpus: int = 1
    memory_mib: int = 256
    disk_mib: int | None = None
    """Of the root disk; None, or less than the image's own: as large as that."""


@dataclass(frozen=True, slots=True)
class Home:
    folder: Path
    """Must be reachable (o+x) for the user that QEMU runs as."""
    hypervisor: Hypervisor
    """Open when it is used."""
    guest: Guest
    memory_mib: int = 256
    """Of agents whose profile does not say it."""
    via: HostName | None = None
    """The host by which its guests are reached; None: from here directly."""
    own_identity: Path | None = None
    """The private key that opens every guest, where it is not to be made in the folder."""

    @property
    def agents(self) -> Path:
        return self.folder / "agents"

    @property
    def identity(self) -> Path:
        """The private key that opens every guest."""
        return self.own_identity or self._keys / "id_ed25519"

    @property
    def _keys(self) -> Path:
        return self.folder / "keys"

    def make_folders(self) -> None:
        make_folder(self._keys, 0o700)
        make_folder(self.agents, 0o711)

    def login_key(self) -> str:
        """The public key line of our login key, which is made at first. Blocks."""
        if self.own_identity:  # a person's, of which the public half need not be there
            return run(["ssh-keygen", "-y", "-P", "", "-f", str(self.own_identity)]).decode()
        if not self.identity.exists():
            _make_key(self.identity)
        return self.identity.with_suffix(".pub").read_text()

    def make_host_key(self) -> HostKey:
        """Blocks. Raises Failed, SetupError, StorageFull."""
        with tempfile.TemporaryDirectory(dir=self._keys) as folder:
            path = Path(folder) / "host_key"
            _make_key(path)
            return HostKey(
                dropbear_key(path.read_bytes()), path.with_suffix(".pub").read_text().strip()
            )

    def address(self, host: str, port: int, host_key: str) -> Address:
        return Address(host, port, host_key, self.identity, via=self.via)

    async def execute(self, address: Address, script: str, stdin: bytes, limit_s: float) -> None:
        """Run a script of the image's own in a new guest. Raises GuestError."""
        done = await self.guest.run(address, script, stdin=stdin, timeout_s=limit_s)
        if done.exit_status != 0:
            complaint = done.stderr.decode("utf-8", "replace")
            raise GuestFailed("A new guest could not be set up", f"{script}: {complaint}")


async def end(hypervisor: Hypervisor, agent: AgentId) -> None:
    """Pull the plug and forget the VM; fine when it is not there."""
    with suppress(AgentGone):
        await hypervisor.destroy(agent)
    await hypervisor.undefine(agent)


def template_id(folder: Path) -> AgentId:
    """The same for each attempt at it, so that a killed one can be found and ended."""
    return AgentId(str(uuid.uuid5(uuid.NAMESPACE_URL, str(folder))))


def _make_key(path: Path) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "swarm-tui", "-f", str(path)])
