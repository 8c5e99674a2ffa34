"""A bridge of the tests' own, with addresses that are nobody's, for guests to be reached at."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

_RANGE: Final = IPv4Network("198.18.0.0/15")
"""For benchmarks of networks (RFC 2544); not routed."""


@dataclass(frozen=True, slots=True)
class Bridge:
    name: str
    network: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address on it."""
        return self.network[1]

    def guest(self, number: int) -> IPv4Address:
        """For the guests, counted from 1."""
        return self.network[1 + number]

    def interface(self, number: int) -> str:
        """The <interface> of a guest's definition."""
        mac = f"52:54:00:{self.name[-4:-2]}:{self.name[-2:]}:{number:02x}"
        return (
            f"<interface type='bridge'><source bridge='{self.name}'/><mac address='{mac}'/>"
            "<model type='virtio'/></interface>"
        )

    def command_line(self, number: int) -> str:
        """What our guest image wants to know of its network."""
        return (
            f"swarm.address={self.guest(number)}/{self.network.prefixlen}"
            f" swarm.gateway={self.gateway}"
        )


@contextmanager
def make_bridge() -> Iterator[Bridge]:
    """As root; gone with all addresses when the context ends."""
    number = secrets.randbelow(1 << 9)
    network = IPv4Network((int(_RANGE.network_address) + (number << 8), 24))
    bridge = Bridge(f"swt{secrets.token_hex(4)}", network)
    _ip("link", "add", bridge.name, "type", "bridge")
    try:
        _ip("address", "add", f"{bridge.gateway}/{network.prefixlen}", "dev", bridge.name)
        _ip("link", "set", bridge.name, "up")
        yield bridge
    finally:
        _ip("link", "delete", bridge.name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
