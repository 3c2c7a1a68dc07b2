"""What a process gives up before it touches data from outside: memory, system calls, files.

Used by processes that this vmkernel starts for one piece of work (`vmkernel.workers`, qemu-img).
Their parent changes the uid. What the kernel doesn't know (Landlock before 5.13, or not compiled
in) is left out: then uid, limits and the system call filter remain. The filter comes compiled
(vmkernel/jail/roles/worker.py says what is in it), because each such process starts with this
module and it imports little.

Layouts: linux/seccomp.h, linux/filter.h, linux/landlock.h.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import resource
import signal
import stat
import struct
from typing import NamedTuple

__all__ = ["Policy", "confine"]

_OOM_SCORE = b"500"
"""Guests have 300; higher values are killed first."""
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION_BYTES = 8

_SYS_LANDLOCK = (444, 445, 446)
_READ = 0b1100
_EXECUTE = 0b1
_WRITE = 0b10
_TRUNCATE = 1 << 14
_FILE_RIGHTS = _EXECUTE | _WRITE | 0b100 | _TRUNCATE
_SCOPES = 0b11
"""Abstract Unix sockets and signals of processes that are not confined with it; from ABI 6 on."""
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}


class Policy(NamedTuple):
    """What a process may still do."""

    parent: int
    """It ends with this process."""
    memory_bytes: int
    """Of address space."""
    calls: str
    """The filter of its system calls as the kernel takes it, in Base64."""
    file_bytes: int | None = None
    """No file may become larger."""
    read: tuple[str, ...] = ()
    """Paths that it may read and execute, with everything below."""
    write: tuple[str, ...] = ()
    """Files that it may write."""
    network: bool = False
    """True if it may connect; the filter limits the families of addresses."""


def confine(policy: Policy) -> None:
    """Give up everything else; OSError if the kernel refuses what every kernel supports."""
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
    """If memory is short, this process is killed before any guest; it inherits the
    vmkernel's -900.
    """
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
    length = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = struct.pack("=QQQ", handled, ports, _SCOPES)[:length]
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
    code = base64.b64decode(policy.calls, validate=True)
    program = _Program(len(code) // _INSTRUCTION_BYTES, code)
    _checked(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))
