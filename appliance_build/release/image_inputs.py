"""What an image was built of, recorded beside it: whoever uses the image can ask whether the
checkout has changed since.

It is about the checkout alone: our programs, the boot chain, the build and its locks. Texts that no
image holds (READMEs, the client) don't count.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["RECORD", "changed_inputs", "input_files", "record_inputs"]

RECORD = "mica.inputs.json"
"""The record's name, in the folder of the image."""
_FOLDERS = ("appliance_build", "firmware", "remote_api", "vmkernel")
_SKIPPED = ("__pycache__", ".mypy_cache", ".ruff_cache")
_NOT_IN_IMAGE = ("remote_api/client",)


def input_files(repository: Path) -> Iterator[Path]:
    """The files of a checkout that make its image, sorted."""
    for folder in _FOLDERS:
        yield from _below(repository / folder, repository)


def record_inputs(repository: Path, build: Path) -> None:
    """Note beside a fresh image what it was built of."""
    text = json.dumps(_digests(repository), indent=1)
    (build / RECORD).write_text(f"{text}\n")


def changed_inputs(repository: Path, build: Path) -> list[str] | None:
    """The files that differ from those that the image was built of; None without a record."""
    try:
        recorded: Mapping[str, str] = json.loads((build / RECORD).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    present = _digests(repository)
    names = recorded.keys() | present.keys()
    return sorted(name for name in names if recorded.get(name) != present.get(name))


def _digests(repository: Path) -> dict[str, str]:
    return {
        str(path.relative_to(repository)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in input_files(repository)
    }


def _below(folder: Path, repository: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            left_out = str(path.relative_to(repository)) in _NOT_IN_IMAGE
            if path.name not in _SKIPPED and not left_out:
                yield from _below(path, repository)
        elif path.is_file() and path.suffix not in (".md", ".pyc"):
            yield path
