"""A VM's files that outlive the vmkernel: the records, their schemas and their places; it asks no
QEMU.

definition.py        vm.json: the spec, the revision, what is pinned
saved_memory.py      suspend.*: the memory of a suspended VM, or of a snapshot
snapshot_records.py  snapshot.json, revert.json
clone_journal.py     .clone-*: a clone that is being made
launch_record.py     what a running QEMU was started with; in the run folder, so until the next boot
vm_folder.py         what of these a VM's folder holds when the vmkernel starts
"""
