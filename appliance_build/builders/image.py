"""The image's targets: from the locked inputs to ``mica.efi`` and ``mica.img``.

::

    debian.lock.json ─ tools.path ─┬─ donor.path ─┐
    appliance-wheels.lock ─ wheels.path ──────────┤
    vmkernel, remote_api, rootfs, roots, bundles ─┴─ manifest.json (+ rootfs/) ─ root.erofs
    init.c ─ init ──────────────────────────────────────────────── initrd ─ mica.efi ─ mica.img

A ``*.path`` file names a tree in the cache; the manifest holds every file's hash, and so represents
the staging tree. SCons compares contents, not times.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance_build.assemble.initrd import EARLY_MODULES, check_kernel, compile_init, write_initrd
from appliance_build.assemble.root_image import write_root_image
from appliance_build.assemble.stick import StickParts, write_stick
from appliance_build.assemble.uki import UkiParts, write_uki
from appliance_build.builders.closure_step import ImageTrees, chosen_bundles, write_staging
from appliance_build.builders.support import (
    action,
    describe,
    files_under,
    forget_unsound,
    forget_without,
    tree_of,
)
from appliance_build.closure import early_modules
from appliance_build.image.donor import donor_tree
from appliance_build.image.native import native_programs
from appliance_build.inputs.wheels import appliance_wheels
from appliance_build.progress import say
from appliance_build.release.image_inputs import RECORD, input_files, record_inputs
from appliance_build.release.os_release import write_os_release
from appliance_build.release.version import REPOSITORY, release_version
from appliance_build.tools.tools_tree import tools_tree, unpacked_guests
from firmware.boot_chain.command_line import BOOT_CHAIN, kernel_command_line
from firmware.device_bundles import BundleError

__all__ = ["add_image_targets"]

CODE = REPOSITORY / "appliance_build"
EFI = "usr/lib/systemd/boot/efi"


def _locks() -> list[str]:
    inputs = CODE / "inputs"
    return [str(inputs / name) for name in ("debian.lock.json", "debian.lock.wishes.json")]


def _trees(env: Any, build: Path) -> dict[str, Any]:
    report = build / "debian.lock.json"
    for name in ("tools", "donor", "guests", "wheels"):
        forget_unsound(build / f"{name}.path")

    def tools(targets: list[Path], _: list[Path]) -> None:
        targets[0].write_text(f"{tools_tree(report)}\n")

    def donor(targets: list[Path], sources: list[Path]) -> None:
        targets[0].write_text(f"{donor_tree(tree_of(sources[0]), report)}\n")

    def guests(targets: list[Path], _: list[Path]) -> None:
        targets[0].write_text(f"{unpacked_guests(report)}\n")

    def wheels(targets: list[Path], _: list[Path]) -> None:
        targets[0].write_text(f"{appliance_wheels()}\n")

    nodes: dict[str, Any] = {}

    def tree(name: str, sources: list[Any], work: Any) -> None:
        path = str(build / f"{name}.path")
        nodes[name] = env.Command(path, sources, action(env, f"{name} tree", work))
        # The file only names the tree; deleting it first would say nothing.
        env.Precious(nodes[name])

    tree("tools", [*_locks(), str(CODE / "tools/tools_tree.py")], tools)
    mkosi = files_under(CODE / "image/mkosi")
    tree("donor", [nodes["tools"], *_locks(), *mkosi, str(CODE / "image/donor.py")], donor)
    tree("guests", _locks(), guests)
    tree("wheels", [str(CODE / "inputs/appliance-wheels.lock")], wheels)
    return nodes


def _native(env: Any, build: Path, tools: Any) -> dict[str, Any]:
    def compile_one(targets: list[Path], sources: list[Path]) -> None:
        compile_init(tree_of(sources[1]), sources[0], targets[0])

    programs = {"init": BOOT_CHAIN / "init.c"}
    programs.update({Path(program.path).name: program.source for program in native_programs()})
    return {
        name: env.Command(
            str(build / "native" / name),
            [str(source), tools, str(CODE / "assemble/initrd.py")],
            action(env, f"compiling {source.name}", compile_one),
        )
        for name, source in programs.items()
    }


def add_image_targets(env: Any, build: Path, arguments: Mapping[str, str]) -> dict[str, Any]:
    """Define the targets; returns the nodes that others depend on."""
    try:
        bundles = chosen_bundles(arguments.get("BUNDLES"))
    except BundleError as error:
        say(f"BUNDLES: {error}")
        env.Exit(2)
    trees = _trees(env, build)
    native = _native(env, build, trees["tools"])
    names = [Path(program.path).name for program in native_programs()]
    staging = build / "rootfs"
    forget_without(build / "manifest.json", staging)

    def stage(targets: list[Path], sources: list[Path]) -> None:
        image_trees = ImageTrees(*(tree_of(path) for path in sources[:3]))
        os_release = build / "os-release"
        write_os_release(os_release)
        write_staging(image_trees, build, os_release, bundles)
        assert all(target.is_file() for target in targets)

    content = files_under(
        REPOSITORY / "vmkernel",
        REPOSITORY / "remote_api",
        REPOSITORY / "firmware",
        CODE / "image/rootfs",
        CODE / "image/roots",
        CODE / "closure",
        CODE / "audit",
    )
    manifest = env.Command(
        [str(build / name) for name in ("manifest.json", "mica.sbom.json", "microcode.cpio")],
        [
            *(trees[name] for name in ("tools", "donor", "wheels")),
            *(native[name] for name in ("init", *names)),
            *content,
            env.Value("all" if bundles is None else ",".join(bundles)),
            str(CODE / "image/native.toml"),
            str(CODE / "builders/closure_step.py"),
            str(CODE / "assemble/microcode.py"),
            str(CODE / "assemble/initrd.py"),
            str(CODE / "release/version.py"),
            str(CODE / "release/os_release.py"),
        ],
        action(env, "choosing the image's files", stage),
    )

    def root_image(targets: list[Path], sources: list[Path]) -> None:
        write_root_image(tree_of(sources[1]), staging, targets[0])

    root = env.Command(
        str(build / "root.erofs"),
        [manifest[0], trees["tools"], str(CODE / "assemble/root_image.py")],
        action(env, "packing the root image", root_image),
    )

    def initrd(targets: list[Path], sources: list[Path]) -> None:
        modules = early_modules((tree_of(sources[2]),), list(EARLY_MODULES))
        write_initrd(targets[0], init=sources[0], modules=modules, root_image=sources[1])

    ram_disk = env.Command(
        str(build / "initrd"),
        [
            native["init"],
            root,
            trees["donor"],
            str(CODE / "assemble/initrd.py"),
            str(CODE / "assemble/cpio.py"),
        ],
        action(env, "making the initrd", initrd),
    )

    def kernel(targets: list[Path], sources: list[Path]) -> None:
        (found,) = (tree_of(sources[0]) / "boot").glob("vmlinuz-*")
        release = found.name.removeprefix("vmlinuz-")
        check_kernel(found.with_name(f"config-{release}"))
        shutil.copyfile(found, targets[0])
        targets[1].write_text(f"{release}\n")

    kernel_files = env.Command(
        [str(build / "vmlinuz"), str(build / "kernel-release")],
        trees["donor"],
        action(env, "taking the kernel", kernel),
    )

    def uki(targets: list[Path], sources: list[Path]) -> None:
        donor = tree_of(sources[5])
        parts = UkiParts(
            stub=donor / EFI / "linuxx64.efi.stub",
            kernel=sources[0],
            kernel_release=sources[1].read_text().strip(),
            command_line=kernel_command_line(),
            os_release=build / "os-release",
            initrd=sources[2],
            microcode=sources[3],
        )
        write_uki(tree_of(sources[4]), parts, targets[0])

    command_line = str(BOOT_CHAIN / "kernel_command_line.toml")
    efi = env.Command(
        str(build / "mica.efi"),
        [
            *kernel_files,
            ram_disk,
            manifest[2],
            trees["tools"],
            trees["donor"],
            command_line,
            str(CODE / "assemble/uki.py"),
            str(CODE / "release/version.py"),
            str(REPOSITORY / "vmkernel/version.py"),
        ],
        action(env, "making mica.efi", uki),
    )

    def stick(targets: list[Path], sources: list[Path]) -> None:
        parts = StickParts(
            version=release_version(),
            uki=sources[0],
            kernel=sources[1],
            initrd=sources[2],
            microcode=sources[3],
            command_line=kernel_command_line(),
            loader=tree_of(sources[5]) / EFI / "systemd-bootx64.efi",
            boot_chain=BOOT_CHAIN,
        )
        write_stick(tree_of(sources[4]), parts, targets[0], build / "stick")

    stick_image = env.Command(
        str(build / "mica.img"),
        [
            efi,
            kernel_files[0],
            ram_disk,
            manifest[2],
            trees["tools"],
            trees["donor"],
            command_line,
            *files_under(BOOT_CHAIN, suffixes=(".conf", ".cfg", ".example")),
            str(CODE / "assemble/stick.py"),
        ],
        action(env, "making mica.img", stick),
    )

    def note(targets: list[Path], sources: list[Path]) -> None:
        del targets, sources
        record_inputs(REPOSITORY, build)

    inputs = env.Command(
        str(build / RECORD),
        [efi, stick_image, *map(str, input_files(REPOSITORY))],
        action(env, "noting what the image was made of", note),
    )
    env.Alias("image", [efi, stick_image, inputs])
    env.Alias("tools", trees["tools"])
    env.Alias("guests", trees["guests"])
    describe(
        "image",
        "build/mica.efi and build/mica.img, the default (BUNDLES=intel,realtek: not all drivers)",
    )
    return {
        **trees,
        "manifest": manifest[0],
        "efi": efi,
        "stick": stick_image,
        "inputs": inputs,
    }
