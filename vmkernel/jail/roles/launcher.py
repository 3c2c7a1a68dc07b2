"""The start program of a VM's unit (vm_launcher.c), until it has become QEMU or swtpm."""

from __future__ import annotations

from vmkernel.jail.calls import RESTARTING, STARTING, CallFilter

__all__ = ["LAUNCHER"]

LAUNCHER = CallFilter(
    STARTING
    | RESTARTING
    | {
        # its C library has no loader: it is static
        *("ioctl", "prlimit64", "uname"),
        # receives the descriptors
        *("close_range", "dup2", "recvmsg"),
        # starts the TPM's emulator
        *("clone", "fork", "vfork"),
        # puts the program's own filter on
        *("prctl", "seccomp"),
        # fails
        *("getpid", "gettid", "lseek", "tgkill", "writev"),
    }
)
