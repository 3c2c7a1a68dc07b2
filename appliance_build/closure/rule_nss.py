"""The rule for ``/etc/nsswitch.conf``: the libraries of the name services it asks.

``files`` and ``dns`` are part of the C library itself.
"""

from __future__ import annotations

from appliance_build.closure.plan import Entry, Reason
from appliance_build.closure.search import Search

__all__ = ["RuleNss", "services"]

_CONFIGURATION = "/etc/nsswitch.conf"
_BUILT_IN = frozenset({"dns", "files"})
_DIRECTORY = "/usr/lib/x86_64-linux-gnu"


def services(text: str) -> set[str]:
    """The services that a configuration names, actions in brackets left out."""
    found: set[str] = set()
    for line in text.splitlines():
        _, colon, rest = line.partition("#")[0].partition(":")
        if not colon:
            continue
        words = rest.replace("[", " [ ").replace("]", " ] ").split()
        inside = False
        for word in words:
            if word in "[]":
                inside = word == "["
            elif not inside:
                found.add(word)
    return found


class RuleNss:
    """Takes the name service libraries."""

    def visit(self, search: Search, entry: Entry) -> None:
        if entry.path != _CONFIGURATION or entry.source is None:
            return
        for service in sorted(services(entry.source.read_text(encoding="utf-8")) - _BUILT_IN):
            library = f"{_DIRECTORY}/libnss_{service}.so.2"
            search.need(library, Reason("name-service", entry.path, service))
