"""Puts the inputs, the roots and the rules together, and computes the plan."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from appliance_build.closure.boot_files import BootFiles
from appliance_build.closure.errors import NotInDonorError
from appliance_build.closure.packages import DebianPackages, Wheels
from appliance_build.closure.plan import Addition, Entry, EntryKind, Origin, Plan, Reason
from appliance_build.closure.roots import Roots, load_roots
from appliance_build.closure.rule_dlopen import RuleDlopen
from appliance_build.closure.rule_elf import RuleElf
from appliance_build.closure.rule_kmod import KernelModules, RuleKmod
from appliance_build.closure.rule_nss import RuleNss
from appliance_build.closure.rule_python import RulePython
from appliance_build.closure.rule_script import RuleScript
from appliance_build.closure.rule_udev import RuleUdev
from appliance_build.closure.rule_unit import RuleUnit, unit_path
from appliance_build.closure.search import Search
from appliance_build.closure.tools import DonorPython
from appliance_build.closure.trees import PYTHON_SITE, Layer, Trees
from firmware.device_bundles import Bundle, bundle_catalogue, load_bundles

__all__ = ["ClosureInputs", "OWN_PACKAGES", "compute", "sources"]

OWN_PACKAGES = frozenset({"firmware", "remote_api", "vmkernel"})
CATALOGUE = "/usr/lib/mica/bundles.json"
PATH_FILE = "/usr/lib/python3/dist-packages/mica.pth"
UNIT_DIRECTORY = "/usr/lib/systemd/system"
USB_RULES = "/usr/lib/udev/rules.d/60-mica-usb.rules"
INDEX_FILES = (
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.dep",
    "modules.dep.bin",
    "modules.devname",
    "modules.softdep",
    "modules.symbols.bin",
)


@dataclass(frozen=True, slots=True)
class ClosureInputs:
    """Everything that decides what is in the image."""

    donors: tuple[Path, ...]
    wheels: Path
    own: Path
    overlays: tuple[Path, ...]
    roots: Path
    bundles: Path
    bundle_names: Collection[str] | None = None
    additions: tuple[Addition, ...] = ()
    boot: tuple[Addition, ...] = ()
    """Files beside the root tree: in the initrd, or on the stick."""


def compute(inputs: ClosureInputs) -> Plan:
    """The image's allow-list for `inputs`; reads only."""
    roots = load_roots(inputs.roots)
    bundles = load_bundles(inputs.bundles, inputs.bundle_names)
    trees = Trees(_layers(inputs))
    debian = [(donor, DebianPackages(donor)) for donor in inputs.donors]
    search = Search(trees, roots, debian, Wheels(inputs.wheels))
    modules = KernelModules.of_donor(inputs.donors)
    elf = RuleElf()
    kmod = RuleKmod(modules, bundles)
    with DonorPython(list(inputs.donors)) as donor_python:
        python = RulePython(donor_python)
        unit = RuleUnit(python)
        search.rules = [
            elf,
            RuleDlopen(elf),
            unit,
            RuleUdev(),
            RuleScript(),
            RuleNss(),
            python,
            kmod,
        ]
        enabled = _take_roots(search, roots, inputs, python, unit, kmod)
        _take_bundles(search, bundles, modules, kmod)
        search.run()
        kmod.check(search)
    _compiled(search, python)
    boot = BootFiles(debian)
    kernel = _kernel_image(inputs.donors, modules.release)
    boot.add_kernel(kernel)
    boot.add_made(inputs.boot)
    return Plan(
        entries=search.entries,
        kernel_release=modules.release,
        microcode=boot.add_microcode(trees, bundles),
        kernel_image=kernel,
        enabled_units=enabled,
        firmware_waived=kmod.waived,
        notes=search.notes,
        donors=inputs.donors,
        wheels=inputs.wheels,
        boot=boot.files,
    )


def _layers(inputs: ClosureInputs) -> list[Layer]:
    layers = [Layer(Origin.OVERLAY, overlay) for overlay in inputs.overlays]
    layers.append(Layer(Origin.OWN, inputs.own, PYTHON_SITE, OWN_PACKAGES))
    layers.append(Layer(Origin.WHEEL, inputs.wheels, PYTHON_SITE))
    layers += [Layer(Origin.DONOR, donor) for donor in inputs.donors]
    return layers


def _take_roots(
    search: Search,
    roots: Roots,
    inputs: ClosureInputs,
    python: RulePython,
    unit: RuleUnit,
    kmod: RuleKmod,
) -> list[tuple[str, str]]:
    for addition in inputs.additions:
        search.add_file(
            addition.path, addition.source, Reason("addition", "the build", addition.reason)
        )
    for link in roots.link:
        search.link(link.path, link.target, Reason("root", roots.origin(link), link.reason))
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        search.want(name, Reason("root", "usr-merge", "the merged /usr"))
    for directory in roots.directory:
        why = Reason("root", roots.origin(directory), directory.reason)
        search.directory(directory.path, int(directory.mode, 8), why)
    for overlay in inputs.overlays:
        for path in Trees([Layer(Origin.OVERLAY, overlay)]).walk(""):
            search.need_exactly(path, Reason("overlay", overlay.name, "our own file"))
    for program in roots.executable:
        search.need(program.path, Reason("root", roots.origin(program), program.reason))
    for data in roots.data:
        paths = [p for p in search.trees.glob(data.glob) if not _any_match(p, data.exclude)]
        if not paths and not data.optional:
            raise NotInDonorError(f"{roots.origin(data)}: data.glob {data.glob}: matches nothing")
        for path in paths:
            search.need(path, Reason("root", roots.origin(data), data.reason))
    for item in roots.python:
        why = Reason("root", roots.origin(item), item.reason)
        if item.submodules:
            python.take_root(search, item.module, why, item.exclude)
        elif not python.take(search, item.module, why):
            raise NotInDonorError(f"{roots.origin(item)}: python.module {item.module}: not there")
    for module in roots.kernel_module:
        why = Reason("root", roots.origin(module), module.reason)
        if not kmod.take(search, module.name, why):
            raise NotInDonorError(f"{roots.origin(module)}: kernel_module {module.name}: not there")
    if any(entry.path.startswith(PYTHON_SITE) for entry in search.entries.values()):
        content = f"{PYTHON_SITE}\n".encode()
        why = Reason("root", "closure", "puts our packages and the wheels on Python's path")
        search.generate(PATH_FILE, "content", why, content=content)
    return _take_units(search, roots, unit)


def _take_units(search: Search, roots: Roots, unit: RuleUnit) -> list[tuple[str, str]]:
    enabled: list[tuple[str, str]] = []
    for item in roots.unit:
        why = Reason("root", roots.origin(item), item.reason)
        path = unit_path(search, item.name)
        if path is None:
            raise NotInDonorError(f"{roots.origin(item)}: unit.name {item.name}: no such unit")
        unit.take(search, item.name, why, hard=True)
        for kind, wanters in (("wants", item.wanted_by), ("requires", item.required_by)):
            for wanter in wanters:
                enabled.append((item.name, f"{wanter}.{kind}"))
                link = f"{UNIT_DIRECTORY}/{wanter}.{kind}/{item.name}"
                target = posixpath.relpath(path, posixpath.dirname(link))
                note = f"enabled by {wanter}"
                search.link(link, target, Reason("enablement", roots.origin(item), note))
    return enabled


def _take_bundles(
    search: Search, bundles: list[Bundle], modules: KernelModules, kmod: RuleKmod
) -> None:
    for bundle in bundles:
        kmod.take_bundle(search, bundle)
    catalogue = json.dumps(bundle_catalogue(bundles), indent=1, sort_keys=True) + "\n"
    why = Reason("root", "closure", "tells the API which bundle a driver belongs to")
    search.generate(CATALOGUE, "content", why, content=catalogue.encode())
    root = f"/usr/lib/modules/{modules.release}"
    why = Reason("kmod-index", root, "index of the modules in the image")
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        search.need(f"{root}/{name}", why)
    search.generate(f"{root}/modules.order", "modules-order", why)
    for name in INDEX_FILES:
        search.generate(f"{root}/{name}", "depmod", why)
    why = Reason("root", "closure", "lets in the USB devices that the image's modules name")
    search.generate(USB_RULES, "usb-rules", why)


def _compiled(search: Search, python: RulePython) -> None:
    """Every module's ``.py`` becomes a ``.pyc`` in the same place, to be compiled later."""
    renamed: dict[str, str] = {}
    for path in python.modules:
        entry = search.entries.get(path)
        if entry is None or entry.kind is not EntryKind.FILE or not path.endswith(".py"):
            continue
        renamed[path] = path + "c"
        entry.path = path + "c"
        entry.kind = EntryKind.GENERATED
        entry.generator = "pyc"
        entry.mode = 0o644
    entries = {renamed.get(path, path): entry for path, entry in search.entries.items()}
    for entry in entries.values():
        entry.reasons = [Reason(r.rule, renamed.get(r.of, r.of), r.note) for r in entry.reasons]
    search.entries = entries


def _kernel_image(donors: tuple[Path, ...], release: str) -> Path | None:
    for donor in donors:
        for name in (f"boot/vmlinuz-{release}", f"usr/lib/modules/{release}/vmlinuz"):
            if (donor / name).exists():
                return donor / name
    return None


def _any_match(path: str, patterns: tuple[str, ...]) -> bool:
    return any(Path(path).match(pattern) for pattern in patterns)


def sources(entries: dict[str, Entry]) -> list[Path]:
    """The files on the build machine that a plan reads, for the build's own dependencies."""
    return sorted({entry.source for entry in entries.values() if entry.source is not None})
