"""The network of guests that have no user mode to hide behind: a bridge of the swarm's own.

Its addresses are of our own choosing and static. The host reaches the guests directly. Guests are
apart from each other: as ports of the bridge by libvirt (`<port isolated='yes'/>`), across the
host by our packet filter. That also keeps them from the host's own services, keeps strangers from
them, and gives them their way out, behind the host's address.

    <folder>/network.json     which bridge and which addresses, for as long as agents have them

A bridge is gone after the host's reboot; `ensure_network` makes it again, with the same addresses.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final

from swarm_tui.errors import SetupError
from swarm_tui.outpost.programs import Failed, Say, find, locked, replace, run, telling

CANDIDATES: Final = 200
"""How many networks are tried before we give up."""
METADATA: Final = IPv4Network("169.254.0.0/16")
"""Where clouds tell a machine its secrets."""

_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_RESOLVERS: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_INSTALL: Final = "apt-get install --no-install-recommends"


@dataclass(frozen=True, slots=True)
class Network:
    bridge: str
    addresses: IPv4Network
    nameserver: IPv4Address | None = None
    """Which the guests ask for names; None: no usable one is known on the host."""
    limits: Sequence[str] = ()
    """What could not be had, each in a sentence for people."""

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address in it."""
        return self.addresses[1]

    @property
    def guests(self) -> Iterator[IPv4Address]:
        """The addresses for guests."""
        return (address for address in self.addresses.hosts() if address != self.gateway)

    def interface(self, address: IPv4Address) -> IPv4Interface:
        return IPv4Interface((address, self.addresses.prefixlen))


def mac_of(address: IPv4Address) -> str:
    """The same for each that ever has the address, so that nobody remembers a wrong one."""
    return f"02:00:{address.packed.hex(':')}"


def ensure_network(folder: Path, wanted: str, say: Say) -> Network:
    """The network of the swarm in `folder`, made where it is not there. Blocks for milliseconds.

    `wanted`: its addresses, or "auto". Those that agents have already are kept, whatever is
    wanted now. Raises SetupError.
    """
    if not find("ip"):
        raise SetupError("The program ip is not installed", hint=f"{_INSTALL} iproute2")
    with telling("set up the guests' network"), locked(folder / "network.lock", say):
        network = kept_network(folder)
        if network is None:
            network = Network(_bridge_name(folder), _choose(wanted))
            # First: whatever is made, `remove_network` shall find.
            facts = {"bridge": network.bridge, "addresses": str(network.addresses)}
            replace(folder / "network.json", json.dumps(facts).encode())
        _make_bridge(network, alias=f"swarm-tui {folder}")
        limits = [*_filter(network), *_forward()]
        nameserver = _find_nameserver()
        if nameserver is None:
            limits.append("No name server is known that guests could ask: names do not resolve.")
    return Network(network.bridge, network.addresses, nameserver, limits)


def remove_network(folder: Path) -> None:
    """Take away what `ensure_network` made, if anything. Raises SetupError.

    Whether the host forwards packets stays as it is: others may have come to rely on it.
    """
    network = kept_network(folder)
    if network is None:
        return
    with telling("take away the guests' network"), locked(folder / "network.lock", lambda _: None):
        _unfilter(network)
        if network.bridge in _links():
            run(["ip", "link", "delete", network.bridge])
        (folder / "network.json").unlink(missing_ok=True)


def kept_network(folder: Path) -> Network | None:
    """The network as it is remembered, whether or not it is there. Raises SetupError."""
    path = folder / "network.json"
    try:
        facts = json.loads(path.read_bytes())
        return Network(str(facts["bridge"]), IPv4Network(facts["addresses"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(
            "The network of the local swarm cannot be read",
            f"{path}: {error}",
            f"Remove {path} once no agent of it is left.",
        ) from error


def _bridge_name(folder: Path) -> str:
    """Unlike any other swarm's, and no longer than the kernel allows (15)."""
    return f"swarm-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def _choose(wanted: str) -> IPv4Network:
    taken = list(_routes())
    if wanted != "auto":
        network = IPv4Network(wanted)
        if other := next((other for other in taken if other.overlaps(network)), None):
            raise SetupError(
                f"The network {network} is taken",
                f"The host has a route to {other}.",
                "Set local.network to another one, or to auto.",
            )
        return network
    for _ in range(CANDIDATES):
        # Of the private ones, those that people seldom give out themselves.
        network = IPv4Network(f"10.{random.randrange(130, 250)}.{random.randrange(256)}.0/24")
        if not any(other.overlaps(network) for other in taken):
            return network
    raise SetupError(
        "No network is free for the guests",
        f"The host has routes to each of {CANDIDATES} networks that were tried.",
        "Set local.network to one that may be used.",
    )


def _routes() -> Iterator[IPv4Network]:
    """All networks that the host knows a way to, but for the rest of the world."""
    for route in json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]"):
        with suppress(ValueError):  # default, and words such as "unreachable default"
            network = IPv4Network(route["dst"])
            if network.prefixlen:
                yield network


def _links() -> Sequence[str]:
    return [link["ifname"] for link in json.loads(run(["ip", "-json", "link", "show"]) or "[]")]


def _make_bridge(network: Network, alias: str) -> None:
    """Make the bridge unless it is there, and see that it is up and has its address."""
    bridge = network.bridge
    if bridge not in _links():
        # An address of its own: else it would have the lowest of its ports', and change with them.
        own = mac_of(network.gateway)
        run(["ip", "link", "add", bridge, "address", own, "type", "bridge", "forward_delay", "0"])
    run(["ip", "link", "set", bridge, "alias", alias[:255]])
    with suppress(OSError):  # a host without IPv6
        # What is filtered below is IPv4 alone.
        Path(f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6").write_text("1")
    address = str(network.interface(network.gateway))
    run(["ip", "address", "replace", address, "broadcast", "+", "dev", bridge])
    run(["ip", "link", "set", bridge, "up"])


# The packet filter


def _filter(network: Network) -> Sequence[str]:
    """See that the rules are there; what is missing without them, if they cannot be had."""
    obstacle = f"neither iptables nor nft is installed ({_INSTALL} iptables)"
    try:
        if find("iptables-restore"):
            run(["iptables-restore", "--noflush", "--wait"], stdin=_iptables(network).encode())
            return []
        if find("nft"):
            run(["nft", "-f", "-"], stdin=_nft(network).encode())
            return []
    except Failed as error:
        obstacle = str(error)
    return [f"The guests have no way out, and may reach this host's own services: {obstacle}."]


def _unfilter(network: Network) -> None:
    table = _table(network)
    if find("iptables"):
        for kind, chain, rule in _entrances(network):
            if _has(kind, chain, rule):
                run(["iptables", "--wait", "-t", kind, "-D", chain, *rule])
        for chain in (f"{table}_F", f"{table}_I"):
            with suppress(Failed):  # not there
                run(["iptables", "--wait", "-F", chain])
                run(["iptables", "--wait", "-X", chain])
    if find("nft"):
        with suppress(Failed):
            run(["nft", "delete", "table", "ip", table])


def _table(network: Network) -> str:
    return network.bridge.replace("-", "_")


def _entrances(network: Network) -> Sequence[tuple[str, str, Sequence[str]]]:
    """The rules in chains that are not ours alone: table, chain, rule."""
    table = _table(network)
    masquerade = ("-s", str(network.addresses), "!", "-o", network.bridge, "-j", "MASQUERADE")
    return (
        ("filter", "FORWARD", ("-j", f"{table}_F")),
        ("filter", "INPUT", ("-j", f"{table}_I")),
        ("nat", "POSTROUTING", masquerade),
    )


def _has(kind: str, chain: str, rule: Sequence[str]) -> bool:
    try:
        run(["iptables", "--wait", "-t", kind, "-C", chain, *rule])
    except Failed:
        return False
    return True


def _iptables(network: Network) -> str:
    """All of it in one step: what is in our chains is replaced, the way to them added once.

    Our rules go before all others, which may well forbid whatever they do not know.
    """
    table, bridge = _table(network), network.bridge
    answers = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    missing = {
        chain: f"-I {chain} {' '.join(rule)}\n"
        for kind, chain, rule in _entrances(network)
        if not _has(kind, chain, rule)
    }
    return f"""\
*filter
:{table}_F - [0:0]
:{table}_I - [0:0]
-A {table}_F -i {bridge} -o {bridge} -j DROP
-A {table}_F -i {bridge} ! -s {network.addresses} -j DROP
-A {table}_F -i {bridge} -d {METADATA} -j DROP
-A {table}_F -i {bridge} -j ACCEPT
-A {table}_F -o {bridge} {answers}
-A {table}_F -o {bridge} -j DROP
-A {table}_I -i {bridge} {answers}
-A {table}_I -i {bridge} -j DROP
{missing.get("FORWARD", "")}{missing.get("INPUT", "")}COMMIT
*nat
{missing.get("POSTROUTING", "")}COMMIT
"""


def _nft(network: Network) -> str:
    table, bridge, addresses = _table(network), f'"{network.bridge}"', network.addresses
    answers = "ct state established,related accept"
    return f"""\
table ip {table}
delete table ip {table}
table ip {table} {{
  chain forward {{
    type filter hook forward priority -1; policy accept;
    iifname {bridge} oifname {bridge} drop
    iifname {bridge} ip saddr != {addresses} drop
    iifname {bridge} ip daddr {METADATA} drop
    oifname {bridge} {answers}
    oifname {bridge} drop
  }}
  chain input {{
    type filter hook input priority -1; policy accept;
    iifname {bridge} {answers}
    iifname {bridge} drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {addresses} oifname != {bridge} masquerade
  }}
}}
"""


def _forward() -> Sequence[str]:
    try:
        if _FORWARDING.read_text().strip() == "0":
            _FORWARDING.write_text("1")
    except OSError as error:
        return [f"The guests have no way out: {_FORWARDING} cannot be set ({error.strerror})."]
    return []


def _find_nameserver() -> IPv4Address | None:
    """The host's first one that is not the host itself, which would not answer the guests."""
    for path in _RESOLVERS:
        with suppress(OSError):
            for line in path.read_text(errors="replace").splitlines():
                words = line.split()
                if words[:1] == ["nameserver"] and len(words) > 1:
                    with suppress(AddressValueError):  # IPv6
                        address = IPv4Address(words[1])
                        if not address.is_loopback:
                            return address
    return None
