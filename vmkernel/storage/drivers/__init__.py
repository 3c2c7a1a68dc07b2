"""The kinds of datastores, one module each; a driver brings a root and takes
it away, and must not touch what lies in it."""

from vmkernel.storage.drivers.base import (
    Attached,
    Consent,
    DatastoreDriver,
    DriverMakers,
    Look,
    Report,
)

__all__ = ["Attached", "Consent", "DatastoreDriver", "DriverMakers", "Look", "Report"]
