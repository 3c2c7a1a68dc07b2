"""Owns the checks of a finished image tree against its manifest; changes nothing in either.

Every rule is a function from an :class:`AuditTree` to findings, and is listed in :data:`RULES`.
A finding names the rule, the file, and what is wrong with it; any finding fails the build::

    python3 -m appliance_build.audit --root build/rootfs --manifest build/manifest.json

``--root`` may be the staging tree or, better, what was unpacked from the finished image.
"""

from __future__ import annotations

from appliance_build.audit.rules_elf import RULES as ELF_RULES
from appliance_build.audit.rules_kmod import RULES as KMOD_RULES
from appliance_build.audit.rules_modes import RULES as MODE_RULES
from appliance_build.audit.rules_programs import RULES as PROGRAM_RULES
from appliance_build.audit.rules_python import RULES as PYTHON_RULES
from appliance_build.audit.rules_tree import RULES as TREE_RULES
from appliance_build.audit.rules_units import RULES as UNIT_RULES
from appliance_build.audit.tree import AuditTree, Finding, Rule

__all__ = ["AuditTree", "Finding", "RULES", "Rule", "audit"]

RULES: dict[str, Rule] = {
    **ELF_RULES,
    **KMOD_RULES,
    **MODE_RULES,
    **PROGRAM_RULES,
    **PYTHON_RULES,
    **TREE_RULES,
    **UNIT_RULES,
}


def audit(tree: AuditTree) -> list[Finding]:
    """The findings of every rule, in a fixed order."""
    return sorted(finding for rule in RULES.values() for finding in rule(tree))
