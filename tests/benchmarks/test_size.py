"""How large the image is, by part, and what it holds."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.benchmarks.records import Record
from tests.framework import inputs

MB = 1_000_000
PARTS = ("mica.efi", "mica.img", "vmlinuz", "root.erofs", "initrd", "microcode.cpio")
LARGEST = 25


def _manifest() -> list[dict[str, Any]]:
    content = json.loads((inputs.BUILD / "manifest.json").read_text())
    files = content["files"] if isinstance(content, dict) else content
    if isinstance(files, dict):
        return [{"path": path, **entry} for path, entry in files.items()]
    return list(files)


def _origin(entry: dict[str, Any]) -> str:
    origin = entry.get("origin") or {}
    if isinstance(origin, str):
        return origin
    return str(origin.get("package") or origin.get("wheel") or origin.get("name") or "own")


def test_size() -> None:
    record = Record("size")
    for name in PARTS:
        path = inputs.BUILD / name
        if path.is_file():
            record.figure(name, "MB", [path.stat().st_size / MB])
    allocated = (inputs.BUILD / "mica.img").stat().st_blocks * 512
    record.figure("mica.img allocated", "MB", [allocated / MB])
    files = _manifest()
    record.figure("files in the image", "files", [len(files)])
    record.figure("bytes in the image", "MB", [sum(entry.get("size", 0) for entry in files) / MB])
    origins: Counter[str] = Counter()
    for entry in files:
        origins[_origin(entry)] += entry.get("size", 0)
    record.note(
        "largest_origins_mb", {k: round(v / MB, 2) for k, v in origins.most_common(LARGEST)}
    )
    largest = sorted(files, key=lambda entry: -entry.get("size", 0))[:LARGEST]
    record.note("largest_files_mb", {e["path"]: round(e.get("size", 0) / MB, 2) for e in largest})
    record.write()
