"""Tests of vmkernel/devices; they start no QEMU."""
