"""Owns the driver bundles: which drivers and firmware cover which hardware, as data of a vendor
each; must not know how the image is built or what is plugged into a host.

A bundle is a folder ``<name>/manifest.toml``::

    schema = 1
    title = "Intel Ethernet"
    covers = ["1 to 100 Gbit/s server and desktop Ethernet by Intel"]
    licence = "GPL-2.0 drivers; firmware under Intel's redistribution licence"
    packages = ["firmware-intel-misc"]        # Debian packages that carry the firmware
    always = "no guests without it"           # if every image has it: why

    [drivers]                                 # kernel module = the hardware it drives
    e1000e = "Gigabit Ethernet (82571 to I219)"

    [[firmware]]                              # beyond what the drivers declare themselves
    glob = "intel/ice/ddp/ice.pkg"
    reason = "the default package of ice"

    [[waive]]                                 # declared by a driver, left out on purpose
    firmware = "intel/ice/ddp-*/*"
    reason = "other than default packages; ice runs without them"

    [[microcode]]                             # goes into the early microcode archive
    glob = "intel-ucode/*"
    reason = "processor errata"

A vendor adds a folder; nothing else has to change. Unknown fields are refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import msgspec

__all__ = [
    "Bundle",
    "BundleError",
    "BundleManifest",
    "FirmwareFiles",
    "FirmwareWaiver",
    "bundle_catalogue",
    "load_bundles",
    "module_name",
]

Text = Annotated[str, msgspec.Meta(min_length=1)]
BundleName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class BundleError(Exception):
    """A bundle's manifest is wrong, or a bundle asked for is not there."""


class FirmwareFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files below the firmware directory, by glob pattern, and why."""

    glob: Text
    reason: Text


class FirmwareWaiver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Firmware that a driver declares and the image does without, by pattern, and why."""

    firmware: Text
    reason: Text


class BundleManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``manifest.toml``, as it is in the file."""

    schema: Literal[1]
    title: Text
    covers: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    licence: Text
    drivers: dict[str, Text]
    packages: tuple[str, ...] = ()
    always: Text | None = None
    """Why the bundle is in every image even if other bundles were selected; None for most."""
    firmware: tuple[FirmwareFiles, ...] = ()
    waive: tuple[FirmwareWaiver, ...] = ()
    microcode: tuple[FirmwareFiles, ...] = ()


class Bundle(msgspec.Struct, frozen=True):
    """A bundle: its name (the folder's) and its manifest."""

    name: BundleName
    manifest: BundleManifest


def module_name(name: str) -> str:
    """A kernel module's name as the kernel itself writes it (``-`` is ``_``)."""
    return name.replace("-", "_")


def load_bundles(directory: Path, names: Collection[str] | None = None) -> list[Bundle]:
    """Read the bundles of `directory`, sorted by name.

    If `names` are given, those and the ones that every image has. Raises BundleError.
    """
    folders = {file.parent.name: file for file in directory.glob("*/manifest.toml")}
    missing = sorted(set(names or ()) - set(folders))
    if missing:
        known = ", ".join(sorted(folders))
        raise BundleError(f"no bundle named {', '.join(missing)}; there are: {known}")
    bundles = [_load(name, folders[name]) for name in sorted(folders)]
    _check_unique(bundles)
    if names is None:
        return bundles
    return [b for b in bundles if b.name in names or b.manifest.always is not None]


def bundle_catalogue(bundles: list[Bundle]) -> dict[str, object]:
    """What the appliance knows of its bundles: JSON data for ``/usr/lib/mica/bundles.json``."""
    return {
        "schema": 1,
        "bundles": {
            bundle.name: {
                "title": bundle.manifest.title,
                "covers": list(bundle.manifest.covers),
                "licence": bundle.manifest.licence,
            }
            for bundle in bundles
        },
        "modules": {
            module_name(driver): {"bundle": bundle.name, "hardware": hardware}
            for bundle in bundles
            for driver, hardware in sorted(bundle.manifest.drivers.items())
        },
    }


def _load(name: str, file: Path) -> Bundle:
    where = f"{name}/{file.name}"
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        return msgspec.convert({"name": name, "manifest": data}, Bundle)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BundleError(f"{where}: {error}") from error


def _check_unique(bundles: list[Bundle]) -> None:
    owner: dict[str, str] = {}
    for bundle in bundles:
        for driver in bundle.manifest.drivers:
            name = module_name(driver)
            if name in owner:
                raise BundleError(
                    f"{bundle.name}/manifest.toml: driver {driver} is in {owner[name]} already"
                )
            owner[name] = bundle.name
