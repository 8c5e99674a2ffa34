"""What the verbs really do to one agent, step by step, and how a cut is mended."""

from swarm_tui.lifecycle.ground import UNKNOWN
from swarm_tui.lifecycle.verbs import Lifecycle

__all__ = ["UNKNOWN", "Lifecycle"]
