"""Work that outlasts its request: progress, cancel, history; it does not know what the work is."""

from vmkernel.operations.journal import Journal
from vmkernel.operations.registry import OperationContext, OperationRegistry, Work

__all__ = ["Journal", "OperationContext", "OperationRegistry", "Work"]
