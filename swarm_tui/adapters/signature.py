"""Signatures of verdicts with the reviewer's own SSH key, by asyncssh (SSHSIG).

The format is that of OpenSSH's PROTOCOL.sshsig. asyncssh signs and verifies; which signature
counts for whom is decided here, as strictly as by `ssh-keygen -Y verify`: asyncssh would also
accept another namespace, RSA with SHA-1, and a certificate for which its plain key is allowed.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256, sha512
from pathlib import Path
from typing import Final, Literal

import asyncssh
from asyncssh.agent import SSHAgentKeyPair
from asyncssh.misc import wrap_base64
from asyncssh.packet import PacketDecodeError, SSHPacket, String, UInt32
from asyncssh.public_key import (
    CERT_TYPE_USER,
    SSHKeyPair,
    SSHOpenSSHCertificate,
    decode_ssh_certificate,
    decode_ssh_public_key,
)

from swarm_tui.errors import SignatureError
from swarm_tui.ports import Signature
from swarm_tui.review.signers import NAMESPACE, Entry, entries

DEADLINE_S: Final = 60.0
"""For a key that must be touched, or a question that an SSH agent asks."""

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_HASHES: Final = {b"sha256": sha256, b"sha512": sha512}
_ARMOUR: Final = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n?"
)
_RSA: Final = b"ssh-rsa"
_RSA_SIGNATURES: Final = (b"rsa-sha2-512", b"rsa-sha2-256")
_PREFERRED: Final = (
    b"ssh-ed25519",
    b"sk-ssh-ed25519@openssh.com",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"sk-ecdsa-sha2-nistp256@openssh.com",
    _RSA,
)
_NO_AGENT: Final = "Start an SSH agent and add your key with `ssh-add`, or name a key's file."
_WRONG: Final = (ValueError, OSError, PacketDecodeError, asyncssh.Error)
"""What asyncssh makes of bad keys, bad signatures and agents that hang up."""


class SshSigner:
    """Signs with a key of the SSH agent, or with the one in a file.

    A file with a public key, or a private one behind a passphrase, names the agent's key to use.
    """

    def __init__(self, source: Literal["agent"] | Path, environ: Mapping[str, str]) -> None:
        self._source = source
        self._socket = environ.get("SSH_AUTH_SOCK", "")

    async def sign(self, payload: bytes) -> Signature:
        """As `ports.Signer.sign`."""
        try:
            return await asyncio.wait_for(self._sign(payload), DEADLINE_S)
        except TimeoutError as error:
            raise SignatureError(
                "Nothing was signed",
                f"The key did not answer within {DEADLINE_S:.0f} seconds.",
                "If it is a security key, touch it when it blinks; then try again.",
            ) from error

    async def _sign(self, payload: bytes) -> Signature:
        if not isinstance(self._source, Path):
            return await self._sign_by_agent(payload, None)
        key = _private_key(self._source)
        if key is None:
            return await self._sign_by_agent(payload, _public_key(self._source))
        with _telling(f"The key {self._source} cannot sign"):
            pair = asyncssh.load_keypairs([key])[0]
            return await _signed(payload, pair, lambda it: asyncio.to_thread(pair.sign, it))

    async def _sign_by_agent(self, payload: bytes, wanted: bytes | None) -> Signature:
        if not self._socket:
            raise SignatureError("There is no SSH agent", "SSH_AUTH_SOCK is not set.", _NO_AGENT)
        with _telling("The SSH agent did not sign", _NO_AGENT):
            async with await asyncssh.connect_agent(self._socket) as agent:
                pairs = [
                    pair
                    for pair in await agent.get_keys()
                    if isinstance(pair, SSHAgentKeyPair) and pair.algorithm in _PREFERRED
                ]
                if wanted is not None:
                    pairs = [pair for pair in pairs if pair.public_data == wanted]
                if not pairs:
                    whose = "such key" if wanted else "key that can sign"
                    raise SignatureError(f"The SSH agent has no {whose}", hint=_NO_AGENT)
                pair = min(pairs, key=lambda pair: _PREFERRED.index(pair.algorithm))
                signed = await _signed(payload, pair, pair.sign_async)
        return signed

    async def check(
        self, payload: bytes, armored: str, principal: str, allowed_signers: Path
    ) -> str:
        """As `ports.Signer.check`."""
        return _check(payload, armored, principal, allowed_signers)


@contextmanager
def _telling(title: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except _WRONG as error:
        raise SignatureError(title, str(error), hint) from error


def _private_key(path: Path) -> asyncssh.SSHKey | None:
    """None when the file holds no private key that can be used without a passphrase."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SignatureError("Your key cannot be read", f"{path}: {error.strerror}") from error
    if b"PRIVATE KEY" not in content:
        return None
    try:
        return asyncssh.import_private_key(content)
    except ValueError as error:
        if "assphrase" in str(error):
            return None
        raise SignatureError("Your key cannot be read", f"{path}: {error}") from error


def _public_key(path: Path) -> bytes:
    """The public key in a file, or in the one beside a private key."""
    for place in (path, path.with_name(f"{path.name}.pub")):
        try:
            return asyncssh.read_public_key(place).public_data
        except (OSError, ValueError):
            continue
    raise SignatureError(
        "Your key cannot be used",
        f"{path} is protected by a passphrase, or is no key.",
        f"Add it to your SSH agent: ssh-add {path}",
    )


async def _signed(
    payload: bytes, pair: SSHKeyPair, sign: Callable[[bytes], Awaitable[bytes]]
) -> Signature:
    if pair.algorithm == _RSA:
        pair.set_sig_algorithm(_RSA_SIGNATURES[0])
    name = NAMESPACE.encode()
    raw = await sign(_to_sign(payload, name, b"sha512"))
    envelope = _Envelope(pair.public_data, name, b"sha512", raw)
    envelope.verify(payload)  # an agent may give anything
    kind = envelope.key().algorithm.decode()
    key = f"{kind} {binascii.b2a_base64(pair.public_data).decode().strip()}"
    return Signature(envelope.armored(), key)


def _to_sign(payload: bytes, namespace: bytes, hash_name: bytes) -> bytes:
    digest = _HASHES[hash_name](payload).digest()
    return _MAGIC + String(namespace) + String(b"") + String(hash_name) + String(digest)


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What an SSHSIG holds."""

    public_data: bytes
    namespace: bytes
    hash_name: bytes
    signature: bytes

    @classmethod
    def opened(cls, armored: str) -> _Envelope:
        """Raises ValueError, PacketDecodeError."""
        armour = _ARMOUR.fullmatch(armored.replace("\r\n", "\n").encode("utf-8", "replace"))
        if armour is None:
            raise ValueError("it is not an armoured SSH signature")
        packet = SSHPacket(binascii.a2b_base64(armour[1].replace(b"\n", b""), strict_mode=True))
        if packet.get_bytes(len(_MAGIC)) != _MAGIC or packet.get_uint32() != _VERSION:
            raise ValueError("it is of another version")
        public_data, namespace = packet.get_string(), packet.get_string()
        packet.get_string()  # reserved
        envelope = cls(public_data, namespace, packet.get_string(), packet.get_string())
        packet.check_end()
        return envelope

    def armored(self) -> str:
        blob = _MAGIC + UInt32(_VERSION) + String(self.public_data) + String(self.namespace)
        blob += String(b"") + String(self.hash_name) + String(self.signature)
        return wrap_base64(blob, b"SSH SIGNATURE", wrap=70).decode()

    def certificate(self) -> SSHOpenSSHCertificate | None:
        if b"-cert-v01@openssh.com" not in SSHPacket(self.public_data).get_string():
            return None
        certificate = decode_ssh_certificate(self.public_data)
        if not isinstance(certificate, SSHOpenSSHCertificate):
            raise ValueError("it is made with a certificate of another kind")
        return certificate

    def key(self) -> asyncssh.SSHKey:
        certificate = self.certificate()
        return certificate.key if certificate else decode_ssh_public_key(self.public_data)

    def verify(self, payload: bytes) -> None:
        """Raise ValueError unless its key made it over this payload."""
        key = self.key()
        algorithm = SSHPacket(self.signature).get_string()
        expected = _RSA_SIGNATURES if key.algorithm == _RSA else (key.algorithm,)
        if algorithm not in expected:
            raise ValueError(f"it is made with {algorithm.decode('ascii', 'replace')}")
        if self.hash_name not in _HASHES:
            raise ValueError("it is made with a hash that is not known")
        if not key.verify(_to_sign(payload, self.namespace, self.hash_name), self.signature):
            raise ValueError("it is not of this content")


def _check(payload: bytes, armored: str, principal: str, allowed_signers: Path) -> str:
    with _telling("The signature does not hold"):
        envelope = _Envelope.opened(armored)
        if envelope.namespace != NAMESPACE.encode():
            purpose = envelope.namespace.decode("utf-8", "replace")
            raise ValueError(f"it is made for {purpose!r}, not for {NAMESPACE!r}")
        envelope.verify(payload)
        fingerprint = envelope.key().get_fingerprint()
    with _telling("The allowed signers cannot be read"):
        text = allowed_signers.read_bytes().decode("utf-8", "surrogateescape")
    now = time.time()
    for entry in entries(text):
        if entry.allows(principal, NAMESPACE, now) and _is_of(entry, envelope, principal):
            return fingerprint
    raise SignatureError(
        "The signature is not of an allowed signer",
        f"{allowed_signers} does not allow {fingerprint} to sign as {principal} now.",
        "Add a line for that key there, if you know whose it is.",
    )


def _is_of(entry: Entry, envelope: _Envelope, principal: str) -> bool:
    """Whether the entry's key made the signature, or certified the key that did."""
    try:
        key = asyncssh.import_public_key(entry.key)
    except ValueError:
        return False
    if key.algorithm.decode() != entry.key.split()[0]:
        return False
    if not entry.is_authority:
        return key.public_data == envelope.public_data
    certificate = envelope.certificate()
    if certificate is None or certificate.signing_key.public_data != key.public_data:
        return False
    if principal not in certificate.principals:  # a certificate for everybody is for nobody
        return False
    try:
        certificate.validate(CERT_TYPE_USER, principal)
    except ValueError:
        return False
    return True
