"""One VM from within: its owner task, which alone changes its state, and what that does.

driver.py            the queue of requests, and the owner task
messages.py          what the queue carries
machine.py           the state, and the session with QEMU
reconnect.py         a session that broke; recovery.py what is true after a restart
running_vm.py        a VM whose QEMU answers, for work inside the owner task
actions.py           start, power off, shut down, reset, pause, resume
interruptible.py     long work that a power-off ends
suspend.py           the memory to disk, and from there
qemu_events.py       what QEMU reports, and the time that passes
media.py             discs in drives of a running VM
settling.py          what a change whose answer was lost came to
removals.py          devices that leave a running VM; leaving.py notes which do
restart_policy.py    when a VM that ended is started again
disk_full.py         when a guest that found no space goes on
event_rate_limit.py  how often a guest can bring the same event about
exit_reason.py       why a QEMU ended
operation_locks.py   which long work excludes which requests
"""
