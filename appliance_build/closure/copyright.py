"""Licences of Debian packages, from their machine-readable copyright files if they have one."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from pathlib import Path

__all__ = ["debian_licences", "spdx_name"]

_SPDX = {
    "Apache-2": "Apache-2.0",
    "Artistic-1": "Artistic-1.0",
    "BSD-2-clause": "BSD-2-Clause",
    "BSD-3-clause": "BSD-3-Clause",
    "BSD-4-clause": "BSD-4-Clause",
    "Expat": "MIT",
    "GPL-1+": "GPL-1.0-or-later",
    "GPL-2": "GPL-2.0-only",
    "GPL-2+": "GPL-2.0-or-later",
    "GPL-2.0": "GPL-2.0-only",
    "GPL-2.0+": "GPL-2.0-or-later",
    "GPL-3": "GPL-3.0-only",
    "GPL-3+": "GPL-3.0-or-later",
    "GPLv2+": "GPL-2.0-or-later",
    "GPLv3+": "GPL-3.0-or-later",
    "LGPL-2": "LGPL-2.0-only",
    "LGPL-2+": "LGPL-2.0-or-later",
    "LGPL-2.1": "LGPL-2.1-only",
    "LGPL-2.1+": "LGPL-2.1-or-later",
    "LGPL-3": "LGPL-3.0-only",
    "LGPL-3+": "LGPL-3.0-or-later",
    "MPL-2": "MPL-2.0",
    "zlib": "Zlib",
}
_COMMON = re.compile(r"/usr/share/common-licenses/((?:L?GPL|Apache|MPL|GFDL|BSD|Artistic)[\w.-]*)")
_FIELD = re.compile(r"^License:[ \t]*(.*)$", re.MULTILINE | re.IGNORECASE)
# Sentences that give a licence away in a copyright file without machine-readable fields.
_SENTENCES = (
    (re.compile(r"Redistribution and use in binary form, without modification"), "binary-redist"),
    (re.compile(r"microcode in binary form \(the .Software.\)"), "binary-redist"),
    (re.compile(r"Permission is hereby granted, free of charge"), "MIT"),
    (re.compile(r"Redistribution and use in source and binary\s+forms"), "BSD"),
    (re.compile(r"GNU\s+Lesser\s+General\s+Public\s+License"), "LGPL"),
    (re.compile(r"GNU\s+General\s+Public\s+License"), "GPL"),
    (re.compile(r"PYTHON SOFTWARE FOUNDATION LICENSE"), "PSF-2.0"),
)


def spdx_name(name: str) -> str:
    """The SPDX identifier for one of Debian's short names, or the name itself."""
    return _SPDX.get(name, name)


def debian_licences(root: Path, package: str, firmware: Collection[str] = ()) -> list[str]:
    """The licences that `package`'s copyright file names, by SPDX identifier if known.

    A firmware package has the licences of a hundred makers; `firmware` are the files taken of it,
    relative to the firmware directory, and only their licences are named.
    """
    file = root / "usr/share/doc" / package / "copyright"
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    found: set[str] = set()
    if "Format:" in text[:400]:
        found = _licences_of(text, firmware)
        for value in _FIELD.findall(text) if not found else ():
            found |= _split(value)
    if not found:
        found = {match.rstrip(".") for match in _COMMON.findall(text)}
        found |= {name for sentence, name in _SENTENCES if sentence.search(text)}
    return sorted({spdx_name(name) for name in found})


def _licences_of(text: str, files: Collection[str]) -> set[str]:
    stanzas: list[tuple[list[str], set[str]]] = []
    for paragraph in text.split("\n\n"):
        patterns = re.search(r"^Files:((?:.*\n(?:[ \t].*\n?)*))", paragraph, re.MULTILINE)
        licence = _FIELD.search(paragraph)
        if patterns is not None and licence is not None:
            stanzas.append((patterns.group(1).split(), _split(licence.group(1))))
    found: set[str] = set()
    for name in files:
        for patterns_, names in reversed(stanzas):  # the last stanza that matches counts
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns_):
                found |= names
                break
    return found


def _split(text: str) -> set[str]:
    names: set[str] = set()
    for part in re.split(r"\s+(?:and/or|and|or)\s+|,", text.strip()):
        name = re.sub(r"\s+with\s+.*", "", part.strip(" ()"))
        if name and re.fullmatch(r"[\w.+~-]{2,60}", name):
            names.add(name)
    return names
