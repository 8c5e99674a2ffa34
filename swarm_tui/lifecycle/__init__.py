"""What the verbs really do to one agent, step by step, and how a cut is mended."""

from swarm_tui.lifecycle.bequest import Bequest
from swarm_tui.lifecycle.claim import claimed, fenced
from swarm_tui.lifecycle.ground import UNKNOWN
from swarm_tui.lifecycle.handoff import Handoff
from swarm_tui.lifecycle.steer import Steered, detail, steer
from swarm_tui.lifecycle.taking import Terms, of_review
from swarm_tui.lifecycle.timeline import PASSING, Timeline
from swarm_tui.lifecycle.verbs import Lifecycle

__all__ = [
    "PASSING",
    "UNKNOWN",
    "Bequest",
    "Handoff",
    "Lifecycle",
    "Steered",
    "Terms",
    "Timeline",
    "claimed",
    "detail",
    "fenced",
    "of_review",
    "steer",
]
