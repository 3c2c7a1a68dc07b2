"""Tests of vmkernel.platform; nothing imports them."""
