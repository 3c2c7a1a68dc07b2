"""The variables of a VM's UEFI: copied between folders, some of which are untrusted."""

from __future__ import annotations

from pathlib import Path

from vmkernel.host.files import copy_durably, exists, remove
from vmkernel.vm.store.definition import NVRAM_FILES

__all__ = ["copy_variables"]

_MAX_BYTES = 8 << 20
"""QEMU takes no more for both of its flash chips together."""


def copy_variables(source: Path, target: Path, *, all_of_them: bool = False) -> None:
    """Copy the variables of each kind of firmware that a folder has; durable on return.

    With `all_of_them`, files that the source lacks are removed from the target. UnsafeFileError if
    something else is in a file's place.
    """
    for name in NVRAM_FILES.values():
        if exists(source / name):
            copy_durably(source / name, target / name, _MAX_BYTES)
        elif all_of_them:
            remove(target / name)
