"""Owns the tests of what the boot tests rely on; it must not start a machine."""
