"""Tests of vmkernel.storage; nothing imports them."""
