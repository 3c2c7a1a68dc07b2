"""Tests of vmkernel.status_screen; nothing imports them."""
