"""Tests of vmkernel.syslog; nothing imports them."""
