"""`python -I -S filtered.py FILTER PROGRAM ARGUMENT…`: become PROGRAM, its system calls filtered.

Hosted mode has no jail. Its tests put the jail's own lists on QEMU and swtpm all the same, so that
whatever a test makes them do shows whether the lists are long enough. What user networking needs
besides, which the appliance does not have, is added (`tests.framework.hosted`).
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["main"]

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def main() -> None:
    """As the launcher of the jail does it (vm_launcher.c)."""
    with open(sys.argv[1], "rb") as file:  # noqa: PTH123 - a light start counts
        code = file.read()
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    for words in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*words) < 0:
            raise OSError(ctypes.get_errno(), "the filter can't be put on")
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
