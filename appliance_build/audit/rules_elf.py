"""Programs and libraries: memory that is both writable and executable, and what won't load."""

from __future__ import annotations

from collections.abc import Iterator

from appliance_build.audit.tree import AuditTree, Finding, Rule
from appliance_build.closure.elf_file import ElfFile
from appliance_build.closure.rule_elf import library_directories, missing_versions

__all__ = ["RULES", "executable_stack", "symbol_versions", "unresolved", "writable_code"]


def writable_code(tree: AuditTree) -> Iterator[Finding]:
    """No segment that is writable and executable."""
    for path, elf in tree.elf_files.items():
        for segment in elf.segments:
            if segment.kind == "PT_LOAD" and segment.writable and segment.executable:
                yield Finding("writable-code", path, "has a writable and executable segment")


def executable_stack(tree: AuditTree) -> Iterator[Finding]:
    """No executable stack, neither asked for nor got by saying nothing."""
    for path, elf in tree.elf_files.items():
        if elf.kind not in ("ET_EXEC", "ET_DYN"):
            continue
        stacks = [segment for segment in elf.segments if segment.kind == "PT_GNU_STACK"]
        if any(segment.executable for segment in stacks):
            yield Finding("executable-stack", path, "asks for an executable stack")
        elif not stacks:
            yield Finding("executable-stack", path, "does not say that its stack is not executable")


def unresolved(tree: AuditTree) -> Iterator[Finding]:
    """Every interpreter and library is where the loader searches for it."""
    for path, elf in tree.elf_files.items():
        if elf.interpreter is not None and tree.trees.resolve(elf.interpreter) is None:
            yield Finding("unresolved-library", path, f"interpreter {elf.interpreter} not found")
        for name in elf.needed:
            if _find(tree, path, elf, name) is None:
                yield Finding("unresolved-library", path, f"library {name} not found")


def symbol_versions(tree: AuditTree) -> Iterator[Finding]:
    """Every symbol version is defined by the library that is there."""
    for path, elf in tree.elf_files.items():

        def load(name: str, path: str = path, elf: ElfFile = elf) -> ElfFile | None:
            found = _find(tree, path, elf, name)
            return tree.elf_files.get(found) if found is not None else None

        if any(_find(tree, path, elf, name) is None for name in elf.needed):
            continue  # said by the rule before
        for message in missing_versions(elf, load):
            yield Finding("symbol-version", path, message)


def _find(tree: AuditTree, path: str, elf: ElfFile, name: str) -> str | None:
    found = _search(tree, path, elf, name)
    if found is not None:
        return found
    # Not where the loader looks for `path`; well if all that load `path` load `name` themselves.
    own = path.rsplit("/", 1)[-1]
    places: set[str | None] = set()
    for other, other_elf in tree.elf_files.items():
        if own in other_elf.needed or (elf.soname and elf.soname in other_elf.needed):
            needs = name in other_elf.needed
            places.add(_search(tree, other, other_elf, name) if needs else None)
    return places.pop() if len(places) == 1 else None


def _search(tree: AuditTree, path: str, elf: ElfFile, name: str) -> str | None:
    candidates = [name] if "/" in name else [f"{d}/{name}" for d in library_directories(path, elf)]
    for candidate in candidates:
        resolved = tree.trees.resolve(candidate)
        if resolved is not None and not resolved.is_dir:
            return resolved.path
    return None


RULES: dict[str, Rule] = {
    "writable-code": writable_code,
    "executable-stack": executable_stack,
    "unresolved-library": unresolved,
    "symbol-version": symbol_versions,
}
