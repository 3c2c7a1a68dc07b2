"""Tests of the VMs' networks; they touch no interface of the host and need no root."""
