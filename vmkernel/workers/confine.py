"""What a process gives up before it touches data from outside: memory, system calls, files.

Used by processes that this vmkernel starts for one piece of work (`vmkernel.workers`, qemu-img).
The uid is changed by who starts them. What the kernel doesn't know (Landlock before 5.13, or not
compiled in) is left out: then uid, limits and the system call filter remain.

Layouts: linux/seccomp.h, linux/bpf_common.h, linux/landlock.h; system call numbers of x86-64.
It imports little, because each such process starts with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import stat
import struct
from typing import NamedTuple

__all__ = ["Policy", "confine", "seccomp_filter"]

_OOM_SCORE = b"500"
"""Guests have 300."""
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_AUDIT_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_EPERM = 0x00050001
_ENOSYS = 0x00050026
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

_CLONE, _CLONE3 = 56, 435
_ADMIN_CALLS = (
    101,  # ptrace
    105, 106, 113, 114, 116, 117, 119,  # setuid, setgid, setre*id, setgroups, setres*id
    133, 259,  # mknod, mknodat
    135,  # personality
    154,  # modify_ldt
    155, 161, 165, 166,  # pivot_root, chroot, mount, umount2
    163, 167, 168, 169, 179,  # acct, swap, reboot, quotactl
    170, 171, 172, 173,  # names, iopl, ioperm
    175, 176, 313,  # modules
    246, 320,  # kexec
    248, 249, 250,  # keys
    272, 308,  # unshare, setns
    298, 321, 323,  # perf_event_open, bpf, userfaultfd
    303, 304,  # file handles
    310, 311, 312,  # process_vm_*, kcmp
    425, 426, 427,  # io_uring
    428, 429, 430, 431, 432, 433, 442,  # the new mount calls
    438,  # pidfd_getfd
)  # fmt: skip
_NETWORK_CALLS = (41, 42, 49, 50)
"""socket, connect, bind, listen."""

_SYS_LANDLOCK = (444, 445, 446)
_READ = 0b1100
_EXECUTE = 0b1
_WRITE = 0b10
_TRUNCATE = 1 << 14
_FILE_RIGHTS = _EXECUTE | _WRITE | 0b100 | _TRUNCATE
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}


class Policy(NamedTuple):
    """What is left to a process."""

    parent: int
    """It ends with this process."""
    memory_bytes: int
    """Of address space."""
    file_bytes: int | None = None
    """No file may become larger."""
    read: tuple[str, ...] = ()
    """What it may read and execute, with all that lies below."""
    write: tuple[str, ...] = ()
    """Files that it may write."""
    network: bool = False


def confine(policy: Policy) -> None:
    """Give up the rest; OSError where the kernel refuses what every kernel has."""
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != policy.parent:
        os._exit(1)
    _be_killed_first()
    _limit(resource.RLIMIT_AS, policy.memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 256)
    if policy.file_bytes is not None:
        # Beyond it a write fails with EFBIG, where the signal is ignored.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _limit(resource.RLIMIT_FSIZE, policy.file_bytes)
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _landlock(libc, policy)
    _seccomp(libc, policy)


def _be_killed_first() -> None:
    """Where memory is short, this ends before any guest; inherited is the vmkernel's -900."""
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, _OOM_SCORE)
        finally:
            os.close(fd)


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _checked(outcome: int) -> int:
    if outcome < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return outcome


# --- files and network: Landlock --------------------------------------------------------------


def _landlock(libc: ctypes.CDLL, policy: Policy) -> None:
    create, add, restrict = _SYS_LANDLOCK
    abi = libc.syscall(create, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return
    handled = _RIGHTS_BY_ABI[max(known for known in _RIGHTS_BY_ABI if known <= abi)]
    ports = 0 if abi < 4 else 0b01 if policy.network else 0b11
    attributes = struct.pack("=QQ", handled, ports)[: 16 if abi >= 4 else 8]
    ruleset = _checked(libc.syscall(create, attributes, ctypes.c_size_t(len(attributes)), 0))
    try:
        rules = [(path, _READ | _EXECUTE) for path in policy.read]
        rules += [(path, _READ | _WRITE | _TRUNCATE) for path in (*policy.write, "/dev/null")]
        for path, rights in rules:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                folder = stat.S_ISDIR(os.fstat(fd).st_mode)
                allowed = rights & handled & (-1 if folder else _FILE_RIGHTS)
                rule = struct.pack("=Qi", allowed, fd)
                _checked(libc.syscall(add, ruleset, 1, rule, 0))
            finally:
                os.close(fd)
        _checked(libc.syscall(restrict, ruleset, 0))
    finally:
        os.close(ruleset)


# --- system calls: seccomp --------------------------------------------------------------------


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _seccomp(libc: ctypes.CDLL, policy: Policy) -> None:
    code = seccomp_filter(network=policy.network)
    program = _Program(len(code) // 8, code)
    _checked(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))


def seccomp_filter(*, network: bool) -> bytes:
    """The filter as the kernel takes it: an array of struct sock_filter."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    refused = sorted({*_ADMIN_CALLS, *(() if network else _NETWORK_CALLS)})
    lines: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),
        (equal, 1, 0, _AUDIT_ARCH_X86_64),
        (answer, 0, 0, _KILL),
        (load, 0, 0, 0),
        (at_least, 0, 1, _X32_BIT),
        (answer, 0, 0, _KILL),
        (equal, 0, 1, _CLONE3),  # its flags can't be looked at; libc takes clone instead
        (answer, 0, 0, _ENOSYS),
    ]
    for number in refused:
        lines += [(equal, 0, 1, number), (answer, 0, 0, _EPERM)]
    lines += [
        (equal, 0, 3, _CLONE),
        (load, 0, 0, 16),
        (any_bit, 0, 1, _NEW_NAMESPACES),
        (answer, 0, 0, _EPERM),
        (answer, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
