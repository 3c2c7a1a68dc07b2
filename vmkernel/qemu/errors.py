"""Failures of talking to QEMU.

QemuError
  QmpCommandError    QEMU refused a command and said why; nothing else is broken
  QmpLostError       the connection is gone: the outcome is unknown, ask again
  QmpNonsenseError   an answer has not the form, or not the range, that it must have
"""

from __future__ import annotations

__all__ = ["QemuError", "QmpCommandError", "QmpLostError", "QmpNonsenseError"]


class QemuError(Exception):
    """Any failure of talking to QEMU."""


class QmpCommandError(QemuError):
    """QEMU's own refusal of a command."""


class QmpLostError(QemuError):
    """The connection ended before the answer came."""


class QmpNonsenseError(QemuError):
    """The answer is not of the form, or not in the range, that it must be."""
