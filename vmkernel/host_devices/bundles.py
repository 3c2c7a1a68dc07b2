"""Which driver bundle a kernel module came from: the catalogue that the image carries."""

from __future__ import annotations

from pathlib import Path

from vmkernel.decoding import decode_document

__all__ = ["BundleCatalogue", "CATALOGUE"]

CATALOGUE = Path("/usr/lib/mica/bundles.json")


class BundleCatalogue:
    """Modules by name, each with its bundle; empty if there is no catalogue."""

    def __init__(self, file: Path = CATALOGUE) -> None:
        self._file = file
        self._modules: dict[str, str] | None = None

    def bundle_of(self, module: str | None) -> str | None:
        """The bundle of a module; None for what belongs to the kernel itself."""
        if module is None:
            return None
        if self._modules is None:
            self._modules = self._load()
        return self._modules.get(module.replace("-", "_"))

    def _load(self) -> dict[str, str]:
        try:
            data = decode_document(self._file.read_bytes())
            return {name: str(entry["bundle"]) for name, entry in data["modules"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
