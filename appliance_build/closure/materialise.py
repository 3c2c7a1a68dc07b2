"""Writes a plan out as a directory tree, ready for the packer, and returns its manifest.

Modification times are all `epoch`; modes are final; ownership is the packer's matter (all
root's). What has to be made is made here: ``.pyc`` files by the donor's Python, the kernel
module indexes by depmod of the tools tree. The same plan gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from appliance_build.closure.errors import ClosureError, ToolFailedError
from appliance_build.closure.manifest import Manifest, ManifestFile
from appliance_build.closure.plan import BootFile, Entry, EntryKind, Origin, Plan
from appliance_build.closure.rule_kmod import read_module
from appliance_build.closure.tools import DonorPython, tree_command
from appliance_build.closure.usb_rules import usb_rules

__all__ = ["ModuleFormat", "materialise"]


class ModuleFormat(StrEnum):
    """The form of kernel modules in the tree: as Debian ships them, or unpacked for the packer."""

    XZ = "xz"
    PLAIN = "plain"


def materialise(
    plan: Plan,
    target: Path,
    *,
    tools: Path | None = None,
    epoch: int | None = None,
    module_format: ModuleFormat = ModuleFormat.XZ,
) -> Manifest:
    """Write the tree of `plan` to `target` (emptied first) and return its manifest."""
    if epoch is None:
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True, mode=0o755)
    entries = _formatted(plan, module_format)
    for entry in entries:
        _write(entry, target)
    _compile(plan, entries, target)
    _index(plan, entries, target, tools)
    files = {entry.path: _describe(entry, target) for entry in entries}
    _finish(entries, target, epoch)
    return Manifest(
        files=files,
        kernel_release=plan.kernel_release,
        enabled_units=list(plan.enabled_units),
        firmware_waived=dict(plan.firmware_waived),
        notes=list(plan.notes),
        boot={file.path: _describe_boot(file) for file in plan.boot},
    )


def _formatted(plan: Plan, module_format: ModuleFormat) -> list[Entry]:
    entries = [plan.entries[path] for path in sorted(plan.entries)]
    if module_format is ModuleFormat.XZ:
        return entries
    return [
        replace(
            entry,
            path=_plain(entry.path),
            reasons=[replace(reason, of=_plain(reason.of)) for reason in entry.reasons],
        )
        for entry in entries
    ]


def _plain(path: str) -> str:
    return path.removesuffix(".xz") if path.endswith(".ko.xz") else path


def _write(entry: Entry, target: Path) -> None:
    path = target / entry.path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    match entry.kind:
        case EntryKind.DIRECTORY:
            path.mkdir(exist_ok=True)
        case EntryKind.LINK:
            assert entry.target is not None
            path.symlink_to(entry.target)
        case EntryKind.FILE:
            assert entry.source is not None
            if entry.path.endswith(".ko") and entry.source.suffix == ".xz":
                path.write_bytes(read_module(entry.source))
            else:
                shutil.copyfile(entry.source, path)
        case EntryKind.GENERATED:
            if entry.content is not None:
                path.write_bytes(entry.content)


def _compile(plan: Plan, entries: list[Entry], target: Path) -> None:
    modules = [entry for entry in entries if entry.generator == "pyc"]
    if not modules:
        return
    with DonorPython(list(plan.donors)) as python:
        for entry in modules:
            python.ask(
                {
                    "do": "compile",
                    "source": str(entry.source),
                    "path": entry.path.removesuffix("c"),
                    "out": str(target / entry.path.lstrip("/")),
                }
            )


def _index(plan: Plan, entries: list[Entry], target: Path, tools: Path | None) -> None:
    wanted = {entry.path for entry in entries if entry.generator in ("depmod", "modules-order")}
    if not wanted:
        return
    root = f"usr/lib/modules/{plan.kernel_release}"
    present = {
        entry.path[len(root) + 2 :].removesuffix(".xz")
        for entry in entries
        if entry.path.endswith((".ko", ".ko.xz"))
    }
    order = _donor_file(plan, f"{root}/modules.order").read_text(encoding="utf-8").splitlines()
    kept = [line for line in order if line in present]
    (target / root / "modules.order").write_text("".join(f"{line}\n" for line in kept))
    trees = [*([tools] if tools is not None else []), *plan.donors]
    command = tree_command(trees, "/usr/bin/kmod", "depmod")
    done = subprocess.run(
        [*command, "-b", str(target), plan.kernel_release],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    if done.returncode or done.stderr.strip():
        raise ToolFailedError(f"depmod: {done.stderr.strip() or done.returncode}")
    for file in sorted((target / root).iterdir()):
        path = "/" + str(file.relative_to(target))
        if file.is_file() and path not in plan.entries:
            file.unlink()
    aliases = (target / root / "modules.alias").read_text(encoding="utf-8").splitlines()
    for entry in entries:
        if entry.generator == "usb-rules":
            (target / entry.path.lstrip("/")).write_text(usb_rules(aliases), encoding="utf-8")


def _donor_file(plan: Plan, name: str) -> Path:
    for donor in plan.donors:
        if (donor / name).exists():
            return donor / name
    raise ClosureError(f"/{name}: not in the donor")


def _describe(entry: Entry, target: Path) -> ManifestFile:
    path = target / entry.path.lstrip("/")
    kind = "file" if entry.kind is EntryKind.GENERATED else entry.kind.value
    size: int | None = None
    digest: str | None = None
    if kind == "file":
        if not path.is_file():
            raise ClosureError(f"{entry.path}: {entry.generator} did not make it")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = path.stat().st_size
    return ManifestFile(
        path=entry.path,
        kind=kind,
        mode=f"{entry.mode:04o}",
        origin=entry.origin.value,
        reasons=tuple((r.rule, r.of, r.note) for r in entry.reasons),
        size=size,
        sha256=digest,
        target=entry.target,
        package=entry.package,
        version=entry.version,
    )


def _describe_boot(file: BootFile) -> ManifestFile:
    module = file.path.endswith(".ko")
    content = read_module(file.source) if module else file.source.read_bytes()
    return ManifestFile(
        path=file.path,
        kind="file",
        mode="0755" if file.origin is Origin.OWN else "0644",
        origin=file.origin.value,
        reasons=((file.reason.rule, file.reason.of, file.reason.note),),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        package=file.package,
        version=file.version,
    )


def _finish(entries: list[Entry], target: Path, epoch: int) -> None:
    for entry in reversed(entries):  # a directory after what it holds
        path = target / entry.path.lstrip("/")
        if entry.kind is not EntryKind.LINK:
            path.chmod(entry.mode)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    target.chmod(0o755)
    os.utime(target, (epoch, epoch))
