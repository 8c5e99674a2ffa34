"""The outpost on this machine: real processes, real files, a real socket."""

from __future__ import annotations

import asyncio
import http.server
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.errors import AgentGone, DeadlineExceeded, HostDenied, HostError, UsageError
from swarm_tui.model import AgentId
from swarm_tui.outpost import process as kernel
from swarm_tui.outpost.local import LocalOutpost
from swarm_tui.ports import Outpost
from swarm_tui.premises import Process

AGENT = AgentId("6f1c7b0e-0000-4000-8000-000000000001")
OTHER = AgentId("6f1c7b0e-0000-4000-8000-000000000002")
NOBODY = 65534


@pytest.fixture
def outpost(tmp_path: Path) -> Outpost:
    return LocalOutpost(tmp_path / "ledger")


@contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def python(script: str) -> tuple[str, ...]:
    """A program that does it, tells so, and waits."""
    return (sys.executable, "-c", f"{script}\nprint('ready', flush=True)\ninput()")


@contextmanager
def ready(script: str) -> Iterator[Process]:
    with running(*python(script)) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        found = kernel.find(child.pid)
        assert found
        yield found


async def test_a_process_is_measured_by_what_it_did(outpost: Outpost) -> None:
    # What is written to a file in memory is not counted.
    script = """
import os, tempfile, time
kept = bytearray(64 << 20)
with tempfile.TemporaryFile(dir="/var/tmp") as file:
    file.write(bytes(3 << 20)); file.flush(); os.fsync(file.fileno())
while time.process_time() < 0.2: pass"""
    with ready(script) as process:
        footprints = await outpost.measure({process.pid: ["lo"], os.getpid(): ()})
    found = footprints[process.pid]
    assert found.process == process
    assert found.cpu_ns is not None
    assert found.cpu_ns >= 190_000_000
    assert found.memory_host is not None
    assert found.memory_host > 64 << 20
    assert found.disk_written is not None
    assert found.disk_written >= 3 << 20
    assert found.net_received is not None
    own = footprints[os.getpid()]
    assert (own.net_received, own.net_sent) == (None, None)


def test_what_a_tap_sends_its_guest_receives() -> None:
    named = Path("/sys/class/net")
    taps = [tap.name for tap in named.iterdir() if tap.is_dir()]
    answers = {tap: kernel.measure({os.getpid(): [tap]})[os.getpid()] for tap in taps}
    for tap, footprint in answers.items():
        sent = int((named / tap / "statistics/tx_bytes").read_text())
        received = int((named / tap / "statistics/rx_bytes").read_text())
        assert footprint.net_received is not None
        assert footprint.net_sent is not None
        assert footprint.net_received <= sent
        assert footprint.net_sent <= received
    gone = kernel.measure({os.getpid(): [taps[0], "no-such-tap"]})[os.getpid()]
    assert (gone.net_received, gone.net_sent) == (None, None)


def test_dead_processes_are_not_measured() -> None:
    with running("sleep", "60") as child:
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        assert kernel.measure({child.pid: ()}) == {}
        assert kernel.find(child.pid) is None
    assert kernel.measure({child.pid: ()}) == {}


async def test_who_writes_to_a_file_holds_it(outpost: Outpost, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("written", "read", "alone")]
    for file in files:
        file.touch()
    link = tmp_path / "link"
    link.symlink_to(files[0])
    asked = [*files, link, tmp_path / "missing"]
    script = f"a = open({str(files[0])!r}, 'r+b')\nb = open({str(files[1])!r}, 'rb')"
    with ready(script) as process:
        assert await outpost.holders(asked) == {files[0]: process, link: process}
    assert await outpost.holders(asked) == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_told_only_what_is_certain(tmp_path: Path) -> None:
    own, others = tmp_path / "own", tmp_path / "others"
    own.touch()
    others.touch()
    os.chown(own, NOBODY, NOBODY)
    for folder in (tmp_path, *tmp_path.parents):
        os.chmod(folder, folder.stat().st_mode | 0o011)

    def as_nobody(work: Callable[[], object]) -> str:
        """What comes of it in a process of that user."""
        inlet, outlet = os.pipe()
        if not (child := os.fork()):
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                os.write(outlet, repr(work()).encode())
            except HostDenied as denied:
                os.write(outlet, type(denied).__name__.encode())
            finally:
                os._exit(0)
        os.close(outlet)
        with open(inlet, encoding="utf-8") as answer:
            told = answer.read()
        os.waitpid(child, 0)
        return told

    with ready("pass") as roots:
        assert as_nobody(lambda: kernel.holders([own])) == "{}"
        assert as_nobody(lambda: kernel.holders([others])) == "HostDenied"
        assert as_nobody(lambda: kernel.end(roots)) == "HostDenied"
        told = as_nobody(lambda: kernel.measure({roots.pid: ()})[roots.pid].memory_host)
        assert int(told) > 1 << 20
    with ready(f"a = open({str(own)!r}, 'r+b')"):
        assert as_nobody(lambda: kernel.holders([own])) == "HostDenied"


async def test_only_the_very_process_is_ended(outpost: Outpost) -> None:
    with running("sleep", "60") as child:
        process = kernel.find(child.pid)
        assert process
        await outpost.end(replace(process, started=process.started - 1))
        assert child.poll() is None
        await outpost.end(process)
        assert child.wait() == -signal.SIGKILL
    await outpost.end(process)


async def test_texts_are_kept_by_agent_and_name(outpost: Outpost) -> None:
    assert await outpost.kept("definition") == {}
    await outpost.drop(AGENT)
    await outpost.keep(AGENT, "definition", "<domain/>")
    await outpost.keep(AGENT, "facts", "{}")
    await outpost.keep(OTHER, "definition", "the first")
    await outpost.keep(OTHER, "definition", "ändern")
    assert await outpost.kept("definition") == {AGENT: "<domain/>", OTHER: "ändern"}
    await outpost.drop(AGENT, "definition")
    await outpost.drop(AGENT, "definition")
    assert await outpost.kept("definition") == {OTHER: "ändern"}
    assert await outpost.kept("facts") == {AGENT: "{}"}
    await outpost.drop(AGENT)
    assert await outpost.kept("facts") == {}


async def test_many_may_write_one_text_at_once(outpost: Outpost) -> None:
    texts = [str(number) * 1000 for number in range(10)]
    await asyncio.gather(*(outpost.keep(AGENT, "facts", text) for text in texts))
    assert (await outpost.kept("facts"))[AGENT] in texts


async def test_what_else_lies_in_the_ledger_is_left_out(outpost: Outpost, tmp_path: Path) -> None:
    await outpost.keep(AGENT, "facts", "{}")
    (tmp_path / "ledger/stray").mkdir()
    (tmp_path / "ledger/stray/facts").write_text("{}")
    (tmp_path / "ledger" / OTHER).mkdir()
    (tmp_path / "ledger" / OTHER / "facts").write_bytes(b"\xff")
    assert await outpost.kept("facts") == {AGENT: "{}"}
    assert (tmp_path / "ledger").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("agent", "name"), [("../x", "facts"), (AGENT, "../facts"), (AGENT, "")])
async def test_nothing_is_kept_outside_of_the_ledger(
    outpost: Outpost, agent: str, name: str
) -> None:
    with pytest.raises(UsageError):
        await outpost.keep(AgentId(agent), name, "text")


async def test_no_long_text_is_kept(outpost: Outpost) -> None:
    with pytest.raises(UsageError, match="too long"):
        await outpost.keep(AGENT, "facts", "x" * ((1 << 20) + 1))


class Vmm(socketserver.ThreadingUnixStreamServer):
    """Stands in for a Cloud Hypervisor's API; remembers what it was told."""

    told: list[tuple[str, str, str]]

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        server: Vmm

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            self.server.told.append((self.command, self.path, body))
            if self.path.endswith("vm.snapshot"):
                self.send_response(500)
                words = b'["No \x1b[31mroom"]'
                self.send_header("Content-Length", str(len(words)))
                self.end_headers()
                self.wfile.write(words)
            elif self.path.endswith("vm.info"):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"state":"Running"}')
            else:
                self.send_response(204)
                self.end_headers()

        do_GET = do_PUT = _answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            """Not to the terminal."""


@pytest.fixture
def vmm(tmp_path: Path) -> Iterator[Vmm]:
    with Vmm(str(tmp_path / "api"), Vmm.RequestHandlerClass) as server:
        server.told = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_a_vmm_is_told_and_asked(outpost: Outpost, vmm: Vmm, tmp_path: Path) -> None:
    api = tmp_path / "api"
    assert await outpost.tell_vmm(api, "vm.info", "", 5) == '{"state":"Running"}'
    assert await outpost.tell_vmm(api, "vm.pause", "", 5) == ""
    with pytest.raises(HostError, match=r"500.*No ␛\[31mroom"):
        await outpost.tell_vmm(api, "vm.snapshot", '{"destination_url":"file:///x"}', 5)
    assert vmm.told == [
        ("GET", "/api/v1/vm.info", ""),
        ("PUT", "/api/v1/vm.pause", ""),
        ("PUT", "/api/v1/vm.snapshot", '{"destination_url":"file:///x"}'),
    ]
    with pytest.raises(HostError, match="Not a command"):
        await outpost.tell_vmm(api, "vm.pause HTTP/1.1\r\nHost: x", "", 5)


async def test_a_vmm_that_cannot_answer(outpost: Outpost, tmp_path: Path) -> None:
    api = tmp_path / "api"
    with pytest.raises(AgentGone, match="has no API"):
        await outpost.tell_vmm(api, "vm.pause", "", 5)
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(api))
        silent.listen(1)
        with pytest.raises(DeadlineExceeded, match="outcome is unknown"):
            await outpost.tell_vmm(api, "vm.pause", "", 0.1)
    with pytest.raises(HostError, match="refused"):
        await outpost.tell_vmm(api, "vm.pause", "", 5)
