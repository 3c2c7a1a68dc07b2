"""Datastores and what lies in them: images, volumes, VM folders; it must not touch a VM's state."""

from vmkernel.storage.drivers.base import Consent
from vmkernel.storage.service import StorageService

__all__ = ["Consent", "StorageService"]
