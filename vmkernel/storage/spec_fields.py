"""Which fields of a datastore's spec belong to its kind; a pure check."""

from __future__ import annotations

from collections.abc import Mapping

from vmkernel.model import DatastoreKind, DatastoreSpec, MicaError

__all__ = ["check_fields", "check_thresholds"]

_OF_KIND: Mapping[DatastoreKind, tuple[str, ...]] = {
    DatastoreKind.LOCAL: ("disk", "filesystem"),
    DatastoreKind.RAID: ("disks", "spares", "raid_level", "filesystem"),
    DatastoreKind.LVM: ("disks", "filesystem"),
    DatastoreKind.NFS: ("nfs",),
    DatastoreKind.DIRECTORY: ("path",),
}
_OF_SOME = ("disk", "disks", "spares", "raid_level", "nfs", "filesystem", "path")


def check_fields(spec: DatastoreSpec) -> None:
    """`invalid` at the first field that has no meaning for the kind, or thresholds that cross."""
    blank = DatastoreSpec(kind=spec.kind)
    for name in _OF_SOME:
        given = getattr(spec, name) != getattr(blank, name)
        if given and name not in _OF_KIND[spec.kind]:
            raise MicaError.field(
                f"/spec/{name}", f"It has no meaning for a datastore of kind {spec.kind}."
            )
    check_thresholds(spec.warning_percent, spec.critical_percent)


def check_thresholds(warning_percent: int, critical_percent: int) -> None:
    """`invalid` where the warning would come after the error."""
    if not 1 <= warning_percent <= critical_percent <= 100:
        raise MicaError.field(
            "/spec/warning_percent", "It is between 1 and critical_percent, and that at most 100."
        )
