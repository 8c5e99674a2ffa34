"""Our eyes and hands on a host where libvirt has none; this package's code runs there.

    process     what the host's kernel knows of VMMs, and how to end one
    vmm         a Cloud Hypervisor's own API
    saved       what Cloud Hypervisor was saved to by libvirt
    ledger      small texts of agents, kept on the host
    daemon      where libvirt listens
    survey      what there is for Cloud Hypervisor
    local       all of it in threads of this process, for the machine that we are on
    desk        the calls that are taken from afar, and who answers them
    wire        calls and answers as bytes
    serve       the loop that answers them on a host far away
    luggage     what such a host needs of us

A host far away has nothing of ours installed: what it needs is sent to it as source each time. So
modules that are needed there import the standard library and our core alone.
"""
