"""Tests of vmkernel.workers; nothing imports them."""
