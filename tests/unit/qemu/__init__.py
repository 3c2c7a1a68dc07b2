"""Tests of QEMU's own language."""
