"""The swarms that are measured: simulated ones, and libvirt's test driver from a file."""

from __future__ import annotations

import os
import re
import sys
import uuid
from pathlib import Path
from typing import Final

from swarm_tui.adapters.simulated.tasks import TASKS
from swarm_tui.model import Tag
from swarm_tui.tag import render_tag
from swarm_tui.text import literal

PROGRAM: Final = str(Path(sys.executable).with_name("swarm-tui"))
SIMULATED: Final = re.compile(rb"(?:" + b"|".join(task.slug.encode() for task in TASKS) + rb")\b")
"""The name of a simulated agent on the screen."""
TESTED: Final = re.compile(rb"agent-\d{4}")


def environ(home: Path) -> dict[str, str]:
    """An environment in which no setting of the developer's counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARM_TUI_")}
    return {**kept, "SWARM_TUI_HOME": str(home), "PYTHONDONTWRITEBYTECODE": ""}


def simulated(agents: int, view: str = "tiles") -> list[str]:
    return [PROGRAM, "--set", f"ui.view={view}", "demo", "--simulated", str(agents)]


def tested(uri: str) -> list[str]:
    return [PROGRAM, "--connect", uri]


def write_test_host(folder: Path, agents: int) -> str:
    """A host of libvirt's test driver with that many running agents; its URI."""
    file = folder / f"host-{agents}.xml"
    domains = "".join(tested_domain(number) for number in range(agents))
    file.write_text(f"<node>{domains}</node>")
    return f"test://{file}"


def tested_domain(number: int) -> str:
    """A running agent of libvirt's test driver."""
    return (
        f"<domain type='test'><name>agent-{number:04}</name>"
        f"<uuid>{uuid.uuid5(uuid.NAMESPACE_OID, str(number))}</uuid>"
        f"<metadata>{bench_tag(number)}</metadata><memory unit='MiB'>256</memory><vcpu>1</vcpu>"
        "<os><type>hvm</type></os></domain>"
    )


def bench_tag(number: int) -> str:
    return render_tag(Tag(task=literal(f"Task {number}"), owner=literal("bench"), created=1.7e9))
