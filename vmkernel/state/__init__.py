"""The host's own configuration and the log that keeps it; it must not touch VMs or their data."""

from vmkernel.state.config import (
    HostConfig,
    NetworkSettings,
    StoredDatastore,
    StoredToken,
    TlsMaterial,
)
from vmkernel.state.log import Medium, StateLog
from vmkernel.state.store import StateStore

__all__ = [
    "HostConfig",
    "Medium",
    "NetworkSettings",
    "StateLog",
    "StateStore",
    "StoredDatastore",
    "StoredToken",
    "TlsMaterial",
]
