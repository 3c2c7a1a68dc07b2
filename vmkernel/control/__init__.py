"""The one entrance to the vmkernel: typed requests over a Unix socket. It does no work itself."""

from vmkernel.control import requests
from vmkernel.control.client import ControlClient, Stream

__all__ = ["ControlClient", "Stream", "requests"]
