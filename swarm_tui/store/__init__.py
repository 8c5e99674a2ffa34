"""What is known: facts go in, derived agents come out, and what changed is marked.

Pure and synchronous; only the supervisor writes to it. Screens read whole frozen records and ask
for the ids that changed since they last looked.
"""

from swarm_tui.store.fleet import LOG_EVENTS, Outage, Store, count_states, sort_key
from swarm_tui.store.known import HISTORY_SAMPLES, RESTORING, History, Log

__all__ = [
    "HISTORY_SAMPLES",
    "LOG_EVENTS",
    "RESTORING",
    "History",
    "Log",
    "Outage",
    "Store",
    "count_states",
    "sort_key",
]
