"""What lies on datastores and in VM folders is opened through vmkernel.host.files and
vmkernel.host.folder alone: never by a path that the system walks on its own, links included.

Datastores may come from anybody, and a jailed process writes some of these files. What is named
here touches other files, and the reason is beside it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.style.sources import Module, modules

_PACKAGES = ("vmkernel.storage", "vmkernel.vm")

_PATH_METHODS = frozenset(
    {
        *("chmod", "exists", "expanduser", "glob", "hardlink_to", "is_dir", "is_file"),
        *("is_fifo", "is_mount", "is_socket", "is_symlink", "iterdir", "lchmod", "lstat", "mkdir"),
        *("open", "read_bytes", "read_text", "readlink", "rename", "resolve", "rglob"),
        *("rmdir", "samefile", "stat", "symlink_to", "touch", "unlink", "write_bytes"),
        "write_text",
    }
)
_OS_CALLS = frozenset(
    {
        *("access", "chdir", "chmod", "chown", "lchown", "link", "listdir", "lstat", "makedirs"),
        *("mkdir", "mkfifo", "mknod", "open", "readlink", "remove", "removedirs", "rename"),
        *("renames", "replace", "rmdir", "scandir", "stat", "statvfs", "symlink", "truncate"),
        *("unlink", "utime", "walk", "fwalk", "getxattr", "setxattr", "listxattr"),
    }
)
_MODULES = frozenset({"shutil", "glob", "tempfile", "fileinput"})

_ALLOWED: dict[tuple[str, str], str] = {
    ("vmkernel.storage.datastores.attachment", "layout.open"): "a method of Layout",
    ("vmkernel.storage.datastores.attachment", "self.open"): "a method of Attachment",
    ("vmkernel.storage.datastores.changes", "self._attachment.open"): "a method of Attachment",
    ("vmkernel.vm.assembly", "QmpSession.open"): "a socket of QEMU",
    ("vmkernel.vm.assembly", "found.is_dir"): "folders of the host's own QEMU",
    ("vmkernel.vm.backup.service", "NbdReader.open"): "a socket of QEMU",
    ("vmkernel.vm.backup.service", "OfflineDiskReader.open"): "starts a QEMU",
    ("vmkernel.vm.launch.child_process", "import shutil"): "looks for swtpm's program",
    ("vmkernel.vm.nonvolatile.machine_state", "firmware.variables.stat"): "the host's own OVMF",
    ("vmkernel.vm.store.launch_record", "_BOOT_ID.read_text"): "the kernel's",
    ("vmkernel.vm.side", "self.host.run_dir.mkdir"): "our own run folder",
    ("vmkernel.vm.start.files", "files.nvram_template.read_bytes"): "the host's own OVMF",
    ("vmkernel.vm.start.plan", "folder.path.mkdir"): "in our own run folder",
}
"""By module and call."""

_ALLOWED_MODULES: dict[str, str] = {
    "vmkernel.storage.drivers.directory": "an administrator's path, before it is a datastore",
    "vmkernel.storage.drivers.disk_selection": "device nodes and sysfs",
    "vmkernel.storage.drivers.local": "device nodes and sysfs",
    "vmkernel.storage.drivers.lvm": "device nodes and sysfs",
    "vmkernel.storage.drivers.mounting": "mount points below /run/mica, which is root's alone",
    "vmkernel.storage.drivers.nfs": "asks a mount for its figures, under a time limit",
    "vmkernel.storage.drivers.raid": "device nodes and sysfs",
    "vmkernel.vm.launch.systemd_unit": "units and mount points below /run, which is root's alone",
}


def _offences(module: Module) -> Iterator[tuple[int, str]]:
    used = _used(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            for name in names:
                if name in _MODULES:
                    yield node.lineno, f"import {name}"
        # A method that is only handed on, as to a thread, counts as well.
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            call = ast.unparse(node)
            base = ast.unparse(node.value)
            if base == "os":
                if node.attr in _OS_CALLS:
                    yield node.lineno, call
            elif node.attr in _PATH_METHODS and id(node) in used:
                yield node.lineno, call
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id == "open":
                yield node.lineno, "open"
            if (
                isinstance(function, ast.Attribute)
                and function.attr == "replace"
                and len(node.args) == 1
                and not node.keywords
            ):
                yield node.lineno, ast.unparse(function)


def _used(module: Module) -> set[int]:
    """What is called, or handed on as the first thing that a call is about."""
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            found.add(id(node.func))
            found.update(map(id, node.args[:2]))
    return found


@pytest.mark.parametrize("package", _PACKAGES)
def test_only_the_helper_opens_files_of_others(package: str) -> None:
    found = []
    for module in modules():
        if not module.name.startswith(package) or module.name in _ALLOWED_MODULES:
            continue
        for line, call in _offences(module):
            if (module.name, call) not in _ALLOWED:
                found.append(f"{module.shown}:{line}: {call}")
    assert not found, "use vmkernel.host.files or vmkernel.host.folder:\n" + "\n".join(found)


def test_every_exception_is_one() -> None:
    by_name = {module.name: module for module in modules()}
    stale = [
        f"{name}: {call}"
        for name, call in _ALLOWED
        if name not in by_name or call not in {found for _, found in _offences(by_name[name])}
    ]
    stale += [
        name
        for name in _ALLOWED_MODULES
        if name not in by_name or not list(_offences(by_name[name]))
    ]
    assert not stale, stale


def test_the_check_finds_what_it_is_for() -> None:
    from pathlib import Path

    text = """
import shutil
from glob import glob
def work(path, folder):
    open(path)
    path.open("rb")
    shutil.copyfile(path, folder)
    os.stat(path)
    to_thread(path.unlink)
    path.replace(folder)
    "text".replace("a", "b")
    folder.read("name", 10)
"""
    found = {call for _, call in _offences(Module("x", Path("x"), ast.parse(text)))}
    assert found == {
        "import shutil",
        "import glob",
        "open",
        "path.open",
        "os.stat",
        "path.unlink",
        "path.replace",
    }
