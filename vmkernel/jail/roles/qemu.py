"""QEMU in its jail: every device model that Mica offers, with KVM and without.

Left out, and refused: sockets and connections (it inherits those that it needs), io_uring,
processes and namespaces, other processes' memory, keys, mounts, System V and POSIX message queues
and shared memory, file handles, userfaultfd, bpf, perf, changes of owner, of time and of the
machine.

A physical device handed to a guest would need its ioctl group here: USB 0x55, VFIO 0x3B.
"""

from __future__ import annotations

from vmkernel.jail.calls import READING_LIMITS, RESTARTING, STARTING, THREADS, CallFilter, one_of

__all__ = ["QEMU"]

_MFD_EXEC = 0x10
_AF_UNIX = 1
_PR_SET_SECCOMP, _PR_CAPBSET_READ, _PR_MCE_KILL = 22, 23, 33
_PR_SET_NAME, _PR_SET_TIMERSLACK, _PR_SET_NO_NEW_PRIVS = 15, 29, 38
_IOCTL_GROUP = 0xFF00
_TUN_GROUP, _TUN_BITS = 0x54C0, 0xFFC0
"""The tap's ioctls are the upper numbers of the terminals' group."""

QEMU = CallFilter(
    STARTING
    | RESTARTING
    | {
        # memory of its own and the guest's
        *("madvise", "mremap", "msync"),
        # threads, clocks
        *("clock_getres", "clock_gettime", "clock_nanosleep", "futex", "getcpu", "gettimeofday"),
        *("nanosleep", "sched_getaffinity", "sched_yield", "sigaltstack", "time"),
        # signals to its own threads (a filter can't name them, its PID namespace can)
        *("rt_sigpending", "rt_sigtimedwait", "tgkill", "signalfd4"),
        # who and where it is
        *("getegid", "geteuid", "getgid", "getpid", "getppid", "getrusage", "gettid", "getuid"),
        *("getcwd", "sysinfo", "umask", "uname"),
        # event loops
        *("epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "pipe2"),
        *("poll", "ppoll"),
        # descriptors: -add-fd, locks of images
        *("dup", "dup2", "dup3", "fcntl", "flock"),
        # sockets that it is born with: QMP, consoles, VNC, NBD, agent, TPM
        *("accept4", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmsg"),
        *("sendmsg", "sendto", "setsockopt", "shutdown"),
        # disks, by threads
        *("copy_file_range", "fadvise64", "fallocate", "fdatasync", "fsync", "ftruncate", "lseek"),
        *("preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "readv", "sync_file_range"),
        "writev",
        # disks, by Linux AIO
        *("io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit"),
        # files: firmware, modules, images by path
        *("fchdir", "fstatfs", "getdents64", "lstat", "stat", "statfs", "statx", "unlink"),
        # its own filter, on top of this one (-sandbox on)
        "seccomp",
    },
    {
        "clone": THREADS,
        "ioctl": (
            *one_of(1, 0xAE00, mask=_IOCTL_GROUP),  # KVM
            *one_of(1, 0xAF00, mask=_IOCTL_GROUP),  # vhost
            *one_of(1, _TUN_GROUP, mask=_TUN_BITS),
            *one_of(1, 0x1200, mask=_IOCTL_GROUP),  # block devices: size, discard
            *one_of(1, 0x5800, mask=_IOCTL_GROUP),  # XFS: alignment of direct I/O
            *one_of(1, 0x6600, mask=_IOCTL_GROUP),  # file systems: attributes, extents
        ),
        "memfd_create": one_of(1, 0, mask=_MFD_EXEC),
        "prctl": one_of(
            0,
            *(_PR_SET_SECCOMP, _PR_CAPBSET_READ, _PR_MCE_KILL),
            *(_PR_SET_NAME, _PR_SET_TIMERSLACK, _PR_SET_NO_NEW_PRIVS),
        ),
        "prlimit64": READING_LIMITS,
        "socketpair": one_of(0, _AF_UNIX),
    },
)
