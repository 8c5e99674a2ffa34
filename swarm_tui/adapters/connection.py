"""A libvirt connection: its deadlines, its events, its errors, and what its driver can do.

Each call runs in a thread of its own (see `calls`). One thread per process runs libvirt's event
loop, which feeds keepalive, events and console streams; from there everything hops to asyncio by
`call_soon_threadsafe`. This module and `libvirt` are the only importers of libvirt.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import libvirt

from swarm_tui.adapters.calls import Calls, Tries, in_thread
from swarm_tui.adapters.fault import Code, Fault, is_unsupported, to_error
from swarm_tui.errors import ConfigError, DeadlineExceeded, HostUnreachable, SwarmError
from swarm_tui.model import AgentId, Capabilities, Hint, HostName

T = TypeVar("T")

KEEPALIVE_S: Final = 1
"""Often, because in libvirt before 10.0 a call that begins while another one waits may stay unsent
until anything arrives ("rpc: fix race in waking up client event loop"), and that other may hang."""
KEEPALIVE_MISSES: Final = 600
"""So many that our own deadlines tell first that a host is lost. When libvirt 9.0.0 itself closes a
connection on which a call hangs, and the daemon goes on after that, it takes this process with it
(SIGSEGV in g_main_context_dispatch below virNetClientSendWithReply)."""
CLOSE_S: Final = 2.0
EVENT_WAKE_MS: Final = 1000
NOWHERE: Final = "/dev/null/none"
"""A path that cannot exist, for asking what restoring supports."""

_STATISTICS: Final = {
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL: {"cpu_ns": "cpu.time"},
    libvirt.VIR_DOMAIN_STATS_BALLOON: {
        "memory_used": "balloon.available - balloon.usable, told by the guest's balloon driver",
        "memory_given": "balloon.current",
        "memory_host": "balloon.rss",
    },
    libvirt.VIR_DOMAIN_STATS_BLOCK: {
        "disk_read": "block.*.rd.bytes",
        "disk_written": "block.*.wr.bytes",
    },
    libvirt.VIR_DOMAIN_STATS_INTERFACE: {
        "net_received": "net.*.rx.bytes of the host's tap; none with user-mode networking",
        "net_sent": "net.*.tx.bytes of the host's tap; none with user-mode networking",
    },
}
_LIFECYCLE: Final = (
    "defined",
    "undefined",
    "started",
    "suspended",
    "resumed",
    "stopped",
    "shutdown",
    "asleep",
    "crashed",
)
_OTHER_EVENTS: Final = {
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: "rebooted",
    libvirt.VIR_DOMAIN_EVENT_ID_CONTROL_ERROR: "control-error",
    libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED: "job-completed",
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: "guest-agent",
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE: "metadata",
}
_CLOSE_REASONS: Final = ("an error", "the daemon went away", "no answer to keepalive", "a request")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each kind of call may take; past them the outcome is unknown."""

    open_s: float = 10.0
    read_s: float = 5.0
    study_s: float = 3.0
    """Reading definitions, for which some libvirts wait until the VM is idle."""
    act_s: float = 15.0
    move_s: float = 120.0
    """Save, restore, checkpoint and fork, which move the guest's memory."""


class Connection:
    """One connection, from `open` to `close`; it is not opened a second time."""

    def __init__(
        self,
        host: HostName,
        uri: str,
        deadlines: Deadlines,
        tries: Tries,
        on_hint: Callable[[Hint], None],
        *,
        is_busy: bool = False,
        studies: int = 2,
    ) -> None:
        """`on_hint` is called on the running event loop; `tries` are all that are made at the host.

        Raises ConfigError for an unsafe URI.

        `is_busy`: one VM at work blocks this driver's list of all, so that no probe may need it.
        `studies`: see `Calls`.
        """
        self.changed: Callable[[str], None] = lambda _uuid: None
        """Told the UUID of a domain whose definition may have changed, on libvirt's thread."""
        self.statistics = 0
        """The groups of getAllDomainStats that the driver has."""
        self.nowait = 0
        """The flag by which getAllDomainStats skips what a busy VM cannot tell now."""
        self.restore_running = 0
        """The flag by which a restored VM runs, even if it was suspended when it was saved."""
        self._host = host
        self._uri = without_prompts(uri)
        self._deadlines = deadlines
        self._on_hint = on_hint
        self._tries = tries
        self._is_busy = is_busy
        self._loop = asyncio.get_running_loop()
        self._calls = Calls(host, studies=studies)
        self._handle: Any = None
        self._callbacks: list[int] = []

    async def open(self) -> Capabilities:
        _start_events()
        connecting = self._tries.begin(self._connect)
        try:
            async with asyncio.timeout(self._deadlines.open_s):
                return await asyncio.shield(connecting)
        except TimeoutError:
            raise DeadlineExceeded(
                f"Host {self._host} does not answer",
                f"no connection to {self._uri} in {self._deadlines.open_s:g} s",
            ) from None
        finally:
            if not connecting.done():
                self._calls.end("it did not answer")

    async def close(self) -> None:
        self._calls.end("the connection was closed")
        # Saying good-bye is a call like any other: a dead daemon may never answer it.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.shield(in_thread(self._disconnect))

    async def read(self, doing: str, work: Callable[[], T]) -> T:
        """Run `work`, which asks and changes nothing. `doing` completes "could not …"."""
        return await self._call(doing, work, self._calls.quick, self._deadlines.read_s)

    async def study(self, doing: str, work: Callable[[], T]) -> T:
        """As `read`, for what a single VM that hangs may hold up; never in the way of others."""
        return await self._call(doing, work, self._calls.study, self._deadlines.study_s)

    async def act(self, doing: str, work: Callable[[], T]) -> T:
        return await self._call(doing, work, self._calls.quick, self._deadlines.act_s)

    async def move(self, doing: str, work: Callable[[], T]) -> T:
        return await self._call(doing, work, self._calls.long, self._deadlines.move_s)

    async def destroy(self, doing: str, work: Callable[[], T]) -> T:
        """As `act`, never behind other calls."""
        return await self._call(doing, work, self._calls.reserve, self._deadlines.act_s)

    async def _call(
        self, doing: str, work: Callable[[], T], lane: asyncio.Semaphore, deadline_s: float
    ) -> T:
        def mapped() -> T:
            with self._mapped(doing):
                return work()

        return await self._calls.call(doing, mapped, lane=lane, deadline_s=deadline_s)

    @contextmanager
    def _mapped(self, doing: str) -> Iterator[None]:
        try:
            yield
        except libvirt.libvirtError as error:
            message = error.get_error_message() or str(error)
            fault = Fault(error.get_error_code(), error.get_int1(), message)
            raise to_error(fault, self._host, doing, is_connected=self.is_alive()) from error

    # All from here on blocks or is called back, in threads.

    @property
    def handle(self) -> Any:
        """The virConnect. Raises HostUnreachable when there is none."""
        if self._handle is None:
            raise HostUnreachable(f"Host {self._host} is out of reach", "it is not connected")
        return self._handle

    def is_alive(self) -> bool:
        with suppress(libvirt.libvirtError):
            return self._handle is not None and bool(self._handle.isAlive())
        return False

    def _connect(self) -> Capabilities:
        with self._mapped("connect"):
            # With no way to give credentials, nobody is asked for a password on our terminal.
            handle = libvirt.openAuth(self._uri, [[], None, None], 0)
        self._handle = handle
        try:
            with self._mapped("connect"):
                self._listen(handle)
                capabilities = self._probe(handle)
        except SwarmError:
            self._disconnect()
            raise
        if self._calls.ended:  # nobody waits for us any more: leave nothing behind
            self._disconnect()
        return capabilities

    def _disconnect(self) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            return
        # libvirt-python keeps a connection with callbacks alive for ever.
        for callback in self._callbacks:
            with suppress(libvirt.libvirtError):
                handle.domainEventDeregisterAny(callback)
        with suppress(libvirt.libvirtError):
            handle.unregisterCloseCallback()
        with suppress(libvirt.libvirtError):
            handle.close()

    def _listen(self, handle: Any) -> None:
        # A driver inside this process has no transport, and so no keepalive.
        _answers(handle.setKeepAlive, KEEPALIVE_S, KEEPALIVE_MISSES)
        _answers(handle.registerCloseCallback, self._heard_close, None)
        for event in (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, *_OTHER_EVENTS):
            register = partial(handle.domainEventRegisterAny, None, event, self._heard_event)
            try:
                self._callbacks.append(register(_OTHER_EVENTS.get(event)))
            except libvirt.libvirtError as error:
                if not is_unsupported(error.get_error_code()):
                    raise

    def _heard_event(self, _connection: Any, domain: Any, *details: Any) -> None:
        """The last detail is what was given at registration."""
        uuid = domain.UUIDString()
        kind = details[-1]
        if kind is None:
            event = details[0]
            kind = _LIFECYCLE[event] if 0 <= event < len(_LIFECYCLE) else "lifecycle"
        if kind not in ("suspended", "resumed"):
            self.changed(uuid)
        self._hop(self._tell, Hint(AgentId(uuid), kind))

    def _heard_close(self, _connection: Any, reason: int, _opaque: None) -> None:
        why = _CLOSE_REASONS[reason] if 0 <= reason < len(_CLOSE_REASONS) else "an error"
        self._hop(self._tell_closed, why)

    def _hop(self, work: Callable[..., None], detail: object) -> None:
        with suppress(RuntimeError):  # the event loop is gone, and so is everybody who listened
            self._loop.call_soon_threadsafe(work, detail)

    def _tell(self, hint: Hint) -> None:
        if not self._calls.ended:
            self._on_hint(hint)

    def _tell_closed(self, why: str) -> None:
        if not self._calls.ended:
            self._calls.end(f"the connection was lost: {why}")
            self._on_hint(Hint(None, "closed"))

    def _probe(self, handle: Any) -> Capabilities:
        """Ask for everything once, in ways that change nothing."""
        driver = handle.getType()
        lacks = f"libvirt's {driver} driver does not have it"
        missing: dict[str, str] = {}
        sources: dict[str, str] = {}

        # Of the VMs that are off: a look at a running one may have to wait for it.
        ask = (
            libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS
            | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE
        )
        for group, counters in _STATISTICS.items():
            if _answers(handle.getAllDomainStats, group, ask):
                self.statistics |= group
                sources |= {name: f"libvirt {source}" for name, source in counters.items()}
            else:
                missing |= dict.fromkeys(counters, lacks)
        for name, source in (("cpu_ns", "cpuTime"), ("memory_given", "memory")):
            if missing.pop(name, None):
                sources[name] = f"libvirt virDomainGetInfo {source}"
        nowait = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        if _answers(handle.getAllDomainStats, libvirt.VIR_DOMAIN_STATS_STATE, nowait):
            self.nowait = nowait

        if not _answers(handle.restore, NOWHERE):
            missing |= dict.fromkeys(("save", "restore"), lacks)
        running = libvirt.VIR_DOMAIN_SAVE_RUNNING
        if _answers(handle.restoreFlags, NOWHERE, None, running):
            self.restore_running = running

        # The rest can only be asked of a domain; any will do.
        for domain in [] if self._is_busy else handle.listAllDomains()[:1]:
            if not _answers(domain.snapshotNum):
                missing |= dict.fromkeys(("dump", "checkpoint", "fork"), lacks)
            stream = handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
            if not _answers(domain.openConsole, "no-such-device", stream, 0):
                missing["console"] = lacks
        return Capabilities(
            driver=driver,
            version=_version(handle.getVersion()),
            library=_version(handle.getLibVersion()),
            missing=missing,
            sources=sources,
        )


def without_prompts(uri: str) -> str:
    """`uri` so that ssh never asks on our terminal.

    Raises ConfigError when it is no full URI or switches off the check of the host's identity.
    """
    parts = urlsplit(uri)
    if "://" not in uri:  # it may be an alias for anything
        raise ConfigError("Not a libvirt URI", uri, 'It looks like "qemu:///system".')
    query = parse_qsl(parts.query.replace(";", "&"), keep_blank_values=True)
    names = {name.lower() for name, _ in query}
    if "no_verify" in names:
        raise ConfigError(
            "This libvirt URI does not check the host's identity",
            uri,
            "Remove no_verify, and add the host's key to ~/.ssh/known_hosts.",
        )
    if not parts.scheme.endswith("+ssh") or "no_tty" in names:
        return uri
    return parts._replace(query=f"{parts.query}&no_tty=1".lstrip("&")).geturl()


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _answers(call: Callable[..., object], *arguments: object) -> bool:
    """Whether the driver knows `call` with these flags; that it then fails is an answer, too."""
    try:
        call(*arguments)
    except libvirt.libvirtError as error:
        code = error.get_error_code()
        if code == Code.INVALID_ARG:  # a bad flag, or the device that is not there
            return "unsupported flags" not in str(error)
        return not is_unsupported(code)
    return True


_events_lock = threading.Lock()
_events: threading.Thread | None = None
_are_events_over = False


def _start_events() -> None:
    """Run libvirt's event loop; must come before the first connection of the process."""
    global _events
    with _events_lock:
        if _events:
            return
        # Process-wide. Without it libvirt prints each error on stderr; we raise them.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        # With nothing to wait for it would never come back to Python.
        timer = libvirt.virEventAddTimeout(EVENT_WAKE_MS, lambda _timer, _opaque: None, None)
        _events = threading.Thread(target=_run_events, daemon=True, name="libvirt-events")
        _events.start()
        atexit.register(_end_events, timer)


def _run_events() -> None:
    while not _are_events_over:
        with suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


def _end_events(timer: int) -> None:
    """A thread in libvirt's C code while Python goes down takes the process with it (SIGSEGV)."""
    global _are_events_over
    _are_events_over = True
    libvirt.virEventUpdateTimeout(timer, 0)
    if _events:
        _events.join(CLOSE_S)
