"""The import law: which part may know of which."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from tests.style.sources import Module, modules

PROCESS_MODULES = {"multiprocessing", "pty", "subprocess"}
PROCESS_CALLS = {
    "create_subprocess_exec",
    "create_subprocess_shell",
    "execv",
    "execve",
    "fork",
    "forkpty",
    "popen",
    "posix_spawn",
    "posix_spawnp",
    "subprocess_exec",
    "system",
}
OURS = ("appliance_build", "firmware", "remote_api", "tests", "vmkernel")


def _inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def _broken(where: str, allowed: Callable[[str], bool]) -> list[str]:
    """Imports of ours, in the modules under `where`, that are not allowed."""
    found: list[str] = []
    for module in modules():
        if not _inside(module.name, where):
            continue
        for line, name in module.imports():
            if _inside(name, *OURS) and not allowed(name):
                found.append(f"{module.shown}:{line} imports {name}")
    return found


def test_firmware_imports_nobody() -> None:
    assert _broken("firmware", lambda name: _inside(name, "firmware")) == []


def test_appliance_build_imports_firmware_alone() -> None:
    allowed = ("appliance_build", "firmware")
    assert _broken("appliance_build", lambda name: _inside(name, *allowed)) == []


def test_vmkernel_imports_neither_api_nor_build() -> None:
    allowed = ("firmware", "vmkernel")
    assert _broken("vmkernel", lambda name: _inside(name, *allowed)) == []


def test_remote_api_knows_the_vmkernel_by_its_control_door() -> None:
    allowed = (
        *("remote_api", "vmkernel.control", "vmkernel.model"),
        *("vmkernel.service_manager", "vmkernel.text", "vmkernel.version"),  # leaves
    )
    assert _broken("remote_api", lambda name: _inside(name, *allowed)) == []


def test_client_knows_the_schema_alone() -> None:
    allowed = (
        *("remote_api.client", "remote_api.schema", "vmkernel.model"),
        *("vmkernel.text", "vmkernel.version"),
    )
    assert _broken("remote_api.client", lambda name: _inside(name, *allowed)) == []


def test_model_imports_nothing_else() -> None:
    allowed = ("vmkernel.model", "vmkernel.text")  # the latter imports nothing of Mica either
    assert _broken("vmkernel.model", lambda name: _inside(name, *allowed)) == []
    assert _broken("vmkernel.text", lambda name: _inside(name, "vmkernel.text")) == []


def test_only_the_qemu_package_speaks_qmp() -> None:
    found = [
        f"{module.shown}:{line} imports {name}"
        for module in modules()
        if _inside(module.name, "vmkernel", "remote_api", "appliance_build", "firmware")
        for line, name in module.imports()
        if _inside(name, "qemu")
    ]
    assert found == [], "the library keeps and believes what a QEMU says: see vmkernel/qemu/link.py"


def test_what_others_wrote_is_decoded_in_one_place() -> None:
    """JSON from outside has one way in, which knows all that can be wrong with it; and no answer of
    a QEMU is taken as a bare object (vmkernel/qemu/answers.py says what each is)."""
    own_processes = ("vmkernel.workers",)
    one_way_in = ("vmkernel.decoding",)
    found = [
        f"{module.shown}:{node.lineno} {ast.unparse(node.func)}"
        for module in modules()
        if _inside(module.name, "vmkernel")
        and not _inside(module.name, *own_processes, *one_way_in)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and (
            re.search(r"\bjson\.(loads|decode|load)$", ast.unparse(node.func))
            or (
                ast.unparse(node.func).endswith("qmp.ask")
                and re.search(r"\b(Any|dict|object)\b", ast.unparse(node.args[1]))
            )
        )
    ]
    assert found == []


def _process_starts(module: Module) -> Iterator[str]:
    for line, name in module.imports():
        if name.split(".")[0] in PROCESS_MODULES:
            yield f"{module.shown}:{line} imports {name}"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute) or node.attr not in PROCESS_CALLS:
            continue
        if isinstance(node.value, ast.Name) and node.value.id in {"asyncio", "os", "loop"}:
            yield f"{module.shown}:{node.lineno} calls {node.value.id}.{node.attr}"


def test_only_the_host_package_starts_processes_or_opens_netlink() -> None:
    found: list[str] = []
    for module in modules():
        if not _inside(module.name, "vmkernel") or _inside(module.name, "vmkernel.host"):
            continue
        found.extend(_process_starts(module))
        found.extend(
            f"{module.shown}:{line} imports {name}"
            for line, name in module.imports()
            if _inside(name, "pyroute2")
        )
    assert found == []


def test_the_api_server_starts_no_process() -> None:
    found: list[str] = []
    for module in modules():
        if _inside(module.name, "remote_api") and not _inside(module.name, "remote_api.client"):
            found.extend(_process_starts(module))
    assert found == []
