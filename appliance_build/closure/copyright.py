"""Licences of Debian packages, from their machine-readable copyright files where they have one."""

from __future__ import annotations

import re
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


def spdx_name(name: str) -> str:
    """The SPDX identifier for one of Debian's short names, or the name itself."""
    return _SPDX.get(name, name)


def debian_licences(root: Path, package: str) -> list[str]:
    """The licences that `package`'s copyright file names, by SPDX identifier where known."""
    file = root / "usr/share/doc" / package / "copyright"
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    found: set[str] = set()
    if "Format:" in text[:400]:
        for line in text.splitlines():
            if line.startswith("License:"):
                found |= _split(line.partition(":")[2])
    else:
        found = {match.rstrip(".") for match in _COMMON.findall(text)}
    return sorted({spdx_name(name) for name in found})


def _split(text: str) -> set[str]:
    names: set[str] = set()
    for part in re.split(r"\s+(?:and/or|and|or)\s+|,", text.strip()):
        name = re.sub(r"\s+with\s+.*", "", part.strip(" ()"))
        if name and re.fullmatch(r"[\w.+~-]{2,60}", name):
            names.add(name)
    return names
