"""A swarm without machines: all ports in memory, for a first look, screenshots, tests, benches.

Only its reviews are of something real: git repositories, made when they are needed (`project`).
Nothing else runs in it, and nothing pretends to: its driver, host and URI are called "simulated".
It is never chosen unless asked for. The same seed tells the same story; with a `ManualClock`, to
the byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from swarm_tui.adapters.simulated.clock import Clock, ManualClock, RealClock
from swarm_tui.adapters.simulated.guest import SimulatedGuest
from swarm_tui.adapters.simulated.hypervisor import SimulatedHypervisor
from swarm_tui.adapters.simulated.project import Project
from swarm_tui.adapters.simulated.spawner import SimulatedSpawner
from swarm_tui.adapters.simulated.world import Machine, World
from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId, Hint, Power, Vm

__all__ = ["Clock", "ManualClock", "RealClock", "SimulatedSwarm"]

HOSTILE_NAME: Final = "agent\u202etxt.exe\u202c\u200b[red]\x9b31m[/] [@click=app.quit]x[/]"
"""Only characters that XML allows: others cannot be in a definition."""
HOSTILE_LINES: Final = (
    "\x1b[2J\x1b[H\x1b[31mowned\x1b[0m",
    "\x1b]0;title\x07\x1b]52;c;cm0gLXJmIC8=\x07 clipboard",
    "\x1b]8;;http://evil.invalid\x1b\\click\x1b]8;;\x1b\\",
    "[bold red]markup[/bold red] [@click=app.quit]quit[/] \\[not",
    "\x9b31m C1, \x90q sixel\x9c, \x07bell, \x08\x08\x08back, \rreturn, \x00nul, \x7fdel",
    "\u202eright to left\u202c \u2066isolate\u2069 zero\u200bwidth \U000e0041tag \ufeffmark",
    "a" + "\u0301" * 200 + " zalgo, wide 漢字 emoji 👩‍👩‍👧 \ud800 lone surrogate",
    "x" * 10_000,
)


class SimulatedSwarm:
    """A whole simulated swarm: its ports, and faults on demand. Lives in one event loop."""

    def __init__(
        self,
        agents: int,
        *,
        seed: int = 1,
        clock: Clock | None = None,
        hosts: int = 1,
        speed: float = 1.0,
        tick_s: float = 1.0,
        folder: Path | None = None,
    ) -> None:
        """`agents` are spread over `hosts`; `speed` seconds are lived in each second.

        Their figures change once each `tick_s`. Without a `clock` the real one is taken, and
        slow calls (save, restore, spawn…) take about as long as on a real local swarm; with one
        of your own no call takes time, unless `delay` says so. In `folder` the repositories of
        reviewed agents are made; without one their work cannot be taken.
        """
        self._project = Project(folder) if folder else None
        self._world = World(agents, seed, clock or RealClock(), hosts, speed, tick_s, self._project)
        if clock is None:
            self._world.set_real_pace()
        self._guest = SimulatedGuest(self._world)

    @property
    def guest(self) -> SimulatedGuest:
        return self._guest

    def hypervisor(self, host: int = 0) -> SimulatedHypervisor:
        """A connection to a host, not open yet; another one at each call."""
        return SimulatedHypervisor(self._world, self._world.sites[host])

    def spawner(self, host: int = 0) -> SimulatedSpawner:
        return SimulatedSpawner(self._world, self._world.sites[host])

    @property
    def repository(self) -> Path | None:
        """The owner's repository, made when the first work is taken."""
        return self._project.repository if self._project else None

    def ids(self) -> list[AgentId]:
        """All agents, in the order in which they were made."""
        return [machine.vm.id for machine in self._world.machines()]

    def vms(self) -> list[Vm]:
        """All VMs, in the order in which they were made."""
        return [machine.vm for machine in self._world.machines()]

    # Faults on demand

    def fail_next(self, call: str, error: SwarmError) -> None:
        """Let the next call of this port method fail, whoever makes it.

        A save leaves an incomplete file behind, as real ones do.
        """
        self._world.fail_next(call, error)

    def delay(self, call: str, seconds: float) -> None:
        """Let every call of this port method take its time, on the swarm's clock.

        Beyond the call's deadline it raises DeadlineExceeded.
        """
        self._world.delays[call] = seconds

    def lose_host(self, host: int = 0) -> None:
        """Take a host away: its connections close, its guests are out of reach, VMs go on."""
        site = self._world.sites[host]
        site.is_lost = True
        for machine in site.machines.values():
            self._world.cut(machine)
        self._world.tell(site, Hint(None, "closed"))

    def find_host(self, host: int = 0) -> None:
        """Bring a lost host back."""
        self._world.sites[host].is_lost = False

    def crash(self, agent: AgentId) -> None:
        """The guest's kernel panics."""
        machine = self._world.machine(agent)
        self._world.turn(machine, Power.CRASHED, "guest panic", "crashed", "stopped")

    def kill_outside(self, agent: AgentId) -> None:
        """Somebody else pulls the VM's plug."""
        machine = self._world.machine(agent)
        self._world.turn(machine, Power.OFF, "destroyed", "stopped")

    def cut_ssh(self, agent: AgentId) -> None:
        """Break SSH into the guest, and refuse it until `mend_ssh`."""
        machine = self._world.machine(agent)
        machine.is_cut = True
        self._world.cut(machine)

    def mend_ssh(self, agent: AgentId) -> None:
        self._world.machine(agent).is_cut = False

    def flood(self, agent: AgentId, lines: int) -> None:
        """Let the agent write many lines at once; more than a thousand are not kept."""
        self._say(self._world.machine(agent), [f"flood line {line}" for line in range(lines)])

    def hostile(self, agent: AgentId) -> None:
        """Give the agent a name and log lines that attack a terminal."""
        machine = self._world.machine(agent)
        self._world.rename(machine, HOSTILE_NAME)
        self._say(machine, list(HOSTILE_LINES))

    def say(self, agent: AgentId, line: str) -> None:
        """Let the agent log a line, whatever is in it."""
        self._say(self._world.machine(agent), [line])

    def _say(self, machine: Machine, lines: list[str]) -> None:
        machine.life.flood(lines, self._world.clock.monotonic())
        self._world.poke(machine)
