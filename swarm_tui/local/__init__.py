"""A real swarm on this machine: the guest image, the daemon, the warm template and its forks."""
