"""Tests of the VM side without a QEMU."""
