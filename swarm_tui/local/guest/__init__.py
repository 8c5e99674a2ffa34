"""What the host says to a guest of our image: address, host key, identity, fresh randomness.

The files beside this one go into the image: `root/` as it lies here (what begins with #! becomes
executable), `initramfs/`, and `reseed.hex`.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import shlex
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from swarm_tui.errors import UsageError

IDENTIFY: Final = r"""
# Make a fork, or a fresh guest, somebody of its own; then let its agent start.
# Standard input holds lines of key=value: name, time (Unix seconds), entropy, and, as printf's %b
# reads them, host_key (dropbear's format), task, program and environment. New connections find the
# new host key, because the SSH server reads it for each of them; the one that runs this goes on.
# What can be done without a process is: under software emulation each one costs milliseconds.
set -e
umask 022
task= program= environment=
while IFS= read -r line; do
  value=${line#*=}
  case ${line%%=*} in
    name) name=$value ;;
    time) time=$value ;;
    entropy) entropy=$value ;;
    host_key) host_key=$value ;;
    task) task=$value ;;
    program) program=$value ;;
    environment) environment=$value ;;
  esac
done

# As refresh does: what is written is only mixed into the input pool, the reseed makes it count.
printf %s "$entropy" >/dev/urandom
/usr/lib/swarm/reseed </dev/urandom
date -s "@$time" >/dev/null

echo "$name" >/proc/sys/kernel/hostname
echo "$name" >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >/etc/hosts
printf '[user]\n\tname = %s\n\temail = agent@%s\n' "$name" "$name" >/home/agent/.gitconfig
IFS=- read -r a b c d e </proc/sys/kernel/random/uuid
echo "$a$b$c$d$e" >/etc/machine-id
[ -z "$task" ] || printf %b "$task" >/run/swarm/task

umask 077
printf %b "$host_key" >/etc/dropbear/host_key.new
mv /etc/dropbear/host_key.new /etc/dropbear/host_key

# The program stays over a reboot. Its environment holds secrets and is in memory alone. Neither is
# ever an argument of a process: those can be listed.
if [ -n "$program" ]; then
  [ -d /etc/swarm ] || mkdir -m 755 /etc/swarm
  set -- /etc/swarm/program
  printf %b "$program" >/etc/swarm/program
  if [ -n "$environment" ]; then
    set -- "$@" /run/swarm/environment
    printf %b "$environment" >/run/swarm/environment
  fi
  chown agent: "$@"
fi
umask 022

echo "$PPID" >/run/swarm/go # see agent-keeper
sync </dev/null >/dev/null 2>&1 &
"""
"""Run as root, with `render_identity` on standard input, once in every new guest.

It comes from here and not with the image, so that older guests understand what they are told.
"""
REFRESH: Final = "/usr/lib/swarm/refresh"
"""Run as root after a restore: `refresh UNIXTIME`, with base64 entropy on standard input."""

DELIVER: Final = "/usr/lib/swarm/deliver"
"""Run as root: `deliver COMMIT WORKSPACE USER`, with a tar of its .git on standard input."""
OWN_AGENT: Final = "/usr/lib/swarm/agent"

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL: Final = re.compile(rb"[^ -\[\]-~]")
"""All but printable ASCII, and the backslash."""
_MAGIC: Final = b"openssh-key-v1\0"
_TYPE: Final = b"ssh-ed25519"


def render_arguments(
    address: IPv4Interface, gateway: IPv4Address, nameserver: IPv4Address | None
) -> str:
    """For the kernel's command line of a guest that is not behind QEMU's user-mode network."""
    words = [f"swarm.address={address}", f"swarm.gateway={gateway}"]
    if nameserver:
        words.append(f"swarm.nameserver={nameserver}")
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class Program:
    """What runs in a guest as its agent, as two scripts for its shell; empty: the image's own."""

    script: bytes = b""
    environment: bytes = field(default=b"", repr=False)
    """Secrets may be in it."""


NO_PROGRAM: Final = Program()

# Its environment was in the guest's memory alone.
_GUARD: Final = """\
[ -r /run/swarm/environment ] || {
  echo "Its environment went with a reboot of the VM; spawn it again." >&2
  exit 126
}
"""


def render_program(command: Sequence[str], task: str, environment: Mapping[str, str]) -> Program:
    """`command` (empty: the image's own agent) with `{task}` filled in, and its environment.

    Raises UsageError for what no program can be given.
    """
    if not command and not environment:
        return Program()
    words = [word.replace("{task}", task) for word in command] or [OWN_AGENT]
    unfit = [name for name in environment if not _VARIABLE.fullmatch(name)]
    unfit += [name for name, value in environment.items() if "\0" in value]
    if unfit or any("\0" in word for word in words):
        raise UsageError(
            "No program can be given this", ", ".join(unfit) or "a word with a NUL in it"
        )
    guard = _GUARD if environment else ""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
    return Program(f"{guard}exec {shlex.join(words)}\n".encode(), "".join(lines).encode())


def render_identity(
    name: str, host_key: bytes, now: float, task: str = "", program: Program = NO_PROGRAM
) -> bytes:
    """Standard input for `IDENTIFY`: a name (host name of the guest), a private host key in
    dropbear's format, the time in Unix seconds, a task and a program, and fresh entropy.

    From then on, new connections find the new host key; the one that ran it goes on, and at its end
    the agent's program begins. Raises ValueError when `name` is not a plain host name.
    """
    label = name.replace("-", "")
    if not (label.isascii() and label.isalnum() and len(name) <= 63):
        raise ValueError(f"{name!r} cannot be a host name")
    values = {
        "name": name.encode(),
        "time": str(round(now)).encode(),
        "entropy": base64.b64encode(secrets.token_bytes(64)),
        "host_key": _escaped(host_key),
        "task": _escaped(task.encode()),
        "program": _escaped(program.script),
        "environment": _escaped(program.environment),
    }
    return b"".join(b"%s=%s\n" % (key.encode(), value) for key, value in values.items())


def _escaped(data: bytes) -> bytes:
    """One line, that a shell's own printf turns into these bytes again (POSIX printf, %b)."""
    return _SPECIAL.sub(lambda byte: b"\\0%03o" % byte[0][0], data)


def dropbear_key(openssh: bytes) -> bytes:
    """An ed25519 private key as written by `ssh-keygen -t ed25519 -N ''`, in dropbear's format.

    dropbear reads no other (signkey.c, ed25519.c: the name, then seed and public key as one
    string); OpenSSH's is described in its PROTOCOL.key. Raises ValueError.
    """
    try:
        lines = openssh.decode("ascii").split("-----")
        blob = base64.b64decode("".join(lines[2].split()), validate=True)
        if not blob.startswith(_MAGIC):
            raise ValueError("not an OpenSSH private key")
        cipher, rest = _take(blob[len(_MAGIC) :])
        if cipher != b"none":
            raise ValueError("the private key has a passphrase")
        _, rest = _take(rest)  # key derivation
        _, rest = _take(rest)  # its options
        _, rest = _take(rest[4:])  # one public key
        private, _ = _take(rest)
        name, rest = _take(private[8:])  # after two check numbers
        if name != _TYPE:
            raise ValueError("not an ed25519 key")
        _, rest = _take(rest)
        pair, _ = _take(rest)
    except (IndexError, struct.error, UnicodeDecodeError, binascii.Error) as error:
        raise ValueError("not an OpenSSH private key") from error
    if len(pair) != 64:
        raise ValueError("not an ed25519 key")
    return _string(_TYPE) + _string(pair)


def _take(data: bytes) -> tuple[bytes, bytes]:
    """The leading length-prefixed string, and what follows it (RFC 4251, section 5)."""
    (length,) = struct.unpack_from(">I", data)
    if len(data) < 4 + length:
        raise ValueError("the private key is cut off")
    return data[4 : 4 + length], data[4 + length :]


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
