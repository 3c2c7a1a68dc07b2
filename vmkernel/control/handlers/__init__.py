"""From requests to services, one module an area; no decision is taken here."""

from vmkernel.control.handlers import (
    access,
    datastores,
    disks,
    host,
    images,
    operations,
    vm,
    volumes,
)

__all__ = ["access", "datastores", "disks", "host", "images", "operations", "vm", "volumes"]
