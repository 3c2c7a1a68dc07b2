"""The system calls that a role may make, by name: the elements of all lists.

A list names what a program needs and was seen to use (`python -m tests.framework.calls` shows what
a list lacks); everything else is refused. `vmkernel.host.seccomp` compiles it for the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "ABSENT",
    "Argument",
    "CallFilter",
    "NEVER_BOTH",
    "READING_LIMITS",
    "RESTARTING",
    "STARTING",
    "THREADS",
    "one_of",
]


@dataclass(frozen=True)
class Argument:
    """What must be true of one argument: `argument & mask == value`."""

    index: int
    """Counted from 0."""
    value: int
    mask: int = 0xFFFF_FFFF
    """Most arguments are C's int: the kernel does not look at the upper half."""


Choices = tuple[tuple[Argument, ...], ...]
"""A call is allowed if all arguments of one of the choices are as they say."""


@dataclass(frozen=True, eq=False)
class CallFilter:
    """The system calls of one role; every other fails with EPERM. Compared by identity, so that the
    compiled filter can be cached.
    """

    allowed: frozenset[str]
    limited: Mapping[str, Choices] = field(default_factory=dict)
    """Allowed with certain arguments alone."""

    def __post_init__(self) -> None:
        if both := self.allowed & self.limited.keys():
            raise ValueError(f"allowed and limited: {', '.join(sorted(both))}")

    def names(self) -> frozenset[str]:
        """All that are allowed in some form."""
        return self.allowed | self.limited.keys()


def one_of(index: int, *values: int, mask: int = 0xFFFF_FFFF) -> Choices:
    """Choices by one argument."""
    return tuple((Argument(index, value, mask),) for value in values)


ABSENT = frozenset(
    {"clone3", "epoll_pwait2", "faccessat2", "fchmodat2", "openat2", "process_madvise"}
)
"""Fails with ENOSYS, so that libraries use the older call, whose arguments a filter can judge.
(clone3 and openat2 take theirs in memory, which a filter does not see.)"""

STARTING = frozenset(
    {
        *("access", "arch_prctl", "brk", "close", "execve", "exit", "exit_group", "fstat"),
        *("getrandom", "mmap", "mprotect", "munmap", "newfstatat", "openat", "pread64"),
        *("read", "readlink", "rseq", "set_robust_list", "set_tid_address", "write"),
    }
)
"""What the dynamic loader and the C library need from the first instruction to main().

execve is in it because a filter is put on before it; it could start only what its jail lets it
execute (its own program and libraries), under the same filter.
"""

_POINTER = (1 << 64) - 1
READING_LIMITS: Choices = ((Argument(0, 0), Argument(2, 0, _POINTER)),)
"""prlimit64 without new limits, for the process itself: the C library sizes stacks by them."""

_PROT_WRITE, _PROT_EXEC = 2, 4
NEVER_BOTH: Mapping[str, Choices] = {
    "mmap": (
        *one_of(2, 0, mask=_PROT_EXEC),
        *one_of(2, _PROT_EXEC, mask=_PROT_EXEC | _PROT_WRITE),
    ),
    "mprotect": one_of(2, 0, mask=_PROT_EXEC),
}
"""Memory is either executable or writable, for programs that generate no code. (QEMU does without
KVM; with KVM, its unit says MemoryDenyWriteExecute=.)"""

RESTARTING = frozenset({"restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn"})
"""For signals from any sender."""

_CLONE_VM, _CLONE_THREAD = 0x100, 0x10000
_NEW_NAMESPACES = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (clone knows no NEWTIME)."""
THREADS: Choices = one_of(
    0, _CLONE_VM | _CLONE_THREAD, mask=_CLONE_VM | _CLONE_THREAD | _NEW_NAMESPACES
)
"""clone for threads of the same process alone, and for no new namespace."""
