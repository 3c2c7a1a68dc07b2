"""The one door into the vmkernel: typed requests over a Unix socket; it does no work itself.

remote_api imports this package and nothing else of the vmkernel, so the domain types are offered
here as `vmkernel.control.model`.
"""

from vmkernel import model
from vmkernel.control import requests
from vmkernel.control.client import ControlClient, Stream

__all__ = ["ControlClient", "Stream", "model", "requests"]
