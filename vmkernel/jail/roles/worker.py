"""Workers on data from outside, once they are confined: Python, and qemu-img."""

from __future__ import annotations

from vmkernel.jail.calls import (
    NEVER_BOTH,
    READING_LIMITS,
    RESTARTING,
    STARTING,
    THREADS,
    Argument,
    CallFilter,
    one_of,
)

__all__ = ["FETCH_WORKER", "TOOL", "WORKER"]

_MFD_EXEC = 0x10
_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16
_NETLINK_ROUTE = 0
_IOCTL_GROUP = 0xFF00
_TCGETS = 0x5401
_FIONBIO = 0x5421
"""How Python gives a socket a time-out."""
_PR_SET_SECCOMP, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 22, 15, 38

TOOL = CallFilter(
    (STARTING - NEVER_BOTH.keys())
    | RESTARTING
    | {
        *("madvise", "mremap"),
        *("clock_getres", "clock_gettime", "clock_nanosleep", "futex", "getcpu", "gettimeofday"),
        *("nanosleep", "sched_getaffinity", "sched_yield", "sigaltstack", "signalfd4", "time"),
        *("tgkill", "rt_sigpending", "rt_sigtimedwait"),
        *("getegid", "geteuid", "getgid", "getgroups", "getpgrp", "getpid", "getppid"),
        *("getrusage", "getresgid", "getresuid", "gettid", "getuid"),
        *("chdir", "fchdir", "getcwd", "sysinfo", "umask", "uname"),
        *("epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "pipe", "pipe2"),
        *("poll", "ppoll", "pselect6", "select"),
        *("close_range", "dup", "dup2", "dup3", "fcntl", "flock"),
        # files: read, written and left sparse
        *("copy_file_range", "fadvise64", "fallocate", "fdatasync", "fstatfs", "fsync"),
        *("ftruncate", "getdents64", "lseek", "lstat", "msync", "open", "preadv", "preadv2"),
        *("pwrite64", "pwritev", "pwritev2", "readlinkat", "readv", "stat", "statfs", "statx"),
        *("sync_file_range", "unlink", "writev"),
        *("io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit"),
        "seccomp",
    },
    {
        **NEVER_BOTH,
        "clone": THREADS,
        "ioctl": (
            *one_of(1, _TCGETS),  # is it a terminal?
            *one_of(1, 0x1200, mask=_IOCTL_GROUP),
            *one_of(1, 0x5800, mask=_IOCTL_GROUP),
            *one_of(1, 0x6600, mask=_IOCTL_GROUP),
        ),
        "memfd_create": one_of(1, 0, mask=_MFD_EXEC),
        "prctl": one_of(0, _PR_SET_SECCOMP, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS),
        "prlimit64": READING_LIMITS,
    },
)
"""A program that `workers/exec_confined.py` turns into; without any network."""

WORKER = CallFilter(TOOL.allowed - {"execve"}, TOOL.limited)
"""Does its work in the Python that it began in."""

FETCH_WORKER = CallFilter(
    WORKER.allowed
    | {
        *("bind", "connect", "getpeername", "getsockname", "getsockopt", "recvfrom", "recvmmsg"),
        *("recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown"),
    },
    {
        **WORKER.limited,
        "ioctl": (*WORKER.limited["ioctl"], *one_of(1, _FIONBIO)),
        "socket": (
            *one_of(0, _AF_INET, _AF_INET6),
            (Argument(0, _AF_NETLINK), Argument(2, _NETLINK_ROUTE)),
        ),
    },
)
"""Fetches from a server: sockets of the Internet's families, and the kernel's routes, which say
whether an address is this host's own (`host/route_lookup.py`); they can only be read without
privileges. The C library tries a name service by AF_UNIX, and works without it."""
