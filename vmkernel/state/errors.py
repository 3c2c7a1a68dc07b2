"""Failures of the state.

MicaError
  StateError            the configuration can't be read or kept
"""

from __future__ import annotations

from vmkernel.model import MicaError

__all__ = ["StateError"]


class StateError(MicaError):
    """The configuration can't be read or kept; nothing was changed in memory."""
