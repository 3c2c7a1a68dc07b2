"""The start of a VM, step by step, each undone if a later one fails; it is called only inside the
VM's owner task.

start.py  the phases, up to a QEMU that answers
files.py  the files that it needs: images, volumes, variables
plan.py   the virtual hardware that the spec asks for
"""
