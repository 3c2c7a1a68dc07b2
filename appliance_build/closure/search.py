"""The worklist: takes paths into the plan, follows links, and hands each new file to the rules."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import stat
from collections import deque
from pathlib import Path
from typing import Protocol

from appliance_build.closure.errors import ClosureError, ExcludedNeededError, NotInDonorError
from appliance_build.closure.packages import DebianPackages, Wheels
from appliance_build.closure.plan import Entry, EntryKind, Origin, Reason
from appliance_build.closure.roots import Roots
from appliance_build.closure.trees import PYTHON_SITE, Layer, Trees

__all__ = ["Rule", "Search"]


class Rule(Protocol):
    """One reason files need each other. A rule looks at a new file and asks for more."""

    def visit(self, search: Search, entry: Entry) -> None:
        """Ask `search` for what `entry` needs, if the entry is of this rule's kind."""
        ...


class Search:
    """The state of one computation: the entries so far and the files still to look at."""

    def __init__(
        self, trees: Trees, roots: Roots, debian: list[tuple[Path, DebianPackages]], wheels: Wheels
    ) -> None:
        self.trees = trees
        self.roots = roots
        self.entries: dict[str, Entry] = {}
        self.notes: list[str] = []
        self.rules: list[Rule] = []
        self._debian = debian
        self._wheels = wheels
        self._queue: deque[Entry] = deque()
        self._modes = {rule.path: int(rule.mode, 8) for rule in roots.mode}
        self._excludes = [(rule.glob, rule.reason) for rule in roots.exclude]

    def note(self, text: str) -> None:
        """Keep a remark for the plan: something a rule saw and let pass."""
        if text not in self.notes:
            self.notes.append(text)

    def excluded(self, path: str) -> str | None:
        """The reason why `path` is excluded, or None."""
        for pattern, reason in self._excludes:
            if fnmatch.fnmatchcase(path, pattern):
                return reason
        return None

    def need(self, path: str, reason: Reason) -> str:
        """Take `path` and all links and directories on the way; returns the final path."""
        final = self.want(path, reason)
        if final is None:
            raise NotInDonorError(
                f"{path}: needed by {reason.of} ({reason.rule}), in no input tree"
            )
        return final

    def want(self, path: str, reason: Reason) -> str | None:
        """Like :meth:`need`, but answers None if there is no such file."""
        resolved = self.trees.resolve(path)
        if resolved is None:
            return self._made(path, reason)
        for candidate in (path, resolved.path):
            why = self.excluded(candidate)
            if why is not None:
                raise ExcludedNeededError(
                    f"{path}: needed by {reason.of} ({reason.rule}), but excluded: {why}"
                )
        for link, target, _, layer in resolved.links:
            self._add_link(link, target, layer, reason)
        self._add(resolved.path, resolved.source, resolved.layer, resolved.is_dir, reason)
        return resolved.path

    def need_exactly(self, path: str, reason: Reason) -> None:
        """Take an overlay's own file or link, whether or not the link leads anywhere yet."""
        found = self.trees.lookup(path)
        if found is None:
            raise NotInDonorError(f"{path}: needed by {reason.of}, in no input tree")
        source, layer, info = found
        if stat.S_ISLNK(info.st_mode):
            target = os.readlink(source)
            self._add_link(path, target, layer, reason)
            self.want(path, Reason("link", path, target))
        else:
            self._add(path, source, layer, False, reason)

    def generate(
        self, path: str, generator: str, reason: Reason, *, content: bytes | None = None
    ) -> None:
        """Take a file that materialising will make."""
        entry = Entry(path, EntryKind.GENERATED, Origin.GENERATED, self._modes.get(path, 0o644))
        entry.generator, entry.content = generator, content
        self._insert(entry, reason)

    def add_file(self, path: str, source: Path, reason: Reason) -> None:
        """Take a file from outside the input trees."""
        mode = self._modes.get(path, 0o755 if source.stat().st_mode & 0o100 else 0o644)
        entry = Entry(path, EntryKind.FILE, Origin.OWN, mode, source=source)
        self._insert(entry, reason)

    def link(self, path: str, target: str, reason: Reason) -> None:
        """Take a symbolic link of our own."""
        entry = Entry(path, EntryKind.LINK, Origin.OWN, 0o777, target=target)
        self._insert(entry, reason)
        leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        self.want(leads_to, Reason("link", path, target))

    def directory(self, path: str, mode: int, reason: Reason) -> None:
        """Take a directory of our own."""
        entry = Entry(path, EntryKind.DIRECTORY, Origin.OWN, mode)
        self._insert(entry, reason)
        self.entries[path].mode = mode

    def run(self) -> None:
        """Visit files until no rule asks for more."""
        while self._queue:
            entry = self._queue.popleft()
            for rule in self.rules:
                rule.visit(self, entry)

    def _made(self, path: str, reason: Reason) -> str | None:
        """What the build itself puts at `path`: an addition, a link of the roots, …"""
        entry = self.entries.get(path)
        if entry is None:
            return None
        if reason not in entry.reasons:
            entry.reasons.append(reason)
        return path

    def _insert(self, entry: Entry, reason: Reason) -> bool:
        known = self.entries.get(entry.path)
        if known is not None:
            if entry.kind is EntryKind.LINK and known.target != entry.target:
                if known.kind is EntryKind.LINK and known.origin is Origin.OWN:
                    return False  # a link of the roots stands before the donor's
                raise ClosureError(f"{entry.path}: in the image twice, and not the same")
            if reason not in known.reasons:
                known.reasons.append(reason)
            return False
        entry.reasons.append(reason)
        self.entries[entry.path] = entry
        self._parents(entry.path)
        if entry.kind is EntryKind.FILE:
            self._queue.append(entry)
        return True

    def _parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        if parent in ("", "/"):
            return
        if parent in self.entries:
            return
        resolved = self.trees.resolve(parent)
        if resolved is not None and resolved.path != parent:
            # A directory reached through a link (/lib): the link itself is taken instead.
            self.want(parent, Reason("directory", path, "the way to the file"))
            return
        mode = 0o755
        found = self.trees.lookup(parent)
        if found is not None and found[1].origin is Origin.DONOR:
            mode = stat.S_IMODE(found[2].st_mode)
        origin = found[1].origin if found is not None else Origin.GENERATED
        entry = Entry(parent, EntryKind.DIRECTORY, origin, self._modes.get(parent, mode))
        self._insert(entry, Reason("directory", path, "holds the file"))

    def _add_link(self, path: str, target: str, layer: Layer, reason: Reason) -> None:
        entry = Entry(path, EntryKind.LINK, layer.origin, 0o777, target=target, source=None)
        self._credit(entry, layer)
        self._insert(entry, reason)

    def _add(self, path: str, source: Path, layer: Layer, is_dir: bool, reason: Reason) -> None:
        mode = stat.S_IMODE(source.stat().st_mode)
        if layer.origin is not Origin.DONOR:
            mode = 0o755 if is_dir or mode & 0o100 else 0o644
        elif not is_dir and mode & 0o6000:
            self.note(f"mode: {path} loses its setuid and setgid bits: only root runs it")
            mode &= ~0o6000
        kind = EntryKind.DIRECTORY if is_dir else EntryKind.FILE
        entry = Entry(path, kind, layer.origin, self._modes.get(path, mode))
        entry.source = None if is_dir else source
        self._credit(entry, layer)
        self._insert(entry, reason)

    def _credit(self, entry: Entry, layer: Layer) -> None:
        if layer.origin is Origin.DONOR:
            for base, packages in self._debian:
                if layer.base == base:
                    package = packages.owner(entry.path)
                    if package is not None:
                        entry.package, entry.version = package.name, package.version
        elif layer.origin is Origin.WHEEL:
            wheel = self._wheels.owner(entry.path[len(PYTHON_SITE) + 1 :])
            if wheel is not None:
                entry.package, entry.version = wheel.name, wheel.version
