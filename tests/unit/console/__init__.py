"""Tests of vmkernel.console; nothing imports them."""
