"""What the agents of each host take of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swarm_tui.model import Agent, HostName, Power, State

_ON = frozenset({Power.RUNNING, Power.PAUSED})


@dataclass(slots=True)
class Load:
    """The agents of one host; memory and vCPUs are those of VMs that are on."""

    agents: int = 0
    states: dict[State, int] = field(default_factory=dict)
    memory_given: int = 0
    """Bytes that their definitions give them, whatever they use of it."""
    vcpus_given: int = 0
    untold: int = 0
    """VMs that are on, of which nobody tells the size: so much more is given."""

    def add(self, agent: Agent) -> None:
        self.agents += 1
        self.states[agent.state] = self.states.get(agent.state, 0) + 1
        vm = agent.vm
        if vm is None or vm.power not in _ON:
            return
        if vm.memory_bytes is None or vm.vcpus is None:
            self.untold += 1
        self.memory_given += vm.memory_bytes or 0
        self.vcpus_given += vm.vcpus or 0


def measure(agents: Iterable[Agent]) -> Mapping[HostName, Load]:
    """The load of each host that has any agents."""
    loads: dict[HostName, Load] = {}
    for agent in agents:
        loads.setdefault(agent.host, Load()).add(agent)
    return loads
