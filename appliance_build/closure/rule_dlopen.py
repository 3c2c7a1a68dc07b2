"""The rule for ``.note.dlopen``: libraries a program loads at run time and says so.

``required`` ones must be there. ``recommended`` ones are taken if the donor has them, and
``suggested`` ones are not, unless a ``[[dlopen]]`` entry of the roots says otherwise. The plan's
notes say what was left out, and why.
"""

from __future__ import annotations

import fnmatch

from appliance_build.closure.elf_file import DlopenNote, DlopenPriority
from appliance_build.closure.errors import NotInDonorError
from appliance_build.closure.plan import Entry, Reason
from appliance_build.closure.roots import DlopenPolicy
from appliance_build.closure.rule_elf import RuleElf
from appliance_build.closure.search import Search

__all__ = ["RuleDlopen"]


class RuleDlopen:
    """Takes the libraries that ``.note.dlopen`` names, by the roots' policy."""

    def __init__(self, elf: RuleElf) -> None:
        self._elf = elf

    def visit(self, search: Search, entry: Entry) -> None:
        """Follow the notes of one ELF file (which :class:`RuleElf` read just before)."""
        elf = self._elf.files.get(entry.path)
        if elf is None:
            return
        for note in elf.dlopen_notes:
            policy = self._policy(search, entry.path, note)
            take = policy.take if policy else note.priority is not DlopenPriority.SUGGESTED
            if not take:
                why = policy.reason if policy else "only suggested"
                search.note(f"dlopen: {entry.path} goes without {note.sonames[0]}: {why}")
                continue
            for soname in note.sonames:
                path = self._elf.find(search, entry.path, elf, soname)
                if path is not None:
                    label = f"{note.feature}: {soname} ({note.priority})"
                    search.need(path, Reason("elf-dlopen", entry.path, label))
                    break
            else:
                if note.priority is DlopenPriority.REQUIRED or (policy and policy.take):
                    raise NotInDonorError(
                        f"{entry.path}: must load one of {', '.join(note.sonames)}, "
                        "which is in no input tree"
                    )
                search.note(f"dlopen: {entry.path} goes without {note.sonames[0]}: not in donor")

    def _policy(self, search: Search, path: str, note: DlopenNote) -> DlopenPolicy | None:
        for policy in search.roots.dlopen:
            if policy.importer is not None and not fnmatch.fnmatchcase(path, policy.importer):
                continue
            if any(fnmatch.fnmatchcase(soname, policy.library) for soname in note.sonames):
                return policy
        return None
