"""What all supervisors share of agents: their records, and who has a verb at work on whom.

Beside it, per machine and in files, one folder an agent for what it said (see `spool`).
"""

from swarm_tui.catalogue.catalogue import Catalogue, Claim, Update
from swarm_tui.catalogue.claims import Claimant, Pace

__all__ = ["Catalogue", "Claim", "Claimant", "Pace", "Update"]
