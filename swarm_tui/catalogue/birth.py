"""What an agent was made of, as the store has it: JSON, whose absent parts are the plain ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from swarm_tui.model import AgentId, Birth, Rewound, SnapshotId
from swarm_tui.profile import INTERVAL, Ending, Life, Occasion
from swarm_tui.text import sanitize


def render_birth(birth: Birth) -> str:
    """Empty for the plain one."""
    if birth == Birth():
        return ""
    life = birth.life
    facts = {
        "profile": birth.profile,
        "repository": None if birth.repository is None else str(birth.repository),
        "parent": birth.parent,
        "snapshot": birth.snapshot,
        "life": {
            "ttl_s": life.ttl_s,
            "on_expiry": life.on_expiry,
            "on_done": life.on_done,
            "on_failed": life.on_failed,
        },
        "expires": birth.expires,
        "is_pinned": birth.is_pinned,
        "acted": birth.acted,
        "unkept": birth.unkept,
        "rewound": birth.rewound
        and {
            "at": birth.rewound.at,
            "to": birth.rewound.to,
            "told": birth.rewound.told,
            "snapshot": birth.rewound.snapshot,
        },
        "memory_mib": birth.memory_mib,
        "checkpoint": birth.checkpoint,
    }
    return json.dumps(facts)


def read_birth(raw: object) -> Birth:
    """Raises ValueError when it holds what no birth holds."""
    if raw in (None, ""):
        return Birth()
    facts = json.loads(str(raw))
    if not isinstance(facts, dict):
        raise ValueError("an agent's birth is no object")
    repository, parent, snapshot = (facts.get(key) for key in ("repository", "parent", "snapshot"))
    return Birth(
        profile=sanitize(str(facts.get("profile") or "")),
        repository=None if repository is None else Path(str(repository)),
        parent=None if parent is None else AgentId(sanitize(str(parent))),
        snapshot=None if snapshot is None else SnapshotId(sanitize(str(snapshot))),
        life=_read_life(facts.get("life")),
        expires=_time(facts.get("expires")),
        is_pinned=facts.get("is_pinned") is True,
        acted=None if facts.get("acted") is None else Occasion(facts["acted"]),
        unkept=sanitize(str(facts.get("unkept") or "")),
        rewound=_read_rewound(facts.get("rewound")),
        memory_mib=_mib(facts.get("memory_mib")),
        checkpoint=_interval(facts.get("checkpoint")),
    )


def _read_life(raw: Any) -> Life:
    if raw is None:
        return Life()
    if not isinstance(raw, dict):
        raise ValueError("an agent's life is no object")
    plain = Life()
    return Life(
        ttl_s=_time(raw.get("ttl_s")),
        on_expiry=Ending(raw.get("on_expiry", plain.on_expiry)),
        on_done=Ending(raw.get("on_done", plain.on_done)),
        on_failed=Ending(raw.get("on_failed", plain.on_failed)),
    )


def _read_rewound(raw: Any) -> Rewound | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise ValueError("a way back is no object")
    told = sanitize(str(raw.get("told") or ""))
    snapshot = raw.get("snapshot")
    return Rewound(
        _time(raw.get("at")) or 0.0,
        _time(raw.get("to")) or 0.0,
        told,
        None if snapshot is None else SnapshotId(sanitize(str(snapshot))),
    )


def _time(raw: object) -> float | None:
    if raw is None:
        return None
    if not isinstance(raw, int | float) or isinstance(raw, bool) or not math.isfinite(raw):
        raise ValueError(f"{raw!r} is no time")
    return float(raw)


def _interval(raw: object) -> str:
    if raw in (None, ""):
        return ""
    if not isinstance(raw, str) or not INTERVAL.fullmatch(raw):
        raise ValueError(f"{raw!r} is no interval")
    return raw


def _mib(raw: object) -> int | None:
    """It is only reckoned with: none is better than an odd one."""
    return raw if isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw < 1 << 30 else None
