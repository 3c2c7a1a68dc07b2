"""The owner task of a VM, which alone changes its state, and what it does; it knows no other VM.

driver.py            the queue of requests, and the owner task
actions.py           start, power off, shut down, reset, pause, resume
suspend.py           the memory to disk, and from there
qemu_events.py       what QEMU reports, and the time that passes
reconnect.py         a session that broke
recovery.py          what is true after a restart of the vmkernel
firmware_keys.py     when Secure Boot keys are looked at, and added
media.py             discs in drives of a running VM
settling.py          what a change whose answer was lost came to
removals.py          devices that leave a running VM
"""
