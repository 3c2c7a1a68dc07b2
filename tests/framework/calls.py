"""Which system calls QEMU and swtpm make, against the lists of the jail.

    MICA_TRACE_CALLS=FOLDER python -m pytest tests/hosted/...    records (needs strace)
    python -m tests.framework.calls FOLDER                       prints what the lists lack

With `--all`, everything that was seen is printed, with the arguments that filters look at. What a
list allows and no trace shows is printed too: it may be needed by hardware or KVM alone.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path

from vmkernel.jail.calls import CallFilter
from vmkernel.jail.roles import QEMU, SWTPM

__all__ = ["main", "seen_calls"]

ROLES: dict[str, CallFilter] = {"qemu-system-x86_64": QEMU, "swtpm": SWTPM}
_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\((.*)| resumed)")
_TELLING = {
    *("clone", "fcntl", "ioctl", "madvise", "memfd_create", "mprotect", "prctl", "prlimit64"),
    *("sched_setattr", "seccomp", "setsockopt", "socket", "socketpair"),
}
"""Calls that can do very different things, depending on their arguments."""


def seen_calls(folder: Path, program: str) -> dict[str, set[str]]:
    """Every call by its name, with the constants among the arguments of the telling ones."""
    found: dict[str, set[str]] = defaultdict(set)
    for trace in folder.glob(f"{program}.*"):
        with trace.open(errors="replace") as lines:
            for line in lines:
                match = _CALL.match(line)
                if match is None:
                    continue
                name, arguments = match.groups()
                constants = found[name]
                if name in _TELLING and arguments:
                    constants.add(" ".join(re.findall(r"\b[A-Z][A-Z0-9_|]{3,}\b", arguments)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    given = parser.parse_args()
    for program, role in ROLES.items():
        seen = seen_calls(given.folder, program)
        if given.all:
            for name, constants in sorted(seen.items()):
                print(program, name, *(f"\n    {words}" for words in sorted(constants) if words))
        print(program, "lacks:", *sorted(seen.keys() - role.names()))
        print(program, "not seen:", *sorted(role.names() - seen.keys()))


if __name__ == "__main__":
    main()
