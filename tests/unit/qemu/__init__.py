"""Tests of QEMU's own language, as data; they start no QEMU."""
