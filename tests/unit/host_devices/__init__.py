"""Tests of vmkernel.host_devices; nothing imports them."""
