"""The rule for systemd units: the programs they start and the units they name.

A unit is followed through ``Exec…=``, through the unit-naming settings, and through
``python3 -m NAME``. The donor's own ``.wants/`` and ``.requires/`` links are never taken: a
unit is enabled by ``wanted_by``/``required_by`` of its root (or by a link in the overlay),
and the audit knows the same list.
"""

from __future__ import annotations

import posixpath
import shlex

from appliance_build.closure.errors import ImportMissingError, NotInDonorError
from appliance_build.closure.plan import Entry, Reason
from appliance_build.closure.rule_python import RulePython
from appliance_build.closure.search import Search

__all__ = ["RuleUnit", "UNIT_DIRECTORIES", "parse_unit", "unit_path"]

UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system")
_SUFFIXES = (
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".slice",
    ".scope",
)
_HARD = ("Requires", "Requisite", "BindsTo", "Sockets", "Service", "Unit", "OnFailure")
_SOFT = ("Wants", "Upholds", "OnSuccess", "Also", "PropagatesStopTo", "JoinsNamespaceOf")
_PROGRAM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")
_RUNTIME_UNITS = ("-.mount", "-.slice", "init.scope", "system.slice", "dev-", "sys-")


def parse_unit(text: str) -> list[tuple[str, str]]:
    """The (setting, value) pairs of a unit file, continued lines joined."""
    pairs: list[tuple[str, str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        stripped = line.strip()
        if stripped.startswith(("#", ";", "[")) or "=" not in stripped:
            continue
        key, _, value = stripped.partition("=")
        pairs.append((key.strip(), value.strip()))
    return pairs


def unit_path(search: Search, name: str) -> str | None:
    """The path of the unit file for `name`; an instance leads to its template."""
    names = [name]
    if "@" in name:
        stem, suffix = posixpath.splitext(name)
        names.append(f"{stem.split('@', 1)[0]}@{suffix}")
    for candidate in names:
        for directory in UNIT_DIRECTORIES:
            if search.trees.lookup(f"{directory}/{candidate}") is not None:
                return f"{directory}/{candidate}"
    return None


class RuleUnit:
    """Takes the programs and units that a systemd unit needs."""

    def __init__(self, python: RulePython | None = None) -> None:
        self._python = python

    def visit(self, search: Search, entry: Entry) -> None:
        """Follow one unit file or drop-in."""
        if entry.source is None or not self._is_unit(entry.path):
            return
        for key, value in parse_unit(entry.source.read_text(encoding="utf-8")):
            if key.startswith("Exec") and value:
                self._program(search, entry, value)
            elif key in _HARD or key in _SOFT:
                for name in value.split():
                    self.take(search, name, Reason("unit", entry.path, key), hard=key in _HARD)

    def take(self, search: Search, name: str, reason: Reason, *, hard: bool) -> None:
        """Take the unit `name`, unless it is waived or made by systemd itself."""
        if "%" in name or name.startswith(_RUNTIME_UNITS):
            return
        for waiver in search.roots.waive_unit:
            if waiver.name == name:
                search.note(f"unit: {reason.of} goes without {name}: {waiver.reason}")
                return
        path = unit_path(search, name)
        if path is None:
            if name.endswith((".slice", ".mount", ".device", ".swap", ".scope")) or not hard:
                search.note(f"unit: {reason.of} names {name}, which is not in the donor")
                return
            raise NotInDonorError(
                f"{name}: unit needed by {reason.of} ({reason.note}) is not there"
            )
        if search.excluded(path) is not None and not hard:
            search.note(f"unit: {reason.of} goes without {name}: excluded")
            return
        search.need(path, reason)

    def _is_unit(self, path: str) -> bool:
        for directory in UNIT_DIRECTORIES:
            if path.startswith(directory + "/"):
                return path.endswith(_SUFFIXES) or path.endswith(".conf")
        return False

    def _program(self, search: Search, entry: Entry, value: str) -> None:
        try:
            words = shlex.split(value.lstrip("@-:+!|"))
        except ValueError:
            words = value.lstrip("@-:+!|").split()
        if not words or "%" in words[0] or "$" in words[0]:
            return
        program = words[0]
        for waiver in search.roots.waive_program:
            if waiver.path == program and waiver.importer == entry.path:
                search.note(f"unit: {entry.path} goes without {program}: {waiver.reason}")
                return
        reason = Reason("unit-exec", entry.path, value[:100])
        if posixpath.basename(program).startswith("python3") and "-m" in words[1:-1]:
            self._module(search, words[words.index("-m") + 1], reason)
        if program.startswith("/"):
            search.need(program, reason)
            return
        for directory in _PROGRAM_DIRECTORIES:
            if search.trees.exists(f"{directory}/{program}"):
                search.need(f"{directory}/{program}", reason)
                return
        raise NotInDonorError(f"{program}: program started by {entry.path} is in no input tree")

    def _module(self, search: Search, module: str, reason: Reason) -> None:
        if self._python is None:
            return
        if not self._python.take(search, module, reason):
            raise ImportMissingError(f"{module}: python module started by {reason.of} is not there")
        self._python.take(search, f"{module}.__main__", reason)
        self._python.take(search, "runpy", Reason("python-m", reason.of, "python3 -m"))
