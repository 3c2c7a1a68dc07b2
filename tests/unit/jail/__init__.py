"""Tests of what a VM's process may do; they start nothing and need no systemd."""
