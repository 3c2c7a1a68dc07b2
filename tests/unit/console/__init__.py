"""Tests of vmkernel.console; others may take its samples."""
