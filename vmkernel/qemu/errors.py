"""Failures of talking to QEMU.

QemuError
  QmpCommandError   QEMU refused a command and said why; nothing else is broken
  QmpLostError      the connection is gone: the outcome is unknown, ask again
"""

from __future__ import annotations

__all__ = ["QemuError", "QmpCommandError", "QmpLostError"]


class QemuError(Exception):
    """Any failure of talking to QEMU."""


class QmpCommandError(QemuError):
    """QEMU's own refusal of a command."""


class QmpLostError(QemuError):
    """The connection ended before the answer came."""
