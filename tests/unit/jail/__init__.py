"""Tests of what a VM's process may do."""
