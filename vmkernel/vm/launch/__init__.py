"""How a VM's processes are started, watched and ended; it doesn't know what they do.

launcher.py       what a launcher is, and the run folder of a VM
systemd_unit.py   in the appliance: a unit of systemd, in a jail
child_process.py  in hosted mode: children of the vmkernel
ending.py         the end of a QEMU: asked to quit, then killed
logs.py           their last messages
"""
