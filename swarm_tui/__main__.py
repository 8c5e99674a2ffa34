"""`python -m swarm_tui`."""

import sys

from swarm_tui.cli import main

sys.exit(main())
