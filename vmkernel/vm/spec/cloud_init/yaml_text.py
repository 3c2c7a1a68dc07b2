"""Checks of a YAML text without parsing it; only certain faults are reported."""

from __future__ import annotations

import re

__all__ = ["yaml_fault"]

_TAB = re.compile(r"^\t", re.MULTILINE)
_NO_CONTENT = re.compile(r"\s*(#.*|---|%.*)?")
_PRINTABLE = re.compile(r"[\t\n\r -~\x85\xa0-\ud7ff\ue000-\U0010ffff]*")


def yaml_fault(text: str, *, mapping: bool = True) -> str | None:
    """Why a text is not YAML, or not the `mapping` that it has to be; None if nothing is known
    against it."""
    if not _PRINTABLE.fullmatch(text):
        return "It has characters that YAML does not allow."
    for tab in _TAB.finditer(text):
        before = text[: tab.start()]
        if before.count('"') % 2 or before.count("'") % 2:
            continue  # it may be inside a quoted text of several lines, where a tab is blank space
        line = before.count("\n") + 1
        return f"Line {line} begins with a tab, which YAML does not allow: indent with spaces."
    first = next((line for line in text.splitlines() if not _NO_CONTENT.fullmatch(line)), "")
    if mapping and first.startswith(("- ", "[")):
        return "It is a list, but cloud-init expects a mapping (`key: value`)."
    return None
