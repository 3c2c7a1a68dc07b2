"""`python -m vmkernel.workers.exec_confined POLICY PROGRAM ARGUMENT…`: become PROGRAM, confined.

POLICY is the JSON of a `vmkernel.workers.confine.Policy`.
"""

from __future__ import annotations

import json
import os
import sys

from vmkernel.workers.confine import Policy, confine

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Become the program; 126 if that is impossible."""
    given = json.loads(argv[0])
    policy = Policy(**{**given, "read": tuple(given["read"]), "write": tuple(given["write"])})
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    try:
        confine(policy)
        os.execvpe(argv[1], argv[1:], os.environ)  # noqa: S606 - as it is meant
    except OSError as error:
        sys.stderr.write(f"{argv[1]} can't be started confined: {error}\n")
    return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
