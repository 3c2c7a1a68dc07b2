"""The software bill of materials: CycloneDX JSON of what the manifest says is in the image.

One component for each Debian package and each wheel that gave a file, with version, package
URL, licences and the number of files taken; and one for each file that starts before the root
tree is there (kernel, microcode, /init, loaders), with its hash. Serial number and time stamp
follow from the content, so the same manifest gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.exception.factory import InvalidSpdxLicenseException
from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from appliance_build.closure.copyright import debian_licences
from appliance_build.closure.manifest import Manifest
from appliance_build.closure.packages import DebianPackages, Wheels
from appliance_build.closure.plan import Origin, Plan
from appliance_build.closure.rule_kmod import FIRMWARE_DIRECTORY

__all__ = ["write_sbom"]


def write_sbom(
    plan: Plan, manifest: Manifest, target: Path, *, version: str = "0", epoch: int = 0
) -> None:
    """Write the bill of materials of the image to `target`."""
    counts: Counter[tuple[str, str | None]] = Counter(
        (file.origin, file.package)
        for file in [*manifest.files.values(), *manifest.boot.values()]
        if file.package is not None and file.kind != "directory"
    )
    firmware: dict[str, list[str]] = {}
    for path, file in manifest.files.items():
        if file.package is not None and path.startswith(FIRMWARE_DIRECTORY + "/"):
            firmware.setdefault(file.package, []).append(path[len(FIRMWARE_DIRECTORY) + 1 :])
    licences = LicenseFactory()
    components = _debian_components(plan, counts, firmware, licences)
    components += _wheel_components(plan, counts, licences)
    components += _boot_components(manifest, licences)
    product = Component(
        name="mica",
        version=version,
        type=ComponentType.OPERATING_SYSTEM,
        licenses=[licences.make_from_string("Apache-2.0")],
        bom_ref="mica",
    )
    names = sorted(f"{c.purl or c.bom_ref}" for c in components)
    digest = hashlib.sha256("\n".join([version, *names]).encode()).hexdigest()
    bom = Bom(
        components=components,
        serial_number=UUID(bytes=uuid5(NAMESPACE_URL, digest).bytes, version=4),
        metadata=BomMetaData(component=product, timestamp=datetime.fromtimestamp(epoch, UTC)),
    )
    bom.register_dependency(product, components)
    data = json.loads(JsonV1Dot6(bom).output_as_string())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _debian_components(
    plan: Plan,
    counts: Counter[tuple[str, str | None]],
    firmware: dict[str, list[str]],
    licences: LicenseFactory,
) -> list[Component]:
    components: list[Component] = []
    seen: set[str] = set()
    for donor in plan.donors:
        packages = DebianPackages(donor)
        for name, package in sorted(packages.packages.items()):
            count = counts.get((Origin.DONOR.value, name), 0)
            if not count or name in seen:
                continue
            seen.add(name)
            purl = PackageURL(
                type="deb",
                namespace="debian",
                name=name,
                version=package.version,
                qualifiers={"arch": package.architecture, "distro": "trixie"},
            )
            components.append(
                Component(
                    name=name,
                    version=package.version,
                    type=ComponentType.LIBRARY,
                    purl=purl,
                    bom_ref=f"deb:{name}",
                    licenses=[
                        _licence(licences, licence)
                        for licence in debian_licences(donor, name, firmware.get(name, ()))
                    ],
                    properties=[
                        Property(name="mica:files", value=str(count)),
                        Property(name="mica:source", value=package.source),
                        Property(name="mica:source-version", value=package.source_version),
                    ],
                )
            )
    return components


def _wheel_components(
    plan: Plan, counts: Counter[tuple[str, str | None]], licences: LicenseFactory
) -> list[Component]:
    if plan.wheels is None:
        return []
    components: list[Component] = []
    for name, wheel in sorted(Wheels(plan.wheels).wheels.items()):
        count = counts.get((Origin.WHEEL.value, name), 0)
        if not count:
            continue
        references = []
        if wheel.homepage:
            references.append(
                ExternalReference(
                    type=ExternalReferenceType.WEBSITE, url=XsUri(quote(wheel.homepage, ":/#?=&%"))
                )
            )
        components.append(
            Component(
                name=name,
                version=wheel.version,
                type=ComponentType.LIBRARY,
                purl=PackageURL(type="pypi", name=name.lower(), version=wheel.version),
                bom_ref=f"pypi:{name}",
                licenses=[licences.make_from_string(wheel.licence)] if wheel.licence else [],
                external_references=references,
                properties=[Property(name="mica:files", value=str(count))],
            )
        )
    return components


def _boot_components(manifest: Manifest, licences: LicenseFactory) -> list[Component]:
    """Each file beside the root tree: where it is from, what it is for, its hash."""
    components = []
    for path, file in sorted(manifest.boot.items()):
        (_, _, reason), *_ = file.reasons
        values = [("mica:origin", file.package or file.origin), ("mica:reason", reason)]
        values.append(("mica:size", str(file.size)))
        own = file.origin == Origin.OWN.value
        components.append(
            Component(
                name=path,
                version=file.version,
                type=ComponentType.FILE,
                bom_ref=f"boot:{path}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256 or "")],
                licenses=[licences.make_from_string("Apache-2.0")] if own else [],
                properties=[Property(name=name, value=value) for name, value in values],
            )
        )
    return components


def _licence(licences: LicenseFactory, name: str) -> DisjunctiveLicense:
    try:
        return licences.make_with_id(name)
    except InvalidSpdxLicenseException:
        return licences.make_with_name(name)
