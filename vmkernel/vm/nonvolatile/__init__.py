"""A VM's non-volatile state beside its disks: the firmware's variables and the TPM's state; it
starts nothing.

variables.py        the firmware's variables, copied between folders
first_variables.py  those that a VM with Secure Boot begins with
secure_boot.py      the keys in them: read and replaced
tpm_state.py        the state of the TPM
machine_state.py    all of it, for a backup and for the VM that is restored from one
"""
