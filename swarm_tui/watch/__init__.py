"""The event road: watchers of hosts, of guests and of our own records; they only apply facts."""

from swarm_tui.watch.guest import GuestWatch
from swarm_tui.watch.host import HostWatch
from swarm_tui.watch.record import RecordWatch
from swarm_tui.watch.settle import relisted, settled
from swarm_tui.watch.task import OnFailure

__all__ = ["GuestWatch", "HostWatch", "OnFailure", "RecordWatch", "relisted", "settled"]
