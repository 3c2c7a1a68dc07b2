"""Access to Linux: it owns every started process and kernel interface, and decides nothing.

One thin module per tool or interface; nothing outside this package builds an argv list.
"""

from vmkernel.host.errors import (
    CommandError,
    DatastoreFullError,
    HostError,
    from_os_error,
    naming_datastore,
)
from vmkernel.host.runner import Completed, Runner

__all__ = [
    "CommandError",
    "Completed",
    "DatastoreFullError",
    "HostError",
    "Runner",
    "from_os_error",
    "naming_datastore",
]
