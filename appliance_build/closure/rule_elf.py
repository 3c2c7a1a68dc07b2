"""The rule for ELF files: interpreter, ``DT_NEEDED`` along the loader's own search, versions.

The image has no ``ld.so.cache``, so a library must be in a folder that the loader searches:
``DT_RPATH``, ``DT_RUNPATH`` (with ``$ORIGIN``), then the directories built into Debian's ld.so. A
symbol version that the library found does not define is an error here already.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from appliance_build.closure.elf_file import ElfFile, is_elf, read_elf
from appliance_build.closure.errors import ClosureError, NotInDonorError
from appliance_build.closure.plan import Entry, Reason
from appliance_build.closure.search import Search

__all__ = ["DEFAULT_DIRECTORIES", "RuleElf", "library_directories", "missing_versions"]

DEFAULT_DIRECTORIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")


class RuleElf:
    """Takes what the dynamic loader would load for each ELF program and library."""

    def __init__(self) -> None:
        self.files: dict[str, ElfFile] = {}
        self._found: dict[str, dict[str, str]] = {}

    def visit(self, search: Search, entry: Entry) -> None:
        if entry.source is None or entry.path.endswith((".ko", ".ko.xz")):
            return
        if not is_elf(entry.source):
            return
        elf = self._read(entry)
        if elf.kind == "ET_REL":
            return
        if elf.interpreter is not None:
            search.need(elf.interpreter, Reason("elf-interpreter", entry.path, elf.interpreter))
        found = self._found.setdefault(entry.path, {})
        for name in elf.needed:
            path = self.find(search, entry.path, elf, name) or self._by_loader(entry, name)
            if path is None:
                raise NotInDonorError(f"{entry.path}: its library {name} is in no input tree")
            found[name] = search.need(path, Reason("elf-needed", entry.path, name))
        for message in missing_versions(elf, lambda name: self._loaded(search, found, name)):
            raise ClosureError(f"{entry.path}: {message}")

    def find(self, search: Search, path: str, elf: ElfFile, name: str) -> str | None:
        """The image path of library `name` as the loader would find it for `path`."""
        if "/" in name:
            return name if search.trees.exists(name) else None
        for directory in library_directories(path, elf):
            candidate = f"{directory}/{name}"
            resolved = search.trees.resolve(candidate)
            if resolved is not None and not resolved.is_dir:
                return candidate
        return None

    def _by_loader(self, entry: Entry, name: str) -> str | None:
        """If the program or library that loads `entry` has loaded `name` itself already."""
        for reason in entry.reasons:
            if reason.rule == "elf-needed" and name in self._found.get(reason.of, {}):
                return self._found[reason.of][name]
        return None

    def _read(self, entry: Entry) -> ElfFile:
        if entry.path not in self.files:
            assert entry.source is not None
            self.files[entry.path] = read_elf(entry.source)
        return self.files[entry.path]

    def _loaded(self, search: Search, found: dict[str, str], name: str) -> ElfFile | None:
        path = found.get(name)
        if path is None:
            return None
        return self._read(search.entries[path])


def library_directories(path: str, elf: ElfFile) -> list[str]:
    """The folders in which the loader searches for the libraries of the image's file `path`, in
    order.
    """
    own = elf.runpath or elf.rpath
    origin = posixpath.dirname(path)
    expanded = [
        posixpath.normpath(d.replace("${ORIGIN}", origin).replace("$ORIGIN", origin))
        for d in own
        if d
    ]
    return [*expanded, *DEFAULT_DIRECTORIES]


def missing_versions(elf: ElfFile, load: Callable[[str], ElfFile | None]) -> list[str]:
    """The symbol versions `elf` needs and the libraries that `load` finds do not define."""
    problems: list[str] = []
    for library, versions in elf.versions_needed:
        provider = load(library)
        if provider is None:
            problems.append(f"needs versions of {library}, which it does not load")
            continue
        lacking = [v for v in versions if v not in provider.versions_defined]
        if lacking:
            problems.append(f"needs {', '.join(lacking)}, which {library} does not define")
    return problems
