"""Hosts of libvirt's test driver: real connections, pretended domains, each with a life of its own.

Each connection to such a URI has its own domains, as the file tells them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm_tui.label import make_labels
from swarm_tui.model import Tag
from swarm_tui.tag import render_tag
from swarm_tui.text import sanitize

NOWHERE = "qemu+unix:///session?socket=/nonexistent/sock"


@dataclass(frozen=True)
class Domain:
    name: str
    owner: str = "ada"
    labels: Sequence[str] = ()


def write_host(folder: Path, name: str, domains: Sequence[Domain]) -> str:
    """Its URI; all domains of it run."""
    file = folder / f"{name}.xml"
    file.write_text(f"<node>{''.join(_define(name, domain) for domain in domains)}</node>")
    return f"test://{file}"


def write_config(file: Path, uris: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"[hosts.{name}]\nuri = '{uri}'\n\n" for name, uri in uris.items()))


def _define(host: str, domain: Domain) -> str:
    tag = Tag(owner=sanitize(domain.owner), created=1.7e9, labels=make_labels(domain.labels))
    return (
        f"<domain type='test'><name>{domain.name}</name>"
        f"<uuid>{uuid.uuid5(uuid.NAMESPACE_OID, f'{host}/{domain.name}')}</uuid>"
        f"<metadata>{render_tag(tag)}</metadata><memory unit='MiB'>256</memory><vcpu>1</vcpu>"
        "<os><type>hvm</type></os></domain>"
    )
