"""Profiles as files: a person's own, and those that are shipped beside this one."""

from swarm_tui.profiles.reading import Entry, Profiles, load

__all__ = ["Entry", "Profiles", "load"]
