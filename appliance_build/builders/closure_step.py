"""Choose the image's files, lay them out, and hold the result against the audit's rules."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from appliance_build.assemble.initrd import EARLY_MODULES, early_name
from appliance_build.assemble.microcode import write_microcode
from appliance_build.audit import AuditTree, audit
from appliance_build.closure import (
    Addition,
    ClosureInputs,
    Manifest,
    compute,
    early_modules,
    materialise,
    write_sbom,
)
from appliance_build.closure.materialise import ModuleFormat
from appliance_build.image.native import native_programs
from appliance_build.progress import say
from appliance_build.release.version import REPOSITORY, SOURCE_DATE_EPOCH, release_version
from firmware.device_bundles import load_bundles

__all__ = ["AuditError", "ImageTrees", "chosen_bundles", "write_staging"]

IMAGE = REPOSITORY / "appliance_build/image"
BUNDLES = REPOSITORY / "firmware/device_bundles"
EFI = "usr/lib/systemd/boot/efi"


class AuditError(ValueError):
    """The finished tree breaks a rule; the message names each file and rule."""


@dataclass(frozen=True)
class ImageTrees:
    """The trees the image is made with and of."""

    tools: Path
    donor: Path
    wheels: Path


def chosen_bundles(text: str | None, folder: Path = BUNDLES) -> tuple[str, ...] | None:
    """Return the driver bundles that ``BUNDLES=`` names, sorted; None for all of them.

    Those that every image has are among them. Raises BundleError, which names unknown ones.
    """
    if text is None:
        return None
    names = {name.strip() for name in text.split(",")} - {""}
    return tuple(bundle.name for bundle in load_bundles(folder, names))


def _boot_files(trees: ImageTrees, build: Path) -> list[Addition]:
    files = [Addition("/init", build / "native/init", "mounts the root image, starts systemd")]
    for number, module in enumerate(early_modules((trees.donor,), list(EARLY_MODULES))):
        path = f"/{early_name(number, module)}"
        files.append(Addition(path, module, "loaded by /init, which mounts the root image with it"))
    for name, reason in (
        ("linuxx64.efi.stub", "the UKI's own first part: starts the kernel under UEFI"),
        ("systemd-bootx64.efi", "chooses the boot bank and counts its tries (UEFI)"),
    ):
        files.append(Addition(f"/{EFI}/{name}", trees.donor / EFI / name, reason))
    return files


def write_staging(
    trees: ImageTrees, build: Path, os_release: Path, bundles: Collection[str] | None = None
) -> None:
    """Write ``rootfs/``, ``manifest.json``, ``mica.sbom.json`` and ``microcode.cpio``.

    Of the driver bundles all are taken, or those that are named.
    """
    additions = [Addition("/usr/lib/os-release", os_release, "the system's name and version")]
    additions += [
        Addition(program.path, build / "native" / Path(program.path).name, program.reason)
        for program in native_programs()
    ]
    plan = compute(
        ClosureInputs(
            donors=(trees.donor,),
            wheels=trees.wheels,
            own=REPOSITORY,
            overlays=(IMAGE / "rootfs",),
            roots=IMAGE / "roots",
            bundles=BUNDLES,
            bundle_names=bundles,
            additions=tuple(additions),
            boot=tuple(_boot_files(trees, build)),
        )
    )
    staging = build / "rootfs"
    manifest = materialise(
        plan,
        staging,
        tools=trees.tools,
        epoch=SOURCE_DATE_EPOCH,
        module_format=ModuleFormat.PLAIN,
    )
    _check(staging, manifest)
    manifest.save(build / "manifest.json")
    write_sbom(
        plan,
        manifest,
        build / "mica.sbom.json",
        version=release_version(),
        epoch=SOURCE_DATE_EPOCH,
    )
    write_microcode(build / "microcode.cpio", plan.microcode)
    for part, total in manifest.totals().items():
        say(f"  {part:28} {total['files']:6} files {total['bytes'] / 1e6:8.1f} MB")


def _check(staging: Path, manifest: Manifest) -> None:
    findings = audit(AuditTree(staging, manifest))
    if findings:
        raise AuditError("the audit refuses the image:\n" + "\n".join(map(str, findings)))
