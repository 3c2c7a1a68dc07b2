"""Compiles lists of system calls into the kernel's filters, by libseccomp (seccomp_rule_add(3)).

libseccomp knows the numbers of the calls and the pitfalls of the machine's other calling
conventions; systemd, apt and QEMU depend on it anyway.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache

from vmkernel.host.errors import HostError
from vmkernel.jail.calls import ABSENT, Argument, CallFilter
from vmkernel.model import ErrorCode

__all__ = ["compile_filter"]

_LIBRARY = "libseccomp.so.2"
_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000
_KILL_PROCESS = 0x8000_0000
_ON_OTHER_CONVENTION, _OPTIMIZE = 2, 8
_BINARY_TREE = 2
_MASKED_EQUAL = 7
_INSTRUCTION_BYTES = 8
_INSTRUCTIONS_MAX = 4096
"""The kernel's BPF_MAXINSNS."""


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise HostError(
            f"This host has no {_LIBRARY}, without which no process can be confined: install"
            " libseccomp (Debian: libseccomp2).",
            ErrorCode.UNAVAILABLE,
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_exact_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


def compile_filter(calls: CallFilter) -> bytes:
    """The filter as the kernel takes it: an array of struct sock_filter.

    Raises HostError if libseccomp is missing or does not know a name.
    """
    library = _library()
    context = library.seccomp_init(_ERRNO | errno.EPERM)
    if not context:
        raise MemoryError
    try:
        _check(library.seccomp_attr_set(context, _ON_OTHER_CONVENTION, _KILL_PROCESS), "attribute")
        # Libraries before 2.5 know no tree; the filter is the same, the search longer.
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
        for name in sorted(ABSENT - calls.names()):
            _add(library, context, _ERRNO | errno.ENOSYS, name, ())
        for name in sorted(calls.allowed):
            _add(library, context, _ALLOW, name, ())
        for name, choices in sorted(calls.limited.items()):
            for arguments in choices:
                _add(library, context, _ALLOW, name, arguments)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add(
    library: ctypes.CDLL, context: int, action: int, name: str, arguments: tuple[Argument, ...]
) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        if action != _ALLOW:
            return  # a library that does not know it refuses it as it refuses everything else
        raise HostError(f"{_LIBRARY} does not know the system call {name}: it is too old.")
    comparisons = (_Comparison * max(1, len(arguments)))(
        *(_Comparison(a.index, _MASKED_EQUAL, a.mask, a.value) for a in arguments)
    )
    _check(
        library.seccomp_rule_add_exact_array(context, action, number, len(arguments), comparisons),
        name,
    )


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, fd), "export")
        code = os.pread(fd, (_INSTRUCTIONS_MAX + 1) * _INSTRUCTION_BYTES, 0)
    finally:
        os.close(fd)
    if not 0 < len(code) <= _INSTRUCTIONS_MAX * _INSTRUCTION_BYTES or len(code) % 8:
        raise HostError("The system call filter is longer than the kernel takes.")
    return code


def _check(outcome: int, what: str) -> None:
    if outcome < 0:
        raise HostError(f"{_LIBRARY} refuses {what}: {os.strerror(-outcome)}")
