"""The emulator of a TPM: one socket, one file of state, and arithmetic."""

from __future__ import annotations

from vmkernel.jail.calls import (
    NEVER_BOTH,
    READING_LIMITS,
    RESTARTING,
    STARTING,
    THREADS,
    CallFilter,
    one_of,
)

__all__ = ["SWTPM"]

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38

SWTPM = CallFilter(
    (STARTING - NEVER_BOTH.keys())
    | RESTARTING
    | {
        *("madvise", "mremap"),
        *("clock_getres", "clock_gettime", "clock_nanosleep", "futex", "gettimeofday", "time"),
        *("getegid", "geteuid", "getgid", "getpid", "gettid", "getuid", "tgkill", "umask", "uname"),
        *("fcntl", "pipe2", "poll", "ppoll"),
        # the link with QEMU, which hands it another
        *("recvfrom", "recvmsg", "sendmsg", "sendto", "shutdown"),
        # its state: a file in a folder, replaced whole, or one file that is mapped
        *("fallocate", "fchmod", "fdatasync", "flock", "fsync", "ftruncate", "getdents64"),
        *("lseek", "lstat", "msync", "pwrite64", "rename", "stat", "statx", "unlink", "writev"),
        # its own filter, on top of this one
        "seccomp",
    },
    {
        **NEVER_BOTH,
        "clone": THREADS,
        "prctl": one_of(0, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS),
        "prlimit64": READING_LIMITS,
    },
)
