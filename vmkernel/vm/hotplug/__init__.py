"""Changes of a running VM's spec that its QEMU can follow: devices that are plugged and unplugged,
CDs that are changed, vCPUs and memory that are added, limits that are set; it touches no VM that is
off.

What can't be followed is refused with a pointer to each field.

plan.py   the differ: pure
steps.py  one function per step, over QMP
apply.py  all steps of a change, with what is taken back if one fails
"""
