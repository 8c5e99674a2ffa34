"""swarm-tui: supervise a swarm of AI coding agents, each in a microVM of its own."""

__version__ = "0.1.0"
