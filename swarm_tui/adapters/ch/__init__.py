"""libvirt's Cloud Hypervisor driver, and what fills its gaps."""

from swarm_tui.adapters.ch.hypervisor import ChHypervisor

__all__ = ["ChHypervisor"]
