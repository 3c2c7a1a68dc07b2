"""The kinds of datastores, one module each; a driver brings a root and takes
it away, and must not touch what lies in it."""

from vmkernel.storage.drivers.base import Attached, Consent, DatastoreDriver, Look, Report
from vmkernel.storage.drivers.directory import DirectoryDriver

__all__ = ["Attached", "Consent", "DatastoreDriver", "DirectoryDriver", "Look", "Report"]
