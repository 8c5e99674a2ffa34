"""The definitions of a host's domains: read once and kept until they change.

QEMU's driver tells a VM's definition only when no other call is at work on that VM (seen with
libvirt 11.3; it waits for half a minute), so a VM that hangs under one would hold up whoever asks.
What has taken long already is not waited for, and everything here may still block: see
`Connection.study`. Of libvirt's objects only the domains are used; it is not imported here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from swarm_tui.adapters.domain import Definition, parse_definition, parse_metadata
from swarm_tui.adapters.fault import Code, is_unsupported
from swarm_tui.errors import Busy, HostError
from swarm_tui.model import AgentId
from swarm_tui.tag import NAMESPACE
from swarm_tui.text import sanitize

BATCH: Final = 32
"""Domains that share one deadline."""
LONG_MS: Final = 200
"""What a VM does within this time it will soon have done."""
PATIENCE_MS: Final = 2000
"""A verb waits for what has not yet taken longer: another's question, on a host with much to do."""
POLL_S: Final = 0.05

# virDomainControlState, virDomainMetadataType
_CONTROL_OK: Final = 0
_METADATA_ELEMENT: Final = 2


class Definitions:
    """All of one connection. Its methods block, but for `recall` and `forget`."""

    def __init__(self, library_error: type[Exception]) -> None:
        """`library_error` is libvirt's exception."""
        self._library_error = library_error
        self._kept: dict[str, Definition | None] = {}
        self._epoch = 0

    @property
    def kept(self) -> Mapping[str, Definition | None]:
        """Those that need not be read, by UUID."""
        return self._kept

    def recall(self, asked: Iterable[Any]) -> tuple[dict[str, Definition | None], list[Any]]:
        """The definitions that are kept, by UUID, and the domains whose are not.

        None stands for a definition that is not readable, and so not of an agent of ours.
        """
        found, unread = {}, []
        for domain in asked:
            uuid = domain.UUIDString()
            if uuid in self._kept:
                found[uuid] = self._kept[uuid]
            else:
                unread.append(domain)
        return found, unread

    def forget(self, uuid: str) -> None:
        self._epoch += 1
        self._kept.pop(uuid, None)

    def read_some(self, queue: deque[Any], found: dict[str, Definition | None]) -> None:
        """Add definitions to `found` as they come, but for those of VMs at work for long.

        Each domain is taken from the queue before it is asked: when one blocks, others go on.
        """
        for domain in _take(queue):
            try:
                found[domain.UUIDString()] = self.read(domain)
            except Busy:
                continue
            except self._library_error as error:
                if _code(error) != Code.NO_DOMAIN:
                    raise
                found[domain.UUIDString()] = None  # it went while we were listing

    def read(self, domain: Any) -> Definition | None:
        """Read it now, whatever is kept. Raises Busy, libvirtError."""
        uuid = domain.UUIDString()
        epoch = self._epoch
        try:
            definition = parse_definition(self.read_xml(domain))
        except HostError:
            definition = None  # not one of ours: we write readable ones
        if epoch == self._epoch:  # else it may have changed while we read
            self._kept[uuid] = definition
        return definition

    def read_xml(self, domain: Any, flags: int = 0, *, patience_ms: int = LONG_MS) -> str:
        """The text of its definition. Raises Busy, libvirtError."""
        while (since_ms := self._at_work_ms(domain)) > LONG_MS:
            if since_ms > patience_ms:
                taken = f"what its hypervisor does has taken {since_ms / 1000:.1f} s by now"
                raise Busy("The VM is busy", taken)
            time.sleep(POLL_S)
        return str(domain.XMLDesc(flags))

    def _at_work_ms(self, domain: Any) -> int:
        """For how long it has been at work; 0 where it is not or the driver cannot tell."""
        if domain.ID() == -1:  # told with the domain; it is off
            return 0
        try:
            state, _, since_ms = domain.controlInfo()
        except self._library_error as error:
            code = _code(error)
            if code != Code.OPERATION_INVALID and not is_unsupported(code):
                raise
            return 0
        return 0 if state == _CONTROL_OK else int(since_ms)

    def glimpse_some(self, queue: deque[Any], found: dict[str, Definition | None]) -> None:
        """As `read_some`, with what is told at once."""
        for domain in _take(queue):
            found.setdefault(domain.UUIDString(), self.glimpse(domain))

    def glimpse(self, domain: Any) -> Definition | None:
        """What is told at once, however busy the VM is; None when it is none of ours."""
        try:
            tag = parse_metadata(domain.metadata(_METADATA_ELEMENT, NAMESPACE))
            _, memory_kib, _, vcpus, _ = domain.info()
        except HostError:
            return None
        except self._library_error as error:
            if _code(error) not in (Code.NO_DOMAIN, Code.NO_DOMAIN_METADATA):
                raise
            return None
        return Definition(
            id=AgentId(domain.UUIDString()),
            name=sanitize(domain.name()),
            tag=tag,
            memory_bytes=memory_kib << 10,
            vcpus=vcpus,
            disks=None,
        )


def _take(queue: deque[Any]) -> Iterator[Any]:
    with suppress(IndexError):  # others take from it as well
        for _ in range(BATCH):
            yield queue.popleft()


def _code(error: Any) -> int | None:
    code: int | None = error.get_error_code()
    return code
