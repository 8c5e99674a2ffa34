"""Our element in a domain definition: the facts that are fixed when an agent is made.

It lives in `<metadata>`, which libvirt keeps and never interprets. Changing facts live in the
catalogue, because some drivers lose a saved VM when its definition is changed.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

from swarm_tui.model import Address, Tag
from swarm_tui.text import sanitize

NAMESPACE = "urn:swarm-tui:1"
_AGENT = f"{{{NAMESPACE}}}agent"
_SSH = f"{{{NAMESPACE}}}ssh"


def render_tag(tag: Tag) -> str:
    """The `<swarm:agent>` element as XML text, to stand inside `<metadata>`."""
    ET.register_namespace("swarm", NAMESPACE)
    element = ET.Element(_AGENT, {"task": tag.task, "owner": tag.owner, "base": tag.base})
    if tag.created is not None:
        element.set("created", f"{tag.created:.3f}")
    if tag.address:
        ET.SubElement(
            element,
            _SSH,
            {
                "host": tag.address.host,
                "port": str(tag.address.port),
                "host-key": tag.address.host_key,
                "identity": str(tag.address.identity),
                "user": tag.address.user,
                "workspace": tag.address.workspace,
            },
        )
    return ET.tostring(element, encoding="unicode")


def parse_tag(definition: ET.Element) -> Tag | None:
    """Read the tag of a `<domain>` element; None when the VM is not an agent of ours.

    Unreadable parts read as unknown: somebody else may have written the definition.
    """
    element = definition.find(f"metadata/{_AGENT}")
    if element is None:
        return None
    return Tag(
        task=sanitize(element.get("task", "")),
        owner=sanitize(element.get("owner", "")),
        created=_parse_time(element.get("created", "")),
        base=sanitize(element.get("base", "")),
        address=_parse_address(element.find(_SSH)),
    )


def _parse_time(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _parse_address(element: ET.Element | None) -> Address | None:
    if element is None:
        return None
    port = element.get("port", "")
    host_key = element.get("host-key", "")
    identity = element.get("identity", "")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536 and host_key and identity):
        return None
    return Address(
        host=element.get("host", "127.0.0.1"),
        port=int(port),
        host_key=host_key,
        identity=Path(identity),
        user=element.get("user", "agent"),
        workspace=element.get("workspace", "/workspace"),
    )
