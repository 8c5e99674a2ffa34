"""`audit` on the command line: who did what to which agent, and whether the log still holds."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from swarm_tui.audit import Audit, Entry
from swarm_tui.errors import UsageError
from swarm_tui.report import plain, write_error, write_json, write_table

_AGO: Final = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_ID_LEAST: Final = 4
_HEADER: Final = ("WHEN", "VERB", "OUTCOME", "AGENT", "HOST", "BY", "WHAT")


def write_acts(audit: Audit, agent: str, since: str, *, is_json: bool) -> None:
    """List acts, oldest first: of one agent, named as it was then or by its id; of late, or all
    `since` a time. Raises UsageError, AuditError.
    """
    acts = audit.since(parse_time(since, time.time())) if since else audit.recent()
    acts = [act for act in acts if not agent or is_about(act, agent)]
    if is_json:
        write_json({"acts": plain(acts), "is_all": audit.gap is None})
    else:
        write_table(_HEADER, [_row(act) for act in acts])
    if audit.gap:
        print("swarm-tui: only what was done from here:", file=sys.stderr)
        write_error(audit.gap, is_json=False)


def write_proof(audit: Audit, *, is_json: bool) -> None:
    """Check the log, and say what holds.

    Raises AuditError for the first line that does not, and StoreError.
    """
    whole = audit.verify()
    proof = whole.proof
    if is_json:
        write_json({"ok": True, **plain(proof), "others": plain(whole.others)})
        return
    count = proof.head.seq if proof.head else 0
    print(f"{count:,} lines hold together")
    if proof.head:
        print(f"  the last is {proof.head.sha256} of log {proof.head.chain}")
    if proof.unchained:
        print(f"  {proof.unchained:,} older lines before them; they are as they were then")
    for number in proof.torn:
        print(f"  line {number:,} was cut short by a crash; what it was about was not done")
    for log in whole.others:
        print(f"{log.seq:,} lines in the store hold together, of log {log.chain} of {log.place}")


def is_about(act: Entry, agent: str) -> bool:
    """Whether an act was done to the agent of this name, HOST/NAME, id or beginning of an id."""
    names = (act.name, f"{act.host}/{act.name}", act.agent)
    return agent in names or (len(agent) >= _ID_LEAST and act.agent.startswith(agent))


def parse_time(text: str, now: float) -> float:
    """Unix seconds of "2h" ago (s, m, h, d, w) or of an ISO date or time. Raises UsageError."""
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            "This is no time", repr(text), "Say 2h, 3d, 2026-11-23 or 2026-11-23T14:00."
        ) from error


def _row(act: Entry) -> Sequence[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(act.at))
    outcome = act.outcome or "unknown"
    return (when, act.verb, outcome, act.name or "-", act.host or "-", act.actor, act.detail)
