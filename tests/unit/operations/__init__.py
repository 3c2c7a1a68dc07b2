"""Tests of vmkernel.operations; nothing imports them."""
