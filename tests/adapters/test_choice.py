"""The key that signs where none is configured: the agent's, else one of ~/.ssh, else our own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from swarm_tui.adapters.choice import ChosenSigner
from swarm_tui.adapters.signature import SshSigner
from swarm_tui.errors import SignatureError

PAYLOAD = b"a verdict\n"


def make_key(path: Path, passphrase: str = "") -> str:
    path.parent.mkdir(exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path.with_suffix(".pub").read_text().strip()


def add_key(agent: Path, key: Path) -> None:
    environ = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", str(key)], env=environ, check=True)


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    return {"HOME": str(tmp_path)}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """A real SSH agent's socket, without keys."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert process.poll() is None
        yield socket
    finally:
        process.terminate()
        process.wait()


async def test_who_has_no_key_gets_one_of_their_own(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    own = tmp_path / "config/reviewer_key"
    first = await ChosenSigner(environ, own).sign(PAYLOAD)
    assert (await ChosenSigner(environ, own).sign(PAYLOAD)).key == first.key
    assert own.stat().st_mode & 0o777 == 0o600
    signers = tmp_path / "signers"
    signers.write_text(f"ann {first.key}\n")
    signer = ChosenSigner(environ, own)
    assert (await signer.check(PAYLOAD, first.armored, "ann", signers)).startswith("SHA256:")
    with pytest.raises(SignatureError):
        await signer.check(b"another\n", first.armored, "ann", signers)


async def test_a_key_without_a_passphrase_goes_before_our_own(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    make_key(tmp_path / ".ssh/id_ecdsa", "secret")
    mine = make_key(tmp_path / ".ssh/id_rsa")
    signed = await ChosenSigner(environ, tmp_path / "own").sign(PAYLOAD)
    assert signed.key == mine
    assert not (tmp_path / "own").exists()


async def test_an_agent_with_keys_goes_before_files(
    tmp_path: Path, environ: Mapping[str, str], agent: Path
) -> None:
    filed = make_key(tmp_path / ".ssh/id_ed25519")
    chosen = ChosenSigner({**environ, "SSH_AUTH_SOCK": str(agent)}, tmp_path / "own")
    assert (await chosen.sign(PAYLOAD)).key == filed, "an agent without keys cannot sign"
    loaded = make_key(tmp_path / "elsewhere/key")
    add_key(agent, tmp_path / "elsewhere/key")
    assert (await chosen.sign(PAYLOAD)).key == loaded


async def test_an_agent_that_is_gone_is_none(tmp_path: Path, environ: Mapping[str, str]) -> None:
    gone = {**environ, "SSH_AUTH_SOCK": str(tmp_path / "nothing")}
    assert (await ChosenSigner(gone, tmp_path / "own").sign(PAYLOAD)).key
    with pytest.raises(SignatureError):
        await SshSigner("agent", gone).sign(PAYLOAD)
