"""A Cloud Hypervisor's own API, for VMMs that no libvirt daemon speaks to any more."""

from __future__ import annotations

import http
import http.client
import re
import socket
from pathlib import Path
from typing import Final

from swarm_tui.errors import AgentGone, DeadlineExceeded, HostDenied, HostError

_MOST_BYTES: Final = 1 << 20
_COMMAND: Final = re.compile(r"(vm|vmm)\.[a-z-]+")
_QUESTIONS: Final = ("vm.info", "vm.counters", "vmm.ping")
"""GETs; everything else is a PUT (vmm/src/api/openapi/cloud-hypervisor.yaml)."""


def tell_vmm(api: Path, command: str, body: str, timeout_s: float) -> str:
    """As `ports.Outpost.tell_vmm`. Raises AgentGone, HostError, HostDenied, DeadlineExceeded."""
    if not _COMMAND.fullmatch(command):
        raise HostError("Not a command of Cloud Hypervisor", command)
    connection = _Connection(api, timeout_s)
    headers = {"Accept": "application/json"}
    if body:
        headers["Content-Type"] = "application/json"
    try:
        method = "GET" if command in _QUESTIONS else "PUT"
        connection.request(method, f"/api/v1/{command}", body.encode() or None, headers)
        answer = connection.getresponse()
        content = answer.read(_MOST_BYTES)
    except TimeoutError as error:
        raise DeadlineExceeded(
            "The VMM does not answer",
            f"told {command} at {api}, no answer in {timeout_s:g} s; the outcome is unknown",
        ) from error
    except FileNotFoundError as error:
        raise AgentGone("The VMM has no API any more", str(api)) from error
    except PermissionError as error:
        raise HostDenied(
            "The VMM's API is closed to us", str(api), "Log in to the host as root."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise HostError("The VMM cannot be spoken to", f"{api}: {error}") from error
    finally:
        connection.close()
    words = content.decode("utf-8", "replace")
    if answer.status >= http.HTTPStatus.MULTIPLE_CHOICES:
        raise HostError(f"The VMM refused {command}", f"{answer.status} {answer.reason}: {words}")
    return words


class _Connection(http.client.HTTPConnection):
    def __init__(self, api: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._api = api

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._api))
