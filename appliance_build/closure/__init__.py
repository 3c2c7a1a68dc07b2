"""Owns the computation of the image's allow-list and its staging tree; builds no disk image.

The image holds the files that named roots provably need, and nothing else. Inputs:

* a **donor** tree: a Debian root directory (dpkg's ``status`` and ``info/*.list`` included);
* a **wheels** directory: unpacked wheels side by side, ``*.dist-info/RECORD`` included;
* our **own** Python packages (the repository's ``vmkernel`` and ``remote_api``);
* an **overlay** tree of our own units and configuration: every file in it is in the image,
  and wins over the donor's file of the same path;
* **roots**: TOML files (:mod:`appliance_build.closure.roots`), each entry with a reason;
* **bundles**: ``firmware/device_bundles/<vendor>/manifest.toml``.

From there each rule (one module each) adds what a file needs: :mod:`.rule_elf` (interpreter,
``DT_NEEDED``, symbol versions), :mod:`.rule_dlopen` (``.note.dlopen``), :mod:`.rule_unit`,
:mod:`.rule_udev`, :mod:`.rule_script`, :mod:`.rule_nss`, :mod:`.rule_python` and
:mod:`.rule_kmod` (``depends``, ``softdep``, ``firmware``).

On the command line::

    python3 -m appliance_build.closure --donor DIR [--donor DIR…] --wheels DIR --own REPO \\
        --overlay DIR [--overlay DIR…] --roots DIR --bundles DIR [--bundle NAME…] \\
        [--tools DIR] [--add /image/path=FILE=REASON…] --out build/closure.json \\
        [--stage build/rootfs] [--manifest build/manifest.json] [--sbom build/sbom.cdx.json]
    python3 -m appliance_build.closure why build/manifest.json /usr/lib/…

From Python::

    inputs = ClosureInputs(donors=(Path(...),), wheels=..., own=..., overlays=(...,),
                           roots=Path(...), bundles=Path(...), bundle_names=None,
                           additions=(Addition("/etc/os-release", Path(...), "reason"),))
    plan = compute(inputs)                   # pure reading: what goes in, and why
    plan.save(Path("build/closure.json"))
    manifest = materialise(plan, Path("build/rootfs"), tools=Path(...))
    manifest.save(Path("build/manifest.json"))
    write_sbom(plan, manifest, Path("build/sbom.cdx.json"))

``materialise`` empties its target and writes the tree with all modification times at
``SOURCE_DATE_EPOCH`` (default 0) and final modes; it writes no ownership (everything is root's:
pass ``--all-root`` to the packer). ``plan.microcode`` lists the donor files for the early
microcode archive, which is not part of the tree; ``plan.kernel_release`` names the kernel.
``early_modules(donor, names)`` gives the module files, in load order, that a pre-root ``init``
must load itself.
"""

from __future__ import annotations

from appliance_build.closure.compute import ClosureInputs, compute
from appliance_build.closure.errors import ClosureError
from appliance_build.closure.manifest import Manifest, explain
from appliance_build.closure.materialise import materialise
from appliance_build.closure.plan import Addition, Plan
from appliance_build.closure.rule_kmod import early_modules
from appliance_build.closure.sbom import write_sbom

__all__ = [
    "Addition",
    "ClosureError",
    "ClosureInputs",
    "Manifest",
    "Plan",
    "compute",
    "early_modules",
    "explain",
    "materialise",
    "write_sbom",
]
