"""Snapshots of VMs: taken, gone back to, deleted; it changes a VM only inside its owner task.

records.py     what lies in a VM's folder
disks.py       a disk's content at one instant: inside a qcow2, or as a reflink of a raw file
taking.py      a snapshot is made
reverting.py   the VM goes back to one
deleting.py    one goes, its children become its parent's
repair.py      what a vmkernel that ended had begun
service.py     what requests are given
"""
