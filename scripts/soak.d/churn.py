"""What others do to a swarm while it is watched: agents made, ended, crashed; hosts killed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import libvirt
import swarms
from daemon import Daemon

REST_S: Final = 0.15
"""Between two acts on one host."""
AWAY_S: Final = 6.0
"""For so long a killed host stays away."""
COMMAND_S: Final = 60.0


class Host(threading.Thread):
    """One libvirt daemon of the test driver whose domains come and go through a connection."""

    def __init__(self, number: int, folder: Path, agents: int) -> None:
        super().__init__(name=f"host {number}", daemon=True)
        self.label = f"soak-{number}"
        self.daemon_process = Daemon(folder / self.label)
        self.acts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.is_away = threading.Event()
        self._number = number
        self._agents = agents
        self._made = 0
        self._draws = random.Random(number)
        self._is_over = threading.Event()
        self._kill = threading.Event()

    @property
    def uri(self) -> str:
        return self.daemon_process.test_uri

    def open(self) -> None:
        self.daemon_process.start()
        self._fill()

    def close(self) -> None:
        self._is_over.set()
        if self.is_alive():
            self.join()
        if self.daemon_process.tests:
            self.daemon_process.stop()

    def lose(self) -> None:
        """Let its daemon be killed, and come back after a while with agents anew."""
        self._kill.set()

    def run(self) -> None:
        while not self._is_over.wait(REST_S):
            try:
                if self._kill.is_set():
                    self._kill.clear()
                    self._die_and_come_back()
                else:
                    self._act()
            except libvirt.libvirtError as error:
                # The command line acts on the same domains: one may be gone or stopped by now.
                expected = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
                if error.get_error_code() not in expected:
                    self.problems.append(f"{self.label}: {error}")

    def _die_and_come_back(self) -> None:
        self.is_away.set()
        self.daemon_process.kill()
        self._is_over.wait(AWAY_S)
        self.daemon_process.start()
        self._fill()
        self.acts["host lost"] += 1
        self.is_away.clear()

    def _fill(self) -> None:
        for _ in range(self._agents - len(self._ours())):
            self._make()

    def _ours(self) -> Sequence[Any]:
        return self.daemon_process.tests.listAllDomains()

    def _make(self) -> None:
        self._made += 1
        name = f"s{self._number}-{self._made:05}"
        xml = (
            f"<domain type='test'><name>{name}</name><uuid>{uuid.uuid4()}</uuid>"
            f"<metadata>{swarms.bench_tag(self._made)}</metadata><memory unit='MiB'>256</memory>"
            "<vcpu>1</vcpu><os><type>hvm</type></os></domain>"
        )
        self.daemon_process.tests.defineXML(xml).create()

    def _act(self) -> None:
        domains = self._ours()
        domain = self._draws.choice(domains)
        is_on = domain.isActive()
        what = self._draws.choices(("spawn", "finish", "crash", "pause"), (3, 2, 2, 1))[0]
        if what == "spawn" and len(domains) >= self._agents:
            what = "finish"
        match what:
            case "spawn":
                self._make()
            case "finish":
                if is_on:
                    domain.destroy()
                domain.undefine()
            case "crash" if is_on:
                domain.destroy()
            case "crash":
                what = "restart"
                domain.create()
            case "pause" if is_on and domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
                domain.suspend()
            case "pause" if is_on:
                what = "resume"
                domain.resume()
            case _:
                what = "nothing"
        self.acts[what] += 1


class Commands(threading.Thread):
    """The command line, used by somebody else meanwhile, on the same agents."""

    def __init__(
        self, environ: Mapping[str, str], hosts: Sequence[Host], real: Sequence[str]
    ) -> None:
        super().__init__(name="commands", daemon=True)
        self.acts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._environ = environ
        self._hosts = hosts
        self._real = real
        self._draws = random.Random(99)
        self._is_over = threading.Event()

    def close(self) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(0.5):
            if self._real and self._draws.random() < 0.4:
                self._act_on_real(self._draws.choice(self._real))
            else:
                self._act_on_test()

    def _act_on_test(self) -> None:
        host = self._draws.choice(self._hosts)
        try:
            names = [domain.name() for domain in host.daemon_process.tests.listAllDomains(1)]
        except libvirt.libvirtError:
            return  # it is away
        agent = f"{host.label}/{self._draws.choice(names)}"
        match self._draws.randrange(4):
            case 0:
                self._do("pause", "--quick", agent) and self._do("resume", agent)
            case 1:
                self._do("kill", "--yes", agent)
            case 2:
                self._do("waiting", "--json", codes=(0, 1))
            case _:
                self._do("ls", "--json", codes=(0, 5))

    def _act_on_real(self, agent: str) -> None:
        match self._draws.randrange(4):
            case 0:
                self._do("pause", agent) and self._do("resume", agent)
            case 1:
                self._do("message", agent, "go on")
            case 2:
                self._do("shell", agent, "--", "true")
            case _:
                self._do("pause", "--quick", agent) and self._do("resume", agent)

    def _do(self, *words: str, codes: Sequence[int] = (0,)) -> bool:
        """Whether it was done. That its agent or host went meanwhile is no fault, if it says so."""
        if self._is_over.is_set() and words[0] != "resume":
            return False
        command = [swarms.PROGRAM, *words]
        begun = time.monotonic()
        try:
            done = subprocess.run(
                command, env=self._environ, capture_output=True, text=True, timeout=COMMAND_S
            )
        except subprocess.TimeoutExpired:
            self.problems.append(f"{' '.join(words)}: no end after {COMMAND_S:.0f} s")
            return False
        self.acts[words[0] if done.returncode in codes else f"{words[0]}: {done.returncode}"] += 1
        told_clearly = (0, 1, 3, 4, 5, 6, 7)
        if done.returncode not in told_clearly or "Traceback" in done.stderr:
            took = time.monotonic() - begun
            self.problems.append(
                f"{' '.join(words)}: {done.returncode} after {took:.1f} s: {done.stderr[-300:]}"
            )
        return done.returncode in codes


def run(environ: Mapping[str, str], *words: str, timeout_s: float = 900) -> str:
    """One command that must succeed; its output. Raises RuntimeError."""
    done = subprocess.run(
        [swarms.PROGRAM, *words], env=environ, stdout=subprocess.PIPE, text=True, timeout=timeout_s
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}")
    sys.stderr.flush()
    return done.stdout
