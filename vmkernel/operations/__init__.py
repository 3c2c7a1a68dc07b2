"""Work that outlasts its request: progress, cancel, history; it does not know what the work is."""

from vmkernel.operations.registry import OperationContext, OperationRegistry, Work

__all__ = ["OperationContext", "OperationRegistry", "Work"]
