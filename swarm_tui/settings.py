"""What can be configured: every setting with its type, range, default and meaning."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from swarm_tui.model import HostName
from swarm_tui.paths import Paths
from swarm_tui.profile import INTERVAL


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting may be.

    `read` takes a value as TOML has it and raises ValueError, with the reason where `allowed`
    does not say it all.
    """

    allowed: str
    read: Callable[[object], Any]
    is_number: bool = False
    """Text from the environment or the command line is to be read as a number."""
    choices: tuple[str, ...] = ()
    default: Callable[[Paths], Any] | None = None
    """For a setting that follows from the folders; the others have theirs in their class."""

    def accepts(self, raw: object) -> bool:
        try:
            self.read(raw)
        except ValueError:
            return False
        return True


def choice(*choices: str) -> Kind:
    def read(raw: object) -> str:
        if not isinstance(raw, str) or raw not in choices:
            raise ValueError
        return raw

    return Kind(f"{', '.join(choices[:-1])} or {choices[-1]}", read, choices=choices)


def integer(low: int, high: int) -> Kind:
    def read(raw: object) -> int:
        # TOML's true and false are ints to Python.
        if not isinstance(raw, int) or isinstance(raw, bool) or not low <= raw <= high:
            raise ValueError
        return raw

    return Kind(f"a whole number from {low} to {high}", read, is_number=True)


def _seconds(low: float, high: float) -> Kind:
    def read(raw: object) -> float:
        if not isinstance(raw, int | float) or isinstance(raw, bool) or not low <= raw <= high:
            raise ValueError
        return float(raw)

    return Kind(f"seconds from {low:g} to {high:g}", read, is_number=True)


def _folder(default: Callable[[Paths], Path] | None = None) -> Kind:
    return Kind("an absolute path, or one that begins with ~/", _read_path, default=default)


def _read_path(raw: object) -> Path:
    if not isinstance(raw, str) or not raw.isprintable():
        raise ValueError
    try:
        path = Path(raw).expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such home folder") from error
    if not path.is_absolute():
        raise ValueError
    return path


def _read_far_path(raw: object) -> Path:
    # Another machine's: what ~ means there is not known here.
    if not isinstance(raw, str) or not raw.isprintable() or not raw.startswith("/"):
        raise ValueError
    return Path(raw)


def _read_name(raw: object) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", raw):
        raise ValueError
    return raw


def _read_uri(raw: object) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"[a-z][a-z0-9+]*:[!-~]+", raw):
        raise ValueError
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(raw)
    except ValueError as error:
        raise ValueError("it cannot be taken apart") from error
    if parts.password is not None:
        raise ValueError("a password does not belong in a URI; use keys")
    # libvirt takes both separators and ignores case (virURIParseParams, doRemoteOpen).
    for parameter in re.split("[&;]", parts.query):
        name, _, value = (unquote(part).casefold() for part in parameter.partition("="))
        if name == "no_verify" or (name == "known_hosts_verify" and value != "normal"):
            raise ValueError(f"{name} switches off the check that it is the right host")
    return raw


def _read_store(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError
    if re.fullmatch(r"sqlite:///[^\x00-\x1f\x7f]+", raw):
        return raw
    if not re.fullmatch(r"postgres(ql)?://[!-~]*", raw):
        raise ValueError
    from urllib.parse import parse_qsl, urlsplit

    try:
        parts = urlsplit(raw)
    except ValueError as error:
        raise ValueError("it cannot be taken apart") from error
    given = {name.casefold() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if parts.password is not None or given & {"password", "sslpassword"}:
        raise ValueError("a password does not belong in a URL; use ~/.pgpass or a service file")
    return raw


def _read_principal(raw: object) -> str:
    # Of allowed_signers' principals, those that are no patterns and no lists (ssh-keygen(1)).
    if not isinstance(raw, str) or not re.fullmatch(r"[A-Za-z0-9@._+-]{1,100}", raw):
        raise ValueError
    return raw


def _read_key(raw: object) -> str | Path:
    return raw if raw in ("auto", "agent", "none") else _read_path(raw)


def _read_argv(raw: object) -> tuple[str, ...]:
    # A word of its own for each argument; as text, as in an environment variable, like a shell's.
    words = shlex.split(raw) if isinstance(raw, str) else raw
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError
    if any("\0" in word for word in words) or (words and not words[0]):
        raise ValueError
    return tuple(words)


def _some_of(*choices: str) -> Kind:
    def read(raw: object) -> tuple[str, ...]:
        words = raw.replace(",", " ").split() if isinstance(raw, str) else raw
        if not isinstance(words, list) or not all(word in choices for word in words):
            raise ValueError
        return tuple(words)

    return Kind(f"a list of some of {', '.join(choices)}", read)


def _read_network(raw: object) -> str:
    if raw == "auto":
        return "auto"
    if not isinstance(raw, str):
        raise ValueError
    from ipaddress import IPv4Network  # takes milliseconds, and is seldom needed

    try:
        network = IPv4Network(raw)
    except ValueError as error:
        raise ValueError(str(error)) from error
    if not (network.is_private and 16 <= network.prefixlen <= 29):
        raise ValueError("for private use, and of 8 to 65536 addresses")
    return raw


def _read_socket(raw: object) -> str | Path:
    return "auto" if raw == "auto" else _read_path(raw)


def _read_span(raw: object) -> str:
    if not isinstance(raw, str) or not INTERVAL.fullmatch(raw):
        raise ValueError
    return raw


SPAN: Final = Kind("off, or a time such as 30m, 2h or 1d", _read_span)
PRINCIPAL: Final = Kind("letters, digits, and @ . _ + -, at most 100", _read_principal)
KEY: Final = Kind("auto, agent, none, or an absolute path of a private key", _read_key)
NAME: Final = Kind("letters, digits, '_' and '-', at most 32, first a letter or digit", _read_name)
URI: Final = Kind("a libvirt URI such as qemu:///system or ch+ssh://me@lab/system", _read_uri)
ARGV: Final = Kind("a command as a list of words", _read_argv)
PATH: Final = _folder()
FAR_PATH: Final = Kind("an absolute path on the host", _read_far_path)
NETWORK: Final = Kind("auto, or a network such as 10.90.0.0/24", _read_network)
SOCKET: Final = Kind("auto, or an absolute path of a socket", _read_socket)
STORE: Final = Kind(
    "sqlite:///FILE or postgresql://USER@HOST/DATABASE",
    _read_store,
    default=lambda paths: f"sqlite://{paths.store}",
)


@dataclass(frozen=True, slots=True)
class Ui:
    themes: Annotated[Path, _folder(lambda paths: paths.themes)]
    """Folder with themes of one's own."""
    theme: Annotated[str, NAME] = "midnight"
    """Name of a theme file, without its ending."""
    view: Annotated[Literal["tiles", "table"], choice("tiles", "table")] = "tiles"
    """How the fleet is shown at first."""
    notify: Annotated[Literal["desktop", "bell", "off"], choice("desktop", "bell", "off")] = (
        "desktop"
    )
    """When agents begin to wait for you: ring and ask for a desktop notification, ring, nothing."""
    notify_about: Annotated[tuple[str, ...], _some_of("asks", "failures", "done")] = (
        "asks",
        "failures",
    )
    """Of what to tell: agents that ask, what fails (agents, hosts), agents that are done."""
    notify_command: Annotated[tuple[str, ...], ARGV] = ()
    """A program to run then, one at a time and for at most 10 s: the line is on its standard input
    and in SWARM_NOTICE, the counts in SWARM_ASKS, SWARM_FAILURES and SWARM_DONE."""
    ascii: Annotated[Literal["auto", "yes", "no"], choice("auto", "yes", "no")] = "auto"
    """Draw with ASCII only; auto: when the terminal's encoding is not UTF-8."""


@dataclass(frozen=True, slots=True)
class Snapshots:
    folder: Annotated[Path, _folder(lambda paths: paths.snapshots)]
    keep: Annotated[int, integer(0, 1000)] = 8
    """Past snapshots kept per agent that nobody asked for; what is held is not counted: what you
    named or pinned, the one that it is saved in, what a review or a fork needs."""
    age_days: Annotated[int, integer(0, 3650)] = 0
    """After how many days they go, and those that you asked for without a name; 0: never."""
    agent_mib: Annotated[int, integer(0, 1 << 30)] = 0
    """The most that one agent's may take up on disk; then the oldest go; 0: no limit."""
    total_mib: Annotated[int, integer(0, 1 << 30)] = 0
    """The most that those of all agents may."""
    every: Annotated[str, SPAN] = "off"
    """How long after its newest snapshot a working agent gets a checkpoint by itself."""
    at_turns: Annotated[Literal["yes", "no"], choice("yes", "no")] = "no"
    """Whether it gets one when it asks, is sent a message, or goes on after a verdict."""


@dataclass(frozen=True, slots=True)
class Logs:
    """What agents said."""

    quota_mib: Annotated[int, integer(16, 1 << 20)] = 1024
    """Space on disk for the logs of all agents together; the oldest of the biggest go first."""


@dataclass(frozen=True, slots=True)
class Reviewing:
    """Reviews and their verdicts."""

    allowed_signers: Annotated[Path, _folder(lambda paths: paths.allowed_signers)]
    """Whose signatures count, as `ssh-keygen -Y verify` reads it; made at your first verdict."""
    repository: Annotated[Path | None, PATH] = None
    """Your git repository, in which approved work lands; a host's own goes before it."""
    reviewer: Annotated[str, PRINCIPAL] = ""
    """Under which name you sign; default: git's user.email, else USER@HOST."""
    key: Annotated[Literal["auto", "agent", "none"] | Path, KEY] = "auto"
    """Key to sign with. auto: your SSH agent's, else one of ~/.ssh, else one made for it; none:
    verdicts are not signed, and marked so."""
    pack_mib: Annotated[int, integer(1, 4096)] = 64
    """The most that a guest may send of its work."""


@dataclass(frozen=True, slots=True)
class Local:
    """The local swarm."""

    memory_mib: Annotated[int, integer(128, 65536)] = 256
    """Memory given to each agent's VM."""
    agents: Annotated[int, integer(1, 200)] = 3
    """Agents that `demo` begins with."""
    accel: Annotated[Literal["auto", "kvm", "tcg"], choice("auto", "kvm", "tcg")] = "auto"
    """auto: KVM where a Linux guest really boots with it, else software emulation."""
    driver: Annotated[Literal["auto", "qemu", "ch"], choice("auto", "qemu", "ch")] = "auto"
    """What runs the VMs. auto: Cloud Hypervisor where it can, else QEMU."""
    network: Annotated[str, NETWORK] = "auto"
    """Addresses for agents under Cloud Hypervisor; auto: a /24 that no route of the host has."""
    virtchd: Annotated[Literal["auto"] | Path, SOCKET] = "auto"
    """Socket of the libvirt daemon for Cloud Hypervisor; auto: the system's, started if need be."""


@dataclass(frozen=True, slots=True)
class SharedStore:
    """What supervisors share: records of agents, claims on them, reviews, the audit log."""

    url: Annotated[str, STORE]
    """sqlite:///FILE for one machine, postgresql://USER@HOST/DATABASE for a team."""


@dataclass(frozen=True, slots=True)
class Supervision:
    poll_s: Annotated[float, _seconds(0.2, 60)] = 1.0
    """Pause between two readings of a host's counters."""
    reserve_mib: Annotated[int, integer(0, 1 << 20)] = 512
    """Memory of each host that new agents leave free."""


@dataclass(frozen=True, slots=True)
class Folders:
    data: Annotated[Path, _folder(lambda paths: paths.data)]
    state: Annotated[Path, _folder(lambda paths: paths.state)]
    cache: Annotated[Path, _folder(lambda paths: paths.cache)]


def is_far(uri: str) -> bool:
    """Whether a libvirt URI leads through SSH."""
    return uri.partition("://")[0].endswith("+ssh")


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One libvirt host, `[hosts.NAME]`."""

    name: HostName
    uri: str
    identity: Path | None = None
    """Private key for SSH to the host itself; None: as ssh chooses."""
    repository: Path | None = None
    """Where its agents' approved work lands; None: `review.repository`."""
    snapshots: Path | None = None
    """Folder for snapshots on a host behind SSH; None: the login's own choice there."""
    guest_identity: Path | None = None
    """Private key here for SSH to its agents; None: the one that each agent was made with."""

    @property
    def place(self) -> str:
        """HOST or HOST:PORT of a URI that leads through SSH; empty for others."""
        rest = self.uri.partition("://")[2]
        return rest.partition("/")[0].rpartition("@")[2] if is_far(self.uri) else ""

    @property
    def connection(self) -> str:
        """The URI with the key as its parameter (https://libvirt.org/uri.html, SSH transport)."""
        if self.identity is None or "ssh" not in self.uri.partition(":")[0]:
            return self.uri
        from urllib.parse import quote

        return f"{self.uri}{'&' if '?' in self.uri else '?'}keyfile={quote(str(self.identity))}"


@dataclass(frozen=True, slots=True)
class Config:
    """Every value, checked, with the defaults filled in. The fields are the file's sections."""

    hosts: Mapping[HostName, HostEntry]
    """By name, in the order of the file; empty: none is configured."""
    ui: Ui
    snapshots: Snapshots
    logs: Logs
    review: Reviewing
    local: Local
    store: SharedStore
    supervisor: Supervision
    paths: Folders


SECTIONS: Final[Mapping[str, type[Any]]] = {
    "paths": Folders,  # first: other defaults follow from the folders
    "ui": Ui,
    "snapshots": Snapshots,
    "logs": Logs,
    "review": Reviewing,
    "local": Local,
    "store": SharedStore,
    "supervisor": Supervision,
}
HOST: Final[Mapping[str, Kind]] = {
    "uri": URI,
    "identity": PATH,
    "repository": PATH,
    "snapshots": FAR_PATH,
    "guest_identity": PATH,
}
