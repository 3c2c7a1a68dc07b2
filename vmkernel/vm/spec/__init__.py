"""Specs of VMs, as pure functions; it must not touch disks, QEMU or Linux."""
