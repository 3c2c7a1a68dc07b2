"""Volumes, the disks of virtual machines; none is changed here while a QEMU has it open."""
