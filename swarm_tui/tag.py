"""Our element in a domain definition: the facts that are fixed when an agent is made.

It lives in `<metadata>`, which libvirt keeps and never interprets. Changing facts live in the
catalogue, because some drivers lose a saved VM when its definition is changed.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from swarm_tui.errors import UsageError
from swarm_tui.model import Address, Label, Tag
from swarm_tui.text import sanitize

NAMESPACE = "urn:swarm-tui:1"
_AGENT = f"{{{NAMESPACE}}}agent"
_SSH = f"{{{NAMESPACE}}}ssh"
_LABEL = f"{{{NAMESPACE}}}label"

LABELS: Final = 16
"""Of one agent, at most."""
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,39}")
_LABEL_CELLS: Final = 80
"""Of a label's value, at most."""

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


def make_labels(texts: Iterable[str]) -> tuple[Label, ...]:
    """Labels as a person writes them, "key" or "key=value". Raises UsageError."""
    labels: dict[str, Label] = {}
    for text in texts:
        key, _, value = text.strip().partition("=")
        if not _LABEL_KEY.fullmatch(key):
            raise UsageError(
                f"“{text}” is no label",
                hint="KEY or KEY=VALUE; a key has up to 40 letters, digits and . _ / -",
            )
        if key in labels:
            raise UsageError(f"The label {key} is given twice")
        if len(value) > _LABEL_CELLS or sanitize(value) != value:
            raise UsageError(
                f"The label {key} cannot have that value",
                hint=f"Up to {_LABEL_CELLS} characters that can be seen.",
            )
        labels[key] = Label(sanitize(key), sanitize(value))
    if len(labels) > LABELS:
        raise UsageError(f"An agent has at most {LABELS} labels")
    return tuple(labels[key] for key in sorted(labels))


def _parse_labels(element: ET.Element) -> tuple[Label, ...]:
    labels: dict[str, Label] = {}
    for part in element.iterfind("{*}label"):
        key, value = part.get("key", ""), part.get("value", "")
        if _LABEL_KEY.fullmatch(key) and len(labels) < LABELS:
            labels[key] = Label(sanitize(key), sanitize(value, max_cells=_LABEL_CELLS))
    return tuple(labels[key] for key in sorted(labels))


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
