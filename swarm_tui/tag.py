"""Our element in a domain definition: the facts that are fixed when an agent is made.

It lives in `<metadata>`, which libvirt keeps and never interprets. Changing facts live in the
catalogue, because some drivers lose a saved VM when its definition is changed.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

from swarm_tui.label import Label, read_labels
from swarm_tui.model import Address, Tag
from swarm_tui.text import sanitize

NAMESPACE = "urn:swarm-tui:1"
_AGENT = f"{{{NAMESPACE}}}agent"
_SSH = f"{{{NAMESPACE}}}ssh"
_LABEL = f"{{{NAMESPACE}}}label"


_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ADDRESS: Final = {
    "host": re.compile(r"[0-9A-Za-z:][0-9A-Za-z.:_%-]*"),
    "port": re.compile(r"[0-9]{1,5}"),
    "host-key": re.compile(r"[a-z0-9@.-]+ [0-9A-Za-z+/=]+(?: [!-~ ]*)?"),
    "identity": re.compile(r"/[^\x00-\x1f\x7f]+"),
    "user": re.compile(r"[a-z_][a-z0-9_-]*"),
    "workspace": re.compile(r"/[^\x00-\x1f\x7f]*"),
}
"""What each part of an address looks like. Definitions come from hosts, which may be hostile, and
these go into file names, key pins and command lines."""
_LATEST: Final = 1e11
"""Unix seconds; later times than this (the year 5138) do not fit into calendars everywhere."""


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
    for label in tag.labels:
        ET.SubElement(element, _LABEL, {"key": label.key, "value": label.value})
    return ET.tostring(element, encoding="unicode")


def parse_tag(definition: ET.Element) -> Tag | None:
    """Read the tag of a `<domain>` element; None when the VM is not an agent of ours.

    Unreadable parts read as unknown: somebody else may have written the definition.
    """
    element = definition.find(f"metadata/{_AGENT}")
    return None if element is None else parse_agent(element)


def parse_agent(element: ET.Element) -> Tag:
    """Read our element by itself.

    Its namespace does not matter: libvirt leaves it away where it gives the element alone
    (virXMLExtractNamespaceXML).
    """
    base = element.get("base", "")
    return Tag(
        task=sanitize(element.get("task", "")),
        owner=sanitize(element.get("owner", "")),
        created=_parse_time(element.get("created", "")),
        base=base if _COMMIT.fullmatch(base) else "",
        address=_parse_address(element.find("{*}ssh")),
        labels=_parse_labels(element),
    )


def _parse_labels(element: ET.Element) -> tuple[Label, ...]:
    parts = ((part.get("key", ""), part.get("value", "")) for part in element.iterfind("{*}label"))
    return read_labels(parts)


def _parse_time(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < _LATEST else None


def _parse_address(element: ET.Element | None) -> Address | None:
    if element is None:
        return None
    parts = {"host": "127.0.0.1", "user": "agent", "workspace": "/workspace"} | element.attrib
    if not all(shape.fullmatch(parts.get(name, "")) for name, shape in _ADDRESS.items()):
        return None
    port = int(parts["port"])
    if not 0 < port < 65536:
        return None
    return Address(
        host=parts["host"],
        port=port,
        host_key=parts["host-key"],
        identity=Path(parts["identity"]),
        user=parts["user"],
        workspace=parts["workspace"],
    )
