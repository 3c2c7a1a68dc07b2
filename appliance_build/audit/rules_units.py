"""Units: enabled are those that the roots enable, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from appliance_build.audit.tree import AuditTree, Finding, Rule

__all__ = ["RULES", "enabled_units", "missing_enablements"]

_LINK = re.compile(
    r"^/(?:etc|usr/lib|usr/local/lib|run)/systemd/(?:system|user|system-preset)/"
    r"(?P<by>[^/]+\.(?:wants|requires|upholds))/(?P<unit>[^/]+)$"
)


def _links(tree: AuditTree) -> Iterator[tuple[str, str, str]]:
    for node in tree.nodes:
        match = _LINK.match(node.path)
        if match is not None:
            yield node.path, match["unit"], match["by"]


def enabled_units(tree: AuditTree) -> Iterator[Finding]:
    """No unit is enabled but by the list in the roots."""
    listed = set(tree.manifest.enabled_units)
    for path, unit, by in _links(tree):
        if (unit, by) not in listed:
            yield Finding("enabled-unit", path, f"{unit} is enabled by {by}, not on the list")


def missing_enablements(tree: AuditTree) -> Iterator[Finding]:
    """Every enablement on the list is there."""
    present = {(unit, by) for _, unit, by in _links(tree)}
    for unit, by in tree.manifest.enabled_units:
        if (unit, by) not in present:
            yield Finding(
                "enabled-unit-missing", f"{by}/{unit}", "is on the list, not in the image"
            )


RULES: dict[str, Rule] = {
    "enabled-unit": enabled_units,
    "enabled-unit-missing": missing_enablements,
}
