"""What guests told us, kept on disk below a quota, so that logs survive a restart and the next
reader goes on at the byte where the last one stopped.

Each agent's log is a row of segments: the open one, `events.jsonl`, and closed ones, compressed,
`log-NUMBER.LINES.gz`. A segment is a row of frames: a header line that begins with RS (0x1e), as

    \\x1e{"offset": 5120, "heard": 1795438800.25, "bytes": 140, "lines": 2, "dropped": 0}

and that many bytes of the guest's lines as it wrote them, less any RS: they are sanitized when they
are read. `offset` is the byte of the guest's file after them. Frames of the time before that are
read too: one JSON line a batch, its events in it, and `events.1.jsonl` as the oldest segment.
"""

from swarm_tui.spool.frame import Frame
from swarm_tui.spool.quota import Quota, Removed, removed
from swarm_tui.spool.reading import Account, account, frames, read
from swarm_tui.spool.recall import Recall, known_bytes, recall
from swarm_tui.spool.root import Spool
from swarm_tui.spool.segment import segments
from swarm_tui.spool.writer import Writer

__all__ = [
    "Account",
    "Frame",
    "Quota",
    "Recall",
    "Removed",
    "Spool",
    "Writer",
    "account",
    "frames",
    "known_bytes",
    "read",
    "recall",
    "removed",
    "segments",
]
