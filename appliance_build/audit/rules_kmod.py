"""Kernel modules: each is signed, its dependencies exist, its firmware exists or is waived."""

from __future__ import annotations

from collections.abc import Iterator

from appliance_build.audit.tree import AuditTree, Finding, Rule
from appliance_build.closure.rule_kmod import FIRMWARE_DIRECTORY, modinfo, read_module
from firmware.device_bundles import module_name

__all__ = ["RULES", "kernel_modules"]

_SIGNED = b"~Module signature appended~\n"
"""The kernel's mark at the end of a signed module (MODULE_SIG_STRING); it takes no other,
because of module.sig_enforce=1."""


def kernel_modules(tree: AuditTree) -> Iterator[Finding]:
    """Every module's dependencies and firmware are in the image; firmware may be waived."""
    modules = {
        module_name(node.name.split(".ko")[0]): node
        for node in tree.files
        if node.path.startswith("/usr/lib/modules/") and node.name.endswith((".ko", ".ko.xz"))
    }
    builtin = {
        module_name(line.rsplit("/", 1)[-1].removesuffix(".ko"))
        for node in tree.files
        if node.name == "modules.builtin"
        for line in node.source.read_text(encoding="utf-8").split()
    }
    for node in modules.values():
        data = read_module(node.source)
        if not data.endswith(_SIGNED):
            yield Finding("module-signature", node.path, "its signature is not at its end")
        for key, value in modinfo(data):
            if key == "depends":
                for name in filter(None, value.split(",")):
                    if module_name(name) not in modules and module_name(name) not in builtin:
                        yield Finding("module-dependency", node.path, f"{name} is not there")
            elif key == "firmware" and value not in tree.manifest.firmware_waived:
                patterns = [f"{FIRMWARE_DIRECTORY}/{value}{end}" for end in ("", ".xz", ".zst")]
                if not any(tree.trees.glob(pattern) for pattern in patterns):
                    yield Finding(
                        "module-firmware", node.path, f"{value} is neither there nor waived"
                    )


RULES: dict[str, Rule] = {"module-firmware": kernel_modules}
