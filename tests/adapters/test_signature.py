"""Our signatures against OpenSSH's own tools, in both directions; and all that is refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from swarm_tui.adapters import signature
from swarm_tui.adapters.signature import SshSigner
from swarm_tui.errors import SignatureError
from swarm_tui.review.signers import first_line

PAYLOAD = b'{"judgement": "approve"}\n'
ANN = "ann@example.org"
TYPES = {"ed25519": [], "ecdsa": ["-b", "384"], "rsa": ["-b", "2048"]}


def run(*arguments: object, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(argument) for argument in arguments],
        input=stdin,
        capture_output=True,
        env={"PATH": os.environ["PATH"], **(environ or {})},
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def make_key(folder: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    path = folder / f"key-{kind}-{len(list(folder.iterdir()))}"
    run("ssh-keygen", "-q", "-t", kind, *TYPES[kind], "-N", passphrase, "-C", "", "-f", path)
    return path


def public(key: Path) -> str:
    return key.with_name(key.name + ".pub").read_text().strip()


def openssh_signs(key: Path, namespace: str = "swarm-verdict", *options: str) -> str:
    return run("ssh-keygen", "-Y", "sign", *options, "-n", namespace, "-f", key, stdin=PAYLOAD)


def openssh_accepts(
    armored: str, allowed: Path, payload: bytes = PAYLOAD, principal: str = ANN
) -> bool:
    armour = allowed.with_name("openssh.sig")
    armour.write_text(armored)
    done = subprocess.run(
        [
            *["ssh-keygen", "-Y", "verify", "-n", "swarm-verdict", "-s"],
            armour,
            "-f",
            allowed,
            "-I",
            principal,
        ],
        input=payload,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0


async def we_accept(
    armored: str, allowed: Path, payload: bytes = PAYLOAD, principal: str = ANN
) -> bool:
    try:
        fingerprint = await SshSigner("agent", {}).check(payload, armored, principal, allowed)
    except SignatureError:
        return False
    assert fingerprint.startswith("SHA256:")
    return True


def allow(allowed: Path, content: str) -> None:
    allowed.write_bytes(content.encode())


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    return tmp_path / "allowed_signers"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path)


@dataclass(frozen=True)
class Agent:
    """A real ssh-agent."""

    socket: str

    @property
    def environ(self) -> dict[str, str]:
        return {"SSH_AUTH_SOCK": self.socket}

    def add(self, key: Path) -> None:
        run("ssh-add", "-q", key, environ=self.environ)


@pytest.fixture
def agent() -> Iterator[Agent]:
    folder = tempfile.mkdtemp(prefix="ssh-")  # short, for the socket
    socket = f"{folder}/socket"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while not os.path.exists(socket):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield Agent(socket)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", TYPES)
async def test_openssh_accepts_what_a_key_file_signs(
    tmp_path: Path, allowed: Path, kind: str
) -> None:
    key = make_key(tmp_path, kind)
    made = await SshSigner(key, {}).sign(PAYLOAD)
    assert made.key == public(key)
    allow(allowed, first_line(ANN, made.key))
    assert openssh_accepts(made.armored, allowed)
    assert await we_accept(made.armored, allowed)


@pytest.mark.parametrize("kind", TYPES)
async def test_openssh_accepts_what_the_agent_signs(
    tmp_path: Path, allowed: Path, agent: Agent, kind: str
) -> None:
    key = make_key(tmp_path, kind)
    agent.add(key)
    made = await SshSigner("agent", agent.environ).sign(PAYLOAD)
    assert made.key == public(key)
    allow(allowed, first_line(ANN, made.key))
    assert openssh_accepts(made.armored, allowed)
    assert await we_accept(made.armored, allowed)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("hashed", ["sha256", "sha512"])
async def test_we_accept_what_openssh_signs(
    tmp_path: Path, allowed: Path, kind: str, hashed: str
) -> None:
    key = make_key(tmp_path, kind)
    armored = openssh_signs(key, "swarm-verdict", "-O", f"hashalg={hashed}")
    allow(allowed, first_line(ANN, public(key)))
    assert await we_accept(armored, allowed)
    fingerprint = await SshSigner("agent", {}).check(PAYLOAD, armored, ANN, allowed)
    assert fingerprint in run("ssh-keygen", "-l", "-f", key)


async def test_ed25519_is_preferred_and_a_public_key_file_chooses(
    tmp_path: Path, agent: Agent
) -> None:
    rsa, ed25519 = make_key(tmp_path, "rsa"), make_key(tmp_path)
    agent.add(rsa)
    agent.add(ed25519)
    assert (await SshSigner("agent", agent.environ).sign(PAYLOAD)).key == public(ed25519)
    chosen = rsa.with_name(rsa.name + ".pub")
    assert (await SshSigner(chosen, agent.environ).sign(PAYLOAD)).key == public(rsa)


async def test_a_key_behind_a_passphrase_is_used_by_way_of_the_agent(
    tmp_path: Path, agent: Agent
) -> None:
    locked, other = make_key(tmp_path, passphrase="open sesame"), make_key(tmp_path)
    agent.add(other)
    with pytest.raises(SignatureError, match="no such key") as raised:
        await SshSigner(locked, agent.environ).sign(PAYLOAD)
    assert "ssh-add" in raised.value.hint
    run("ssh-keygen", "-q", "-p", "-P", "open sesame", "-N", "", "-f", locked)
    agent.add(locked)
    run("ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", locked)
    assert (await SshSigner(locked, agent.environ).sign(PAYLOAD)).key == public(locked)


async def test_without_an_agent_the_user_is_told_what_to_do(tmp_path: Path, agent: Agent) -> None:
    locked = make_key(tmp_path, passphrase="open sesame")
    with pytest.raises(SignatureError, match="no SSH agent") as raised:
        await SshSigner(locked, {}).sign(PAYLOAD)
    assert "ssh-add" in raised.value.hint
    old = make_key(tmp_path, "rsa")
    run("ssh-keygen", "-q", "-p", "-m", "PEM", "-N", "open sesame", "-f", old)
    old.with_name(old.name + ".pub").unlink()
    with pytest.raises(SignatureError) as raised:
        await SshSigner(old, agent.environ).sign(PAYLOAD)
    assert "passphrase" in raised.value.detail
    for environ in ({}, {"SSH_AUTH_SOCK": str(tmp_path / "none")}, agent.environ):
        with pytest.raises(SignatureError) as raised:
            await SshSigner("agent", environ).sign(PAYLOAD)
        assert "ssh-add" in raised.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAA\n"]
)
async def test_a_file_that_is_no_key_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SignatureError) as raised:
        await SshSigner(path, {}).sign(PAYLOAD)
    assert str(path) in raised.value.detail
    with pytest.raises(SignatureError):
        await SshSigner(tmp_path / "missing", {}).sign(PAYLOAD)


async def silent_agent(folder: str, answer: bytes) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()
        writer.close()

    return await asyncio.start_unix_server(serve, f"{folder}/socket")


async def test_a_key_that_is_never_touched_ends_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "DEADLINE_S", 0.2)
    with tempfile.TemporaryDirectory() as folder:
        async with await silent_agent(folder, b""):
            with pytest.raises(SignatureError) as raised:
                await SshSigner("agent", {"SSH_AUTH_SOCK": f"{folder}/socket"}).sign(PAYLOAD)
    assert "touch it" in raised.value.hint


async def test_an_agent_that_talks_nonsense_is_told() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with await silent_agent(folder, b"\0\0\0\x05\x0c\xff\xff\xff\xff"):
            with pytest.raises(SignatureError, match="did not sign"):
                await SshSigner("agent", {"SSH_AUTH_SOCK": f"{folder}/socket"}).sign(PAYLOAD)


async def test_a_signature_holds_for_its_content_key_and_principal_only(
    tmp_path: Path, allowed: Path, key: Path
) -> None:
    made = await SshSigner(key, {}).sign(PAYLOAD)
    allow(allowed, first_line(ANN, made.key))
    check = SshSigner("agent", {}).check
    with pytest.raises(SignatureError) as raised:
        await check(PAYLOAD + b" ", made.armored, ANN, allowed)
    assert "not of this content" in raised.value.detail
    with pytest.raises(SignatureError) as raised:
        await check(PAYLOAD, made.armored, "bob@example.org", allowed)
    assert "to sign as bob@example.org" in raised.value.detail
    allow(allowed, first_line(ANN, public(make_key(tmp_path))))
    with pytest.raises(SignatureError, match="not of an allowed signer"):
        await check(PAYLOAD, made.armored, ANN, allowed)
    with pytest.raises(SignatureError, match="cannot be read"):
        await check(PAYLOAD, made.armored, ANN, tmp_path / "missing")


async def test_a_signature_for_another_purpose_is_none(key: Path, allowed: Path) -> None:
    allow(allowed, f"{ANN} {public(key)}\n")
    with pytest.raises(SignatureError) as raised:
        await SshSigner("agent", {}).check(PAYLOAD, openssh_signs(key, "git"), ANN, allowed)
    assert "made for 'git'" in raised.value.detail


async def test_garbage_is_no_signature(key: Path, allowed: Path) -> None:
    made = await SshSigner(key, {}).sign(PAYLOAD)
    allow(allowed, first_line(ANN, made.key))
    lines = made.armored.splitlines(keepends=True)
    swapped = lines[1].replace(lines[1][10], "A" if lines[1][10] != "A" else "B", 1)
    for armored in (
        "",
        "garbage \x1b[2J \ud800",
        "".join(lines[1:]),
        "".join(lines[:-1]),
        "".join([*lines[:-2], lines[-1]]),
        "".join([lines[0], "!", *lines[1:]]),
        "".join([lines[0], swapped, *lines[2:]]),
        "".join([*lines[:1], "AAAA\n", *lines[-1:]]),
        made.armored + "more",
    ):
        with pytest.raises(SignatureError):
            await SshSigner("agent", {}).check(PAYLOAD, armored, ANN, allowed)


async def test_rsa_with_sha1_is_refused(tmp_path: Path, allowed: Path) -> None:
    key = make_key(tmp_path, "rsa")
    pair = asyncssh.load_keypairs([asyncssh.read_private_key(key)])[0]
    pair.set_sig_algorithm(b"ssh-rsa")
    raw = pair.sign(signature._to_sign(PAYLOAD, b"swarm-verdict", b"sha512"))
    envelope = signature._Envelope(pair.public_data, b"swarm-verdict", b"sha512", raw)
    allow(allowed, first_line(ANN, public(key)))
    assert not openssh_accepts(envelope.armored(), allowed)
    assert not await we_accept(envelope.armored(), allowed)


OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7kCcnO8wXQ6BAvxQ7vJtWn7QyCK3T7BD2n3cE0Wb7a"

LINES = {
    "plain": (True, "{ann} {key} a comment"),
    "tabs": (True, "\t{ann}\t{key}"),
    "crlf": (True, "{ann} {key}\r\n"),
    "quoted principal": (True, '"{ann}" {key}'),
    "list": (True, "bob@example.org,{ann} {key}"),
    "pattern": (True, "*@example.org {key}"),
    "one letter": (True, "a?n@example.org {key}"),
    "brackets": (False, "[a]nn@example.org {key}"),
    "case": (False, "ANN@example.org {key}"),
    "taken away": (False, "*,!ann@* {key}"),
    "only taken away": (False, "!bob@example.org {key}"),
    "namespace": (True, '{ann} namespaces="git,swarm-*" {key}'),
    "other namespace": (False, '{ann} namespaces="git" {key}'),
    "namespace taken away": (False, '{ann} namespaces="*,!swarm-verdict" {key}'),
    "unquoted": (False, "{ann} namespaces=swarm-verdict {key}"),
    "upper case option": (True, '{ann} NAMESPACES="swarm-verdict" {key}'),
    "two namespaces": (False, '{ann} namespaces="swarm-verdict",namespaces="git" {key}'),
    "unknown option": (False, "{ann} no-touch-required {key}"),
    "valid": (True, '{ann} valid-after="20200101",valid-before="20990101Z" {key}'),
    "to the second": (True, '{ann} valid-after="20200101123000Z" {key}'),
    "expired": (False, '{ann} valid-before="20200101" {key}'),
    "not yet": (False, '{ann} valid-after="209901010000Z" {key}'),
    "never": (False, '{ann} valid-after="20300101",valid-before="20200101" {key}'),
    "no time": (False, '{ann} valid-after="yesterday" {key}'),
    "an interval": (False, '{ann} valid-before="+52w" {key}'),
    "authority": (False, "{ann} cert-authority {key}"),
    "commented out": (False, "# {ann} {key}"),
    "no key": (False, "{ann}"),
    "other key": (False, f"{{ann}} {OTHER}"),
    "second line": (True, f"bob {OTHER}\n\n# ann\n{{ann}} {{key}}"),
    "after a broken line": (True, "{ann} ssh-ed25519 AAAA\n{ann} bad!option {key}\n{ann} {key}"),
    "after an expired line": (True, '{ann} valid-before="20200101" {key}\n{ann} {key}'),
    "nothing": (False, ""),
}


@pytest.mark.parametrize("name", LINES)
async def test_we_agree_with_openssh_on_every_line(allowed: Path, key: Path, name: str) -> None:
    is_fine, line = LINES[name]
    allow(allowed, line.format(ann=ANN, key=public(key)))
    armored = openssh_signs(key)
    assert openssh_accepts(armored, allowed) is is_fine
    assert await we_accept(armored, allowed) is is_fine


def certify(key: Path, authority: Path, *options: str) -> Path:
    plain = key.with_name(key.name + ".pub")
    run("ssh-keygen", "-q", "-s", authority, "-I", "id", *options, plain)
    return key.with_name(key.name + "-cert.pub")


CERTIFICATES = {
    "named": (True, ["-n", f"bob,{ANN}"]),
    "for another": (False, ["-n", "bob"]),
    "for everybody": (False, []),
    "of a host": (False, ["-h", "-n", ANN]),
    "expired": (False, ["-n", ANN, "-V", "20200101:20200102"]),
}


@pytest.mark.parametrize("name", CERTIFICATES)
async def test_we_agree_with_openssh_on_certificates(
    tmp_path: Path, allowed: Path, key: Path, agent: Agent, name: str
) -> None:
    is_fine, options = CERTIFICATES[name]
    authority = make_key(tmp_path)
    certificate = certify(key, authority, *options)
    agent.add(key)
    armored = run(
        "ssh-keygen", "-Y", "sign", "-n", "swarm-verdict", "-f", certificate,
        stdin=PAYLOAD, environ=agent.environ,
    )  # fmt: skip
    allow(allowed, f"{ANN} cert-authority {public(authority)}\n")
    assert openssh_accepts(armored, allowed) is is_fine
    assert await we_accept(armored, allowed) is is_fine
    # Neither is the certified key a signer by itself, nor an authority without the word.
    for line in (f"{ANN} {public(key)}\n", f"{ANN} {public(authority)}\n"):
        allow(allowed, line)
        assert not openssh_accepts(armored, allowed)
        assert not await we_accept(armored, allowed)
