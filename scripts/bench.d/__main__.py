"""Measures the program's budgets and prints them as one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from figure import Figure
from ingest import ingest
from links import links
from noticing import noticing
from reading import reading
from review import review
from review_content import review_content
from scale import scale
from screen import command_line, cost, first_paint, keys
from shared import store
from spawning import spawn
from verbs import verbs

Measure = Callable[[Path, bool], Iterator[Figure]]

MEASURES: Final[Mapping[str, Measure]] = {
    "command-line": command_line,
    "first-paint": first_paint,
    "keys": keys,
    "cost": cost,
    "ingest": ingest,
    "verbs": verbs,
    "spawn": spawn,
    "noticing": noticing,
    "reading": reading,
    "review": review,
    "review-content": review_content,
    "scale": scale,
    "links": links,
    "store": store,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples, smaller swarms")
    parser.add_argument(
        "--only", action="append", choices=MEASURES, metavar="NAME", help="this measure (again: +)"
    )
    parser.add_argument(
        "--scale",
        action="append_const",
        dest="only",
        const="scale",
        help="100, 1,000 and 10,000 agents beside virt-top and virsh; some eight minutes",
    )
    parser.add_argument(
        "--spawn",
        action="append_const",
        dest="only",
        const="spawn",
        help="new agents: first, warm, twenty at once, beside bare virsh and qemu-img",
    )
    parser.add_argument("--list", action="store_true", help="name the measures")
    arguments = parser.parse_args()
    if arguments.list:
        for name, measure in MEASURES.items():
            print(f"{name:14} {measure.__doc__ or ''}")
        return 0
    figures = []
    with tempfile.TemporaryDirectory(prefix="swarm-tui-bench-") as folder:
        for name in arguments.only or MEASURES:
            print(f"==> {name}", file=sys.stderr, flush=True)
            for figure in MEASURES[name](Path(folder), arguments.quick):
                print(f"    {_sentence(figure)}", file=sys.stderr, flush=True)
                figures.append(figure.to_json())
    print(json.dumps({"machine": _machine(), "figures": figures}, indent=1))
    return 0


def _sentence(figure: Figure) -> str:
    shown = figure.to_json()
    verdict = {True: "within", False: "NOT within", None: ""}[figure.is_within()]
    budget = f" ({verdict} {shown['budget']})" if verdict else ""
    return f"{figure.name}: {shown['value']} {figure.unit}{budget}"


def _machine() -> dict[str, object]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
