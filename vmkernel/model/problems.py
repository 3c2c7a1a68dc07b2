"""Typed failures: what went wrong, in which field, and what to do.

MicaError
  every failure that a request can end in; carries one ErrorInfo
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record
from vmkernel.text import clean_lines

__all__ = [
    "ErrorCode",
    "ErrorInfo",
    "FieldCode",
    "FieldError",
    "MicaError",
    "OperationError",
    "PROBLEM_TYPES",
    "PROBLEM_TYPE_PATTERN",
]

PROBLEM_TYPES = "/v1/problems/"
"""What a problem's `type` begins with: a path of the host, which explains the problem there
(RFC 9457 section 3.1.1 allows relative references that begin with `/`)."""
PROBLEM_TYPE_PATTERN = rf"^{PROBLEM_TYPES}[a-z-]+$(?!\n)"


class ErrorCode(OpenEnum):
    """The closed set of failures; each is the last part of an RFC 9457 problem type."""

    INVALID = "invalid"
    """A field has a value that can't be used."""
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    ALREADY_EXISTS = "already-exists"
    REVISION_MISMATCH = "revision-mismatch"
    CONFLICT = "conflict"
    """The object's state doesn't allow the request."""
    ALREADY_IN_STATE = "already-in-state"
    """The object is already in the state that the action leads to, or on its way to it."""
    IN_USE = "in-use"
    INSUFFICIENT_SPACE = "insufficient-space"
    INSUFFICIENT_RESOURCES = "insufficient-resources"
    WIPE_NOT_CONFIRMED = "wipe-not-confirmed"
    DIGEST_MISMATCH = "digest-mismatch"
    TRUNCATED = "truncated"
    GONE = "gone"
    """What was asked for is no longer kept; begin again from the present."""
    INTERRUPTED = "interrupted"
    """The host's management service ended while it was done; its outcome is unknown."""
    UNSUPPORTED = "unsupported"
    RATE_LIMITED = "rate-limited"
    TIMED_OUT = "timed-out"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"

    @property
    def headline(self) -> str:
        """The short title of this kind of failure, always the same."""
        return _HEADLINES[self]


_HEADLINES = {
    ErrorCode.INVALID: "A value can't be used",
    ErrorCode.UNAUTHENTICATED: "No valid token",
    ErrorCode.FORBIDDEN: "The token's role doesn't allow it",
    ErrorCode.NOT_FOUND: "No such object",
    ErrorCode.ALREADY_EXISTS: "The object exists already",
    ErrorCode.REVISION_MISMATCH: "The object was changed meanwhile",
    ErrorCode.CONFLICT: "The object's state doesn't allow it now",
    ErrorCode.ALREADY_IN_STATE: "The object is in that state already",
    ErrorCode.IN_USE: "The object is in use",
    ErrorCode.INSUFFICIENT_SPACE: "Not enough free space",
    ErrorCode.INSUFFICIENT_RESOURCES: "Not enough CPU or memory",
    ErrorCode.WIPE_NOT_CONFIRMED: "Wiping the disk was not confirmed",
    ErrorCode.DIGEST_MISMATCH: "Digest mismatch",
    ErrorCode.TRUNCATED: "The data ended too early",
    ErrorCode.GONE: "No longer kept",
    ErrorCode.INTERRUPTED: "The host's service ended meanwhile",
    ErrorCode.UNSUPPORTED: "This host doesn't support it",
    ErrorCode.RATE_LIMITED: "Too many attempts",
    ErrorCode.TIMED_OUT: "It took too long; the outcome is unknown",
    ErrorCode.UNAVAILABLE: "The hypervisor is not available now",
    ErrorCode.INTERNAL: "Internal error",
}


class FieldCode(OpenEnum):
    """What kind of fault a field has; programs choose their own words by it."""

    INVALID = "invalid"
    """Any other fault; `detail` says which."""
    REQUIRED = "required"
    UNKNOWN = "unknown"
    """There is no such field or parameter. `known` or `similar` may name some."""
    WRONG_TYPE = "wrong-type"
    """`expected` and `found` are JSON types."""
    NOT_ALLOWED = "not-allowed"
    """None of the `allowed` values."""
    TOO_SMALL = "too-small"
    """Less than `limit`."""
    TOO_LARGE = "too-large"
    """More than `limit`."""
    TOO_SHORT = "too-short"
    """Fewer characters, items or members than `limit`."""
    TOO_LONG = "too-long"
    """More characters, items or members than `limit`."""
    NOT_A_MULTIPLE = "not-a-multiple"
    """Not a multiple of `limit`."""
    WRONG_FORM = "wrong-form"
    """Text whose characters or form can't be used."""
    DUPLICATE = "duplicate"
    READ_ONLY = "read-only"
    ALREADY_EXISTS = "already-exists"
    CONFLICT = "conflict"
    """The object's state doesn't allow this value now."""
    IN_USE = "in-use"
    UNSUPPORTED = "unsupported"
    DIGEST_MISMATCH = "digest-mismatch"
    WIPE_NOT_CONFIRMED = "wipe-not-confirmed"
    INSUFFICIENT_RESOURCES = "insufficient-resources"

    @classmethod
    def of(cls, code: str) -> FieldCode:
        """The kind of a field's fault from that of the whole failure."""
        return cls(code) if code in cls._value2member_map_ else cls.INVALID


class FieldError(Record, frozen=True, kw_only=True):
    """What is wrong with one field of the request."""

    pointer: Annotated[str, msgspec.Meta(examples=["/spec/cpus/count"])]
    """A JSON pointer (RFC 6901) into the body; a parameter's or header's name."""
    detail: str
    code: FieldCode = FieldCode.INVALID
    parameters: dict[str, str | int | float] = {}
    """The values that `detail` mentions, such as `limit`; which ones, `code` says."""


class ErrorInfo(Record, frozen=True, kw_only=True):
    """A failure as it is sent."""

    code: ErrorCode
    detail: str
    """One short sentence that names the object and what to do."""
    fields: tuple[FieldError, ...] = ()
    retry_after_s: int | None = None


class OperationError(Record, frozen=True, kw_only=True):
    """Why an operation failed: a problem without a request."""

    type: Annotated[
        str,
        msgspec.Meta(description="As in a problem.", pattern=PROBLEM_TYPE_PATTERN),
    ]
    code: ErrorCode
    """The last part of `type`."""
    title: str
    detail: str
    errors: tuple[FieldError, ...] = ()

    @classmethod
    def of(cls, error: ErrorInfo) -> OperationError:
        """A failure as an operation shows it."""
        return cls(
            type=PROBLEM_TYPES + error.code,
            code=error.code,
            title=error.code.headline,
            detail=error.detail,
            errors=error.fields,
        )


class MicaError(Exception):
    """A failed request: carries its ErrorInfo."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        fields: tuple[FieldError, ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        detail = clean_lines(detail)  # it may quote what others wrote
        super().__init__(detail)
        self.problem = ErrorInfo(
            code=code, detail=detail, fields=fields, retry_after_s=retry_after_s
        )

    @classmethod
    def field(cls, pointer: str, detail: str, code: ErrorCode = ErrorCode.INVALID) -> MicaError:
        """An error about one field of the request, named by its JSON pointer."""
        wrong = FieldError(pointer=pointer, detail=detail, code=FieldCode.of(code))
        return cls(code, detail, fields=(wrong,))

    @classmethod
    def from_problem(cls, problem: ErrorInfo) -> MicaError:
        """The exception for a problem that came over a wire."""
        return cls(
            problem.code,
            problem.detail,
            fields=problem.fields,
            retry_after_s=problem.retry_after_s,
        )
