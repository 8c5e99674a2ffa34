"""A bench for libvirt's Cloud Hypervisor driver, and a stand-in for the hypervisor itself.

Cloud Hypervisor needs KVM, and KVM is not everywhere where tests run. `program` is started by a
real virtchd in its place: **it is not Cloud Hypervisor.** It speaks the same REST API and writes
the same events, and QEMU runs the guest in software emulation. What it does otherwise than the
real one is written at the head of `program`.
"""
