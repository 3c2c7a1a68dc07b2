"""The state of one VM: its record, the session with its QEMU, and how these change. Only the owner
task (vm/driver/) changes them; it knows no request and no other VM.

machine.py           the state, and the session with QEMU
messages.py          what the owner task's queue carries
running_vm.py        a VM whose QEMU answers, for work inside the owner task
interruptible.py     long work that a power-off ends
known_keys.py        what is known of its Secure Boot keys
snapshot_index.py    the snapshots in its folder
leaving.py           which devices leave a running VM
restart_policy.py    when a VM that ended is started again
disk_full.py when a guest that found no space continues
event_rate_limit.py  how often a guest can bring the same event about
exit_reason.py       why a QEMU ended
operation_locks.py   which long work excludes which requests
"""
