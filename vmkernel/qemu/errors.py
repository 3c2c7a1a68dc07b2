"""Failures of talking to QEMU.

QemuError
  QmpCommandError    QEMU refused a command with a reason; nothing else is broken
  QmpLostError       the connection is gone: the outcome is unknown, ask again
  QmpNonsenseError   an answer has a wrong form or is out of range
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
    """The answer has a wrong form or is out of range."""
