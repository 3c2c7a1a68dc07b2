"""Snapshots of a VM: taken, reverted to, deleted; all of it inside the VM's owner task. The
interface for requests is vm/snapshot_service.py.

disks.py    a disk's content at one instant: inside a qcow2, or as a reflink of a raw file
create.py   a snapshot is taken
revert.py   the VM goes back to one
delete.py   one is deleted, and its children become its parent's
recover.py what was in progress when the vmkernel ended
"""
