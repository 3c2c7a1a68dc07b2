"""Choose the image's files, lay them out, and hold the result against the audit's rules."""

from dataclasses import dataclass
from pathlib import Path

from appliance_build.assemble.microcode import write_microcode
from appliance_build.audit import AuditTree, audit
from appliance_build.closure import (
    Addition,
    ClosureInputs,
    Manifest,
    compute,
    materialise,
    write_sbom,
)
from appliance_build.closure.materialise import ModuleFormat
from appliance_build.image.native import native_programs
from appliance_build.progress import say
from appliance_build.release.version import REPOSITORY, SOURCE_DATE_EPOCH, release_version

__all__ = ["AuditError", "ImageTrees", "write_staging"]

IMAGE = REPOSITORY / "appliance_build/image"


class AuditError(ValueError):
    """The finished tree breaks a rule; the message names each file and rule."""


@dataclass(frozen=True)
class ImageTrees:
    """The trees the image is made with and of."""

    tools: Path
    donor: Path
    wheels: Path


def write_staging(trees: ImageTrees, build: Path, os_release: Path) -> None:
    """Write ``rootfs/``, ``manifest.json``, ``mica.sbom.json`` and ``microcode.cpio``."""
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
            bundles=REPOSITORY / "firmware/device_bundles",
            additions=tuple(additions),
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
