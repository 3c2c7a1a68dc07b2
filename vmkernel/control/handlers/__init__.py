"""From requests to services, one module an area; no decision is taken here."""

from vmkernel.control.handlers import access, host, operations, vm

__all__ = ["access", "host", "operations", "vm"]
