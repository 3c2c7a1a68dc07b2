"""The rule for kernel modules: ``depends``, ``softdep`` and ``firmware`` of their ``.modinfo``.

Firmware that a module declares must be in the donor (plain, ``.xz`` or ``.zst``) or be waived
with a reason by a bundle; all that is missing is reported at once.
"""

from __future__ import annotations

import fnmatch
import functools
import lzma
from pathlib import Path

from appliance_build.closure.elf_file import section
from appliance_build.closure.errors import FirmwareMissingError, NotInDonorError, RootsError
from appliance_build.closure.plan import Entry, Reason
from appliance_build.closure.search import Search
from firmware.device_bundles import Bundle, module_name

__all__ = [
    "FIRMWARE_DIRECTORY",
    "KernelModules",
    "RuleKmod",
    "early_modules",
    "modinfo",
    "read_module",
]

FIRMWARE_DIRECTORY = "/usr/lib/firmware"
_SUFFIXES = (".ko", ".ko.xz")


def read_module(path: Path) -> bytes:
    """A kernel module's ELF bytes, unpacked if it is compressed."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def modinfo(data: bytes) -> list[tuple[str, str]]:
    """The (key, value) pairs of a module's ``.modinfo`` section."""
    pairs: list[tuple[str, str]] = []
    for item in section(data, ".modinfo").split(b"\0"):
        key, found, value = item.decode("utf-8", "replace").partition("=")
        if found:
            pairs.append((key, value))
    return pairs


class KernelModules:
    """The modules of one kernel in the donor, by name, and those built in."""

    def __init__(self, base: Path, release: str) -> None:
        self.release = release
        self.root = base / "usr/lib/modules" / release
        self.paths: dict[str, str] = {}
        for file in sorted(self.root.glob("kernel/**/*.ko*")):
            if file.name.endswith(_SUFFIXES):
                name = module_name(file.name.split(".ko")[0])
                self.paths[name] = "/" + str(file.relative_to(base))
        builtin = (self.root / "modules.builtin").read_text(encoding="utf-8").split()
        self.builtin = {module_name(Path(line).name.removesuffix(".ko")) for line in builtin}
        self._base = base

    @classmethod
    def of_donor(cls, donors: tuple[Path, ...]) -> KernelModules:
        """The modules of the one kernel that the donors hold."""
        found = [
            (donor, path.name)
            for donor in donors
            for path in sorted(donor.glob("usr/lib/modules/*"))
            if (path / "modules.builtin").exists()
        ]
        if len(found) != 1:
            releases = ", ".join(name for _, name in found) or "none"
            raise NotInDonorError(
                f"the donor must hold exactly one kernel's modules; it has {releases}"
            )
        return cls(*found[0])

    def file(self, name: str) -> Path:
        """The file of module `name` on the build machine."""
        return self._base / self.paths[module_name(name)].lstrip("/")

    @functools.cached_property
    def aliases(self) -> list[tuple[str, str]]:
        """(pattern, module) pairs of ``modules.alias``."""
        pairs: list[tuple[str, str]] = []
        for line in (self.root / "modules.alias").read_text(encoding="utf-8").splitlines():
            words = line.split()
            if len(words) == 3 and words[0] == "alias":
                pairs.append((words[1], module_name(words[2])))
        return pairs

    def by_alias(self, alias: str) -> list[str]:
        """The modules that an alias such as ``crypto-crc32c`` leads to."""
        text = alias.replace("_", "-")
        return sorted(
            {
                module
                for pattern, module in self.aliases
                if fnmatch.fnmatchcase(text, pattern.replace("_", "-"))
            }
        )


def early_modules(donors: tuple[Path, ...], names: list[str]) -> list[Path]:
    """The files of `names` and what they depend on, in the order to load them; none built in."""
    modules = KernelModules.of_donor(donors)
    order: list[Path] = []

    def add(name: str) -> None:
        if name in modules.builtin:
            return
        if name not in modules.paths:
            raise NotInDonorError(f"kernel module {name}: not in kernel {modules.release}")
        file = modules.file(name)
        if file in order:
            return
        for key, value in modinfo(read_module(file)):
            if key == "depends":
                for dependency in filter(None, value.split(",")):
                    add(module_name(dependency))
        order.append(file)

    for name in names:
        add(module_name(name))
    return order


class RuleKmod:
    """Takes what kernel modules need: other modules, and firmware."""

    def __init__(self, modules: KernelModules, bundles: list[Bundle]) -> None:
        self.modules = modules
        self._waivers = [(w.firmware, w.reason) for b in bundles for w in b.manifest.waive]
        self.waived: dict[str, str] = {}
        self.missing: dict[str, list[str]] = {}
        self.used_waivers: set[str] = set()

    def take(self, search: Search, name: str, reason: Reason) -> bool:
        """Take a module by name; False if the kernel has no such module."""
        canonical = module_name(name)
        path = self.modules.paths.get(canonical)
        if path is not None:
            search.need(path, reason)
            return True
        return canonical in self.modules.builtin

    def take_bundle(self, search: Search, bundle: Bundle) -> None:
        """Take a bundle's drivers and the firmware files that it names itself."""
        of = f"bundle {bundle.name}"
        absent = [
            driver
            for driver, hardware in sorted(bundle.manifest.drivers.items())
            if not self.take(search, driver, Reason("bundle", of, hardware))
        ]
        if absent:
            raise RootsError(
                f"{bundle.name}/manifest.toml: drivers {', '.join(absent)}: "
                f"kernel {self.modules.release} has no such modules"
            )
        for files in bundle.manifest.firmware:
            if not self._files(search, files.glob, Reason("bundle-firmware", of, files.reason)):
                raise RootsError(
                    f"{bundle.name}/manifest.toml: firmware {files.glob}: not in the donor"
                )

    def visit(self, search: Search, entry: Entry) -> None:
        if entry.source is None or not entry.path.endswith(_SUFFIXES):
            return
        if not entry.path.startswith("/usr/lib/modules/"):
            return
        for key, value in modinfo(read_module(entry.source)):
            if key == "depends":
                for name in filter(None, value.split(",")):
                    if not self.take(search, name, Reason("kmod-depends", entry.path, name)):
                        raise NotInDonorError(
                            f"{entry.path}: depends on {name}, which is not there"
                        )
            elif key == "softdep":
                self._softdep(search, entry, value)
            elif key == "firmware":
                self._firmware(search, entry, value)

    def check(self, search: Search) -> None:
        """Fail if any module's firmware is neither there nor waived; note idle waivers."""
        for pattern, _ in self._waivers:
            if pattern not in self.used_waivers:
                search.note(f"kmod: no module in the image asks for the waived firmware {pattern}")
        if self.missing:
            lines = [
                f"{name} (asked for by {', '.join(sorted(modules))})"
                for name, modules in sorted(self.missing.items())
            ]
            raise FirmwareMissingError(
                "firmware neither in the donor nor waived by a bundle: " + "; ".join(lines)
            )

    def _softdep(self, search: Search, entry: Entry, value: str) -> None:
        for word in value.split():
            if word.endswith(":"):
                continue
            reason = Reason("kmod-softdep", entry.path, word)
            if self.take(search, word, reason):
                continue
            found = self.modules.by_alias(word)
            for name in found:
                self.take(search, name, reason)
            if not found:
                search.note(f"kmod: {entry.path} would like {word}, which is not there")

    def _firmware(self, search: Search, entry: Entry, name: str) -> None:
        for pattern, why in self._waivers:
            if fnmatch.fnmatchcase(name, pattern):
                self.waived[name] = why
                self.used_waivers.add(pattern)
                return
        if not self._files(search, name, Reason("kmod-firmware", entry.path, name)):
            self.missing.setdefault(name, []).append(Path(entry.path).name.split(".ko")[0])

    def _files(self, search: Search, name: str, reason: Reason) -> bool:
        for suffix in ("", ".xz", ".zst"):
            paths = search.trees.glob(f"{FIRMWARE_DIRECTORY}/{name}{suffix}")
            taken = [p for p in paths if search.want(p, reason) is not None]
            if taken:
                return True
        return False
