"""A person's shell in a guest, from a real terminal or from pipes; the guest is a stand-in."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from swarm_tui.errors import GuestError

from .backends import DATA
from .person import DEADLINE_S, Person, Typist, pipe, program
from .sshd import StandInGuest


async def test_a_shell_with_size_keys_and_exit_status(stand_in: StandInGuest) -> None:
    async with Person(stand_in.address, None) as person:
        await person.see(b"guest$ ")
        person.type(b'stty size; echo "$TERM"\r')
        assert b"20 70" in await person.see(b"xterm-256color\r\n")
        await person.see(b"guest$ ")

        person.resize(100, 30)
        person.type(b"until [ \"$(stty size)\" = '30 100' ]; do sleep 0.05; done; echo resi''zed\r")
        await person.see(b"resized")

        person.type(b"sh -c \"echo star''ted; exec sleep 1000\"; echo not''reached\r")
        await person.see(b"started")
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
        stand_in.address, "test -t 0 && test -t 1 && echo both; kill -KILL $$", "root"
    ) as person:
        await person.see(b"both\r\n")
        await person.leaves_with(128 + signal.SIGKILL)
    assert stand_in.logins == ["root"]


async def test_every_key_goes_through_as_it_is(stand_in: StandInGuest) -> None:
    async with Person(
        stand_in.address, "stty raw -echo; echo ready; head -c 8 | od -An -tx1"
    ) as person:
        await person.see(b"ready")
        person.type(b"\x03\x04\x1a\x11\x13\r~~\n")
        await person.see(b"03 04 1a 11 13 0d 7e 0a")


async def test_a_guest_reaches_neither_clipboard_nor_title(stand_in: StandInGuest) -> None:
    script = (
        r"printf '\033]52;c;ZXZpbA==\007\033]0;title\007\033[1mbold\033[0m \302\2350;t\302\234';"
        " echo end"
    )
    async with Person(stand_in.address, script) as person:
        seen = await person.see(b"end")
        assert b"\x1b[1mbold\x1b[0m" in seen
        assert b"\x1b]" not in seen
        assert b"\xc2\x9d" not in seen
        await person.leaves_with(0)


async def test_a_cut_connection_gives_the_terminal_back_and_says_so(stand_in: StandInGuest) -> None:
    script = r"printf '\033[?1049h\033[?25l\033[?1003;2004hfull screen'; sleep 1000"
    async with Person(stand_in.address, script) as person:
        await person.see(b"full screen")
        await stand_in.cut()
        before = await person.see(b"ERROR The SSH connection to the guest was cut")
        for undone in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1003l", b"\x1b[?2004l", b"\x1b[0m"):
            assert undone in before
        await person.leaves_with(GuestError.exit_code)


async def test_a_signal_gives_the_terminal_back(stand_in: StandInGuest) -> None:
    async with Person(stand_in.address, r"printf '\033[?1049hfull screen'; sleep 1000") as person:
        await person.see(b"full screen")
        person.process.terminate()
        await person.see(b"\x1b[?1049l")
        await person.leaves_with(128 + signal.SIGTERM)


async def test_the_escape_keys_leave_a_guest_that_hangs(stand_in: StandInGuest) -> None:
    async with Person(stand_in.address, "stty raw -echo; echo started; sleep 1000") as person:
        await person.see(b"started")
        (process,) = stand_in.running
        process.send_signal(signal.SIGSTOP)
        person.type(b"no answer\r~")
        person.type(b".")
        await person.leaves_with(255)


async def test_a_refused_login_leaves_the_terminal_alone(stand_in: StandInGuest) -> None:
    stand_in.authorized = stand_in.host_key.convert_to_public()
    async with Person(stand_in.address, None) as person:
        assert b"\x1b" not in await person.see(b"ERROR The guest refuses our SSH key")
        await person.leaves_with(GuestError.exit_code)


def shell_held_open(stand_in: StandInGuest, folder: Path) -> Sequence[str]:
    """The command that the app runs, on a host whose agent-01 is the stand-in."""
    host = folder / "host.xml"
    address = stand_in.address
    host.write_text(
        (DATA / "host.xml")
        .read_text()
        .replace("22101", str(address.port))
        .replace("ssh-ed25519 AAAA", address.host_key)
        .replace("/keys/id", str(address.identity))
    )
    program = (sys.executable, "-m", "swarm_tui", "--connect", f"test://{host}")
    return (*program, "shell", "--hold", "agent-01")


async def test_leaving_a_shell_leaves_the_window_whatever_its_status(
    stand_in: StandInGuest, tmp_path: Path
) -> None:
    async with Typist(shell_held_open(stand_in, tmp_path)) as person:
        await person.see(b"guest$ ")
        person.type(b"exit 3\r")
        await person.leaves_with(3)


async def test_a_shell_that_cannot_be_had_says_why_until_it_is_read(
    stand_in: StandInGuest, tmp_path: Path
) -> None:
    stand_in.authorized = stand_in.host_key.convert_to_public()
    words = shell_held_open(stand_in, tmp_path)
    async with Typist(words) as person:
        await person.see(b"The guest refuses our SSH key")
        await person.see(b"[Enter closes this]")
        assert person.process.returncode is None
        person.type(b"\r")
        await person.leaves_with(GuestError.exit_code)
    # Where nobody sits at a terminal, nobody is waited for.
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(DEADLINE_S):
        assert await process.wait() == GuestError.exit_code


async def test_pipes_pass_bytes_unchanged(stand_in: StandInGuest) -> None:
    every_byte = bytes(range(256)) * 8000
    assert await pipe(stand_in.address, "cat; echo problem >&2; exit 9", every_byte) == (
        *(9, every_byte),
        b"problem\n",
    )


async def test_pipes_get_no_terminal(stand_in: StandInGuest) -> None:
    status, output, _ = await pipe(stand_in.address, "tty")
    assert (status, output) == (1, b"not a tty\n")


async def test_a_login_shell_reads_commands_from_a_pipe(stand_in: StandInGuest) -> None:
    assert await pipe(stand_in.address, None, b"echo one\nexit 3\n") == (3, b"one\n", b"")


async def test_a_command_that_reads_no_input_ends_all_the_same(stand_in: StandInGuest) -> None:
    assert await pipe(stand_in.address, "echo done", bytes(3_000_000)) == (0, b"done\n", b"")


@pytest.mark.parametrize("source", ["file", "/dev/null"])
async def test_input_from_a_file(stand_in: StandInGuest, tmp_path: Path, source: str) -> None:
    (tmp_path / "file").write_bytes(b"content\n" * 50_000)
    path = tmp_path / source
    with path.open("rb") as file:
        process = await asyncio.create_subprocess_exec(
            *program(stand_in.address, "wc -c"), stdin=file, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert int(output) == (400_000 if source == "file" else 0)


async def test_an_output_that_nobody_reads_ends_the_command(stand_in: StandInGuest) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        '("$@"; echo "status $?" >&2) | head -n 1',
        "sh",
        *program(stand_in.address, "yes"),
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
        *program(stand_in.address, "echo started; exec sleep 1000"),
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
