"""Tests of vmkernel.control; nothing imports them."""
