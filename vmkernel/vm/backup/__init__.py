"""Backups that a client reads while the VM runs or is off; no data is kept here.

service.py         checkpoints, and the sessions that read a VM's disks
offline_reader.py  a QEMU that only reads, for a VM that is off
"""
