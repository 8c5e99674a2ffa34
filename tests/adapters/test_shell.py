"""A person's shell in a guest, from a real terminal or from pipes; the guest is a stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from swarm_tui.errors import GuestError

from .sshd import StandInGuest

DEADLINE_S = 30.0

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import SwarmError
from swarm_tui.model import Address
port, key, identity, command, user = json.loads(sys.argv[1])
try:
    address = Address("127.0.0.1", port, key, Path(identity))
    sys.exit(asyncio.run(SshGuest().shell(address, command, user)))
except SwarmError as error:
    print("ERROR", error.title, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[StandInGuest]:
    guest = StandInGuest(tmp_path / "guest")
    await guest.start()
    yield guest
    await guest.stop()


def program(guest: StandInGuest, command: str | None, user: str | None = None) -> Sequence[str]:
    address = guest.address
    words = [address.port, address.host_key, str(address.identity), command, user]
    return (sys.executable, "-c", PROGRAM, json.dumps(words))


class Person:
    """Sits at a pseudo-terminal, sees what is written there, and types."""

    def __init__(self, guest: StandInGuest, command: str | None, user: str | None = None) -> None:
        self._words = program(guest, command, user)
        self.seen = bytearray()

    async def __aenter__(self) -> Person:
        self._master, self._terminal = os.openpty()
        self.resize(70, 20)
        self._modes = termios.tcgetattr(self._terminal)
        asyncio.get_running_loop().add_reader(self._master, self._look)
        self.process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", *self._words),
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            env=os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        os.close(self._master)
        os.close(self._terminal)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    async def see(self, wanted: bytes) -> bytes:
        """Wait until it is there; what was seen up to it, which is then forgotten."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while wanted not in self.seen:  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{wanted!r} is not in {bytes(self.seen)!r}") from None
        end = self.seen.index(wanted) + len(wanted)
        before = bytes(self.seen[:end])
        del self.seen[:end]
        return before

    async def leaves_with(self, status: int) -> None:
        """The program ends so, and the terminal is what it was."""
        async with asyncio.timeout(DEADLINE_S):
            assert await self.process.wait() == status, bytes(self.seen)
        assert termios.tcgetattr(self._terminal) == self._modes

    def _look(self) -> None:
        self.seen += os.read(self._master, 65536)


async def pipe(
    guest: StandInGuest, command: str | None, typed: bytes = b""
) -> tuple[int, bytes, bytes]:
    """Run without a terminal; exit status, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *program(guest, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        output, errors = await process.communicate(typed)
    assert process.returncode is not None
    return process.returncode, output, errors


async def test_a_shell_with_size_keys_and_exit_status(stand_in: StandInGuest) -> None:
    async with Person(stand_in, None) as person:
        await person.see(b"guest$ ")
        person.type(b'stty size; echo "$TERM"\r')
        assert b"20 70" in await person.see(b"xterm-256color\r\n")
        await person.see(b"guest$ ")

        person.resize(100, 30)
        person.type(b"until [ \"$(stty size)\" = '30 100' ]; do sleep 0.05; done; echo resi''zed\r")
        await person.see(b"resized")

        person.type(b"sleep 1000; echo not''reached\r")
        await person.see(b"sleep 1000")
        await person.see(b"\r\n")
        person.type(b"\x03")
        await person.see(b"guest$ ")
        person.type("echo grü''ße\r".encode())
        await person.see("grüße".encode())
        assert b"notreached" not in person.seen

        person.type(b"exit 7\r")
        await person.leaves_with(7)
    assert stand_in.logins == ["agent"]


async def test_a_command_at_a_terminal(stand_in: StandInGuest) -> None:
    async with Person(
        stand_in, "test -t 0 && test -t 1 && echo both; kill -KILL $$", "root"
    ) as person:
        await person.see(b"both\r\n")
        await person.leaves_with(128 + signal.SIGKILL)
    assert stand_in.logins == ["root"]


async def test_every_key_goes_through_as_it_is(stand_in: StandInGuest) -> None:
    async with Person(stand_in, "stty raw -echo; echo ready; head -c 8 | od -An -tx1") as person:
        await person.see(b"ready")
        person.type(b"\x03\x04\x1a\x11\x13\r~~\n")
        await person.see(b"03 04 1a 11 13 0d 7e 0a")


async def test_a_guest_reaches_neither_clipboard_nor_title(stand_in: StandInGuest) -> None:
    script = (
        r"printf '\033]52;c;ZXZpbA==\007\033]0;title\007\033[1mbold\033[0m \302\2350;t\302\234';"
        " echo end"
    )
    async with Person(stand_in, script) as person:
        seen = await person.see(b"end")
        assert b"\x1b[1mbold\x1b[0m" in seen
        assert b"\x1b]" not in seen
        assert b"\xc2\x9d" not in seen
        await person.leaves_with(0)


async def test_a_cut_connection_gives_the_terminal_back_and_says_so(stand_in: StandInGuest) -> None:
    script = r"printf '\033[?1049h\033[?25l\033[?1003;2004hfull screen'; sleep 1000"
    async with Person(stand_in, script) as person:
        await person.see(b"full screen")
        await stand_in.cut()
        before = await person.see(b"ERROR The SSH connection to the guest was cut")
        for undone in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1003l", b"\x1b[?2004l", b"\x1b[0m"):
            assert undone in before
        await person.leaves_with(GuestError.exit_code)


async def test_a_signal_gives_the_terminal_back(stand_in: StandInGuest) -> None:
    async with Person(stand_in, r"printf '\033[?1049hfull screen'; sleep 1000") as person:
        await person.see(b"full screen")
        person.process.terminate()
        await person.see(b"\x1b[?1049l")
        await person.leaves_with(128 + signal.SIGTERM)


async def test_the_escape_keys_leave_a_guest_that_hangs(stand_in: StandInGuest) -> None:
    async with Person(stand_in, "stty raw -echo; echo started; sleep 1000") as person:
        await person.see(b"started")
        (process,) = stand_in.running
        process.send_signal(signal.SIGSTOP)
        person.type(b"no answer\r~")
        person.type(b".")
        await person.leaves_with(255)


async def test_a_refused_login_leaves_the_terminal_alone(stand_in: StandInGuest) -> None:
    stand_in.authorized = stand_in.host_key.convert_to_public()
    async with Person(stand_in, None) as person:
        assert b"\x1b" not in await person.see(b"ERROR The guest refuses our SSH key")
        await person.leaves_with(GuestError.exit_code)


async def test_pipes_pass_bytes_unchanged(stand_in: StandInGuest) -> None:
    every_byte = bytes(range(256)) * 8000
    assert await pipe(stand_in, "cat; echo problem >&2; exit 9", every_byte) == (
        *(9, every_byte),
        b"problem\n",
    )


async def test_pipes_get_no_terminal(stand_in: StandInGuest) -> None:
    status, output, _ = await pipe(stand_in, "tty")
    assert (status, output) == (1, b"not a tty\n")


async def test_a_login_shell_reads_commands_from_a_pipe(stand_in: StandInGuest) -> None:
    assert await pipe(stand_in, None, b"echo one\nexit 3\n") == (3, b"one\n", b"")


async def test_a_command_that_reads_no_input_ends_all_the_same(stand_in: StandInGuest) -> None:
    assert await pipe(stand_in, "echo done", bytes(3_000_000)) == (0, b"done\n", b"")


@pytest.mark.parametrize("source", ["file", "/dev/null"])
async def test_input_from_a_file(stand_in: StandInGuest, tmp_path: Path, source: str) -> None:
    (tmp_path / "file").write_bytes(b"content\n" * 50_000)
    path = tmp_path / source
    with path.open("rb") as file:
        process = await asyncio.create_subprocess_exec(
            *program(stand_in, "wc -c"), stdin=file, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert int(output) == (400_000 if source == "file" else 0)


async def test_an_output_that_nobody_reads_ends_the_command(stand_in: StandInGuest) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        '("$@"; echo "status $?" >&2) | head -n 1',
        "sh",
        *program(stand_in, "yes"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        output, errors = await process.communicate()
    assert output == b"y\n"
    assert errors.endswith(b"status 141\n")


async def test_an_interrupt_reaches_the_command(stand_in: StandInGuest) -> None:
    process = await asyncio.create_subprocess_exec(
        *program(stand_in, "echo started; exec sleep 1000"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout
    await process.stdout.readline()
    (sleeping,) = stand_in.running
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(DEADLINE_S):
        assert await sleeping.wait() == -signal.SIGINT
        await process.wait()
