"""Tests of vmkernel.auth; nothing imports them."""
