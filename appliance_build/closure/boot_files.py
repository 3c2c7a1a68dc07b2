"""What starts before the root tree is there: kernel, microcode, /init and its modules, loaders.

They are no part of the tree, but of ``mica.efi`` and the stick, and are accounted for all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appliance_build.closure.errors import NotInDonorError
from appliance_build.closure.packages import DebianPackages
from appliance_build.closure.plan import Addition, BootFile, Origin, Reason
from appliance_build.closure.rule_kmod import FIRMWARE_DIRECTORY
from appliance_build.closure.trees import Trees
from firmware.device_bundles import Bundle

__all__ = ["BootFiles"]

RULE = "boot"


class BootFiles:
    """Collects them, each with the package it is of and the reason."""

    def __init__(self, donors: Sequence[tuple[Path, DebianPackages]]) -> None:
        self._donors = donors
        self.files: list[BootFile] = []

    def add(self, source: Path, reason: Reason, path: str | None = None) -> None:
        """Take a file of a Debian tree; it keeps its path there unless another is given."""
        for tree, packages in self._donors:
            if not source.is_relative_to(tree):
                continue
            inside = f"/{source.relative_to(tree)}"
            owner = packages.owner(inside)
            name, version = (owner.name, owner.version) if owner else (None, None)
            file = BootFile(path or inside, source, Origin.DONOR, reason, name, version)
            self.files.append(file)
            return
        raise NotInDonorError(f"{source}: in no input tree")

    def add_kernel(self, image: Path | None) -> None:
        if image is not None:
            self.add(image, Reason(RULE, "mica.efi", "the kernel"))

    def add_microcode(self, trees: Trees, bundles: list[Bundle]) -> list[Path]:
        """Take the bundles' microcode; returns the files that the early archive is made of."""
        found: dict[Path, Reason] = {}
        for bundle in bundles:
            for item in bundle.manifest.microcode:
                paths = trees.glob(f"{FIRMWARE_DIRECTORY}/{item.glob}")
                if not paths:
                    raise NotInDonorError(f"{bundle.name}: microcode {item.glob}: not in the donor")
                for path in paths:
                    resolved = trees.resolve(path)
                    if resolved is not None and not resolved.is_dir:
                        why = Reason("bundle-microcode", bundle.name, item.reason)
                        found.setdefault(resolved.source, why)
        for source in sorted(found):
            self.add(source, found[source])
        return sorted(found)

    def add_made(self, additions: Sequence[Addition]) -> None:
        """Take what the build itself puts beside the root tree.

        A file of a Debian tree is that package's, whatever it is called in the initrd.
        """
        for addition in additions:
            reason = Reason(RULE, "mica.efi", addition.reason)
            if any(addition.source.is_relative_to(tree) for tree, _ in self._donors):
                self.add(addition.source, reason, addition.path)
            else:
                self.files.append(BootFile(addition.path, addition.source, Origin.OWN, reason))
