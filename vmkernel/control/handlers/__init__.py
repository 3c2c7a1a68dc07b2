"""From requests to services, one module an area; no decision is taken here."""

from vmkernel.control.handlers import (
    access,
    backups,
    clones,
    console,
    datastores,
    disks,
    host,
    images,
    operations,
    snapshots,
    statistics,
    uploads,
    vm,
    volumes,
)

__all__ = [
    "access",
    "backups",
    "clones",
    "console",
    "datastores",
    "disks",
    "host",
    "images",
    "operations",
    "snapshots",
    "statistics",
    "uploads",
    "vm",
    "volumes",
]
