"""Changes of a running VM's spec that its QEMU can follow: devices that come and go, CDs that are
changed, processors and memory that are added, limits that are set; it touches no VM that is off.

What can't be followed is refused with a pointer to each field.

plan.py   the differ: pure
steps.py  one function a step, over QMP
apply.py  all steps of a change, with what is taken back if one fails
"""
