"""The one door into the vmkernel: typed requests over a Unix socket; it does no work itself."""

from vmkernel.control import requests
from vmkernel.control.client import ControlClient, Stream

__all__ = ["ControlClient", "Stream", "requests"]
