"""``python3 -m appliance_build.audit``: holds a finished tree against its manifest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance_build.audit import RULES, AuditTree, audit
from appliance_build.closure.errors import ClosureError
from appliance_build.closure.manifest import Manifest

__all__ = ["main"]


def main(words: list[str]) -> int:
    """Audit one tree; 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="appliance_build.audit", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    arguments = parser.parse_args(words)
    try:
        tree = AuditTree(arguments.root, Manifest.load(arguments.manifest))
        findings = audit(tree)
    except (ClosureError, OSError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 1
    for finding in findings:
        print(f"audit: {finding}", file=sys.stderr)
    if findings:
        return 1
    print(f"audit: {len(tree.nodes)} paths, {len(RULES)} rules, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
