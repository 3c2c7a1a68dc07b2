"""Tests of vmkernel.state; nothing imports them."""
