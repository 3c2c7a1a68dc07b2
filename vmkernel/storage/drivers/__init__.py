"""The kinds of datastores, one module each; a driver brings a root and takes
it away, and must not touch what lies in it."""

from vmkernel.storage.drivers.base import Attached, DatastoreDriver, Report
from vmkernel.storage.drivers.directory import DirectoryDriver
from vmkernel.storage.drivers.local import LocalDriver

__all__ = ["Attached", "DatastoreDriver", "DirectoryDriver", "LocalDriver", "Report"]
