"""From requests to services, one module an area; no decision is taken here."""

from vmkernel.control.handlers import access, host, operations, storage, vm

__all__ = ["access", "host", "operations", "storage", "vm"]
