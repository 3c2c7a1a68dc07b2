"""Owns the emulated PC of ``scons run``: it powers the built stick on, and never builds one.

``stick_copy``  the stick that is used: a copy, whose state lasts from run to run
``kvm_probe``   whether this host's KVM works
``boot_story``  reads the serial line: how far the start is, what the status screen says
``monitor``     QEMU's monitor, as much of it as is needed
``session``     one power-on from start to clean end
"""
