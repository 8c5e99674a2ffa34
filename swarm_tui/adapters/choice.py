"""Which of a person's SSH keys signs, where none is configured."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import asyncssh

from swarm_tui.adapters.signature import SshSigner
from swarm_tui.errors import SignatureError
from swarm_tui.ports import Signature

_FILES: Final = ("id_ed25519", "id_ecdsa", "id_rsa")
_AGENT_S: Final = 5.0


class ChosenSigner:
    """Implements `ports.Signer` with the first key that there is.

    One of the SSH agent, else one of ~/.ssh that needs no passphrase, else our own at `own`, which
    is made when it is first needed. Once chosen, a key that fails is not replaced by another.
    """

    def __init__(self, environ: Mapping[str, str], own: Path) -> None:
        self._environ = environ
        self._own = own

    async def sign(self, payload: bytes) -> Signature:
        """As `ports.Signer.sign`."""
        return await SshSigner(await self._source(), self._environ).sign(payload)

    async def check(
        self, payload: bytes, armored: str, principal: str, allowed_signers: Path
    ) -> str:
        """As `ports.Signer.check`."""
        signer = SshSigner("agent", self._environ)
        return await signer.check(payload, armored, principal, allowed_signers)

    async def _source(self) -> Literal["agent"] | Path:
        if await self._has_agent():
            return "agent"
        folder = Path(self._environ.get("HOME", "/nonexistent")) / ".ssh"
        for name in _FILES:
            if await asyncio.to_thread(_is_open, folder / name):
                return folder / name
        if not self._own.exists():
            await asyncio.to_thread(make_key, self._own)
        return self._own

    async def _has_agent(self) -> bool:
        socket = self._environ.get("SSH_AUTH_SOCK", "")
        if not socket:
            return False
        try:
            async with asyncio.timeout(_AGENT_S), await asyncssh.connect_agent(socket) as agent:
                keys = await agent.get_keys()
        except (OSError, ValueError, TimeoutError, asyncssh.Error):
            return False
        return bool(keys)


def _is_open(path: Path) -> bool:
    """Whether it is a private key that can be used at once."""
    try:
        asyncssh.read_private_key(path)
    except (OSError, ValueError, asyncssh.Error):
        return False
    return True


def make_key(path: Path) -> None:
    """Make a new key at `path`, readable by its owner only. Raises SignatureError."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="swarm-tui reviewer")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as file:
            file.write(key.export_private_key())
        path.with_name(f"{path.name}.pub").write_bytes(key.export_public_key())
    except FileExistsError:
        return  # another process was quicker
    except OSError as error:
        raise SignatureError(
            "No key to sign with can be made", f"{path}: {error.strerror}"
        ) from error
