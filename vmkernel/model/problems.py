"""Typed failures: what went wrong, in which field, and what to do.

MicaError
  every failure that a request can end in; carries one Problem
"""

from __future__ import annotations

from enum import StrEnum

from vmkernel.model.base import Record
from vmkernel.text import clean_lines

__all__ = ["ErrorCode", "FieldProblem", "MicaError", "Problem"]


class ErrorCode(StrEnum):
    """The closed set of failures; each is the last part of an RFC 9457 problem type."""

    INVALID = "invalid"
    """A field has a value that can't be used."""
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    ALREADY_EXISTS = "already-exists"
    REVISION_MISMATCH = "revision-mismatch"
    CONFLICT = "conflict"
    """The object's state doesn't allow it now."""
    ALREADY_IN_STATE = "already-in-state"
    """The object is as the action would make it, or is on its way there."""
    IN_USE = "in-use"
    INSUFFICIENT_SPACE = "insufficient-space"
    INSUFFICIENT_RESOURCES = "insufficient-resources"
    WIPE_NOT_CONFIRMED = "wipe-not-confirmed"
    DIGEST_MISMATCH = "digest-mismatch"
    TRUNCATED = "truncated"
    UNSUPPORTED = "unsupported"
    RATE_LIMITED = "rate-limited"
    TIMED_OUT = "timed-out"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class FieldProblem(Record, frozen=True, kw_only=True):
    """What is wrong with one field."""

    pointer: str
    """A JSON pointer (RFC 6901) into the request's body, or the name of a parameter."""
    detail: str


class Problem(Record, frozen=True, kw_only=True):
    """A failure as it travels."""

    code: ErrorCode
    detail: str
    """One short sentence that names the object and what to do."""
    fields: tuple[FieldProblem, ...] = ()
    retry_after_s: int | None = None


class MicaError(Exception):
    """A failed request: carries its Problem."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        fields: tuple[FieldProblem, ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        detail = clean_lines(detail)  # it may quote what others wrote
        super().__init__(detail)
        self.problem = Problem(code=code, detail=detail, fields=fields, retry_after_s=retry_after_s)

    @classmethod
    def field(cls, pointer: str, detail: str, code: ErrorCode = ErrorCode.INVALID) -> MicaError:
        """An error about one field of the request, named by its JSON pointer."""
        return cls(code, detail, fields=(FieldProblem(pointer=pointer, detail=detail),))

    @classmethod
    def from_problem(cls, problem: Problem) -> MicaError:
        """The exception for a problem that came over a wire."""
        return cls(
            problem.code,
            problem.detail,
            fields=problem.fields,
            retry_after_s=problem.retry_after_s,
        )
