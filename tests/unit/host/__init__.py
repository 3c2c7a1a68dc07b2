"""Tests of vmkernel.host; nothing imports them."""
