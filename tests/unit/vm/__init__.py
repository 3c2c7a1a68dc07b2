"""Tests of the VM side on QEMUs that are objects; no process is started."""
