"""VMs made of others: full and linked clones; it changes no VM that exists.

service.py  the copies of the disks, and the VM that gets them
"""
