"""Tests of vmkernel.events; nothing imports them."""
