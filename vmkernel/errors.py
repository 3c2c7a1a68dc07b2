"""Unexpected exceptions: the log gets the traceback, the asker an incident number to name."""

from __future__ import annotations

import logging
import secrets

from vmkernel.model import ErrorCode, ErrorInfo, MicaError

__all__ = ["to_problem"]

_log = logging.getLogger(__name__)


def to_problem(error: BaseException, where: str) -> ErrorInfo:
    """The problem for an exception; an unexpected one becomes an incident."""
    if isinstance(error, MicaError):
        return error.problem
    incident = secrets.token_hex(6)
    _log.error("incident %s in %s", incident, where, exc_info=error)
    return ErrorInfo(
        code=ErrorCode.INTERNAL,
        detail="Internal error of the vmkernel; its log has the details under incident "
        f"{incident}.",
    )
