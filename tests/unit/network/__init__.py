"""Tests of the VMs' networks."""
