"""Our eyes and hands on a host where libvirt has none; this package's code runs there.

process     what the host's kernel knows of VMMs, and how to end one
vmm         a Cloud Hypervisor's own API
saved       what Cloud Hypervisor was saved to by libvirt
ledger      small texts of agents, kept on the host
local       all of it in threads of this process, for the machine that we are on
"""
