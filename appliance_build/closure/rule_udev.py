"""The rule for udev rules files: the programs that they run."""

from __future__ import annotations

import re

from appliance_build.closure.plan import Entry, Reason
from appliance_build.closure.search import Search

__all__ = ["RuleUdev"]

_PROGRAM = re.compile(r'(?:PROGRAM|IMPORT\{program\}|RUN(?:\{program\})?)\s*[-+:=!]*=\s*"([^"]*)"')


class RuleUdev:
    """Takes the programs named by udev rules; a missing one must be waived."""

    def visit(self, search: Search, entry: Entry) -> None:
        if entry.source is None or not entry.path.endswith(".rules"):
            return
        if "/udev/rules.d/" not in entry.path:
            return
        text = entry.source.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            if line.lstrip().startswith("#"):
                continue
            for match in _PROGRAM.finditer(line):
                words = match.group(1).split()
                if words and not words[0].startswith(("$", "%")):
                    self._take(search, entry, words[0])

    def _take(self, search: Search, entry: Entry, program: str) -> None:
        path = program if program.startswith("/") else f"/usr/lib/udev/{program}"
        for waiver in search.roots.waive_program:
            if waiver.path == path and waiver.importer in (entry.path, "*"):
                search.note(f"udev: {entry.path} goes without {path}: {waiver.reason}")
                return
        search.need(path, Reason("udev-program", entry.path, program))
