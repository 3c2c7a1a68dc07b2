"""Failures on the wire: RFC 9457 problem details with stable types.

ApiError
  a failure that this side finds by itself; vmkernel.model.MicaError is what the vmkernel answers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from vmkernel.model import ErrorCode, FieldError, Record

__all__ = ["ApiError", "Problem", "ProblemCode"]

_MAX_TOLD = 5
"""How many failures the sentence of a problem repeats; `errors` has them all."""


class ProblemCode(StrEnum):
    """The closed set of problems; `type` is the prefix and one of these."""

    # What the hypervisor answers.
    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    ALREADY_EXISTS = "already-exists"
    REVISION_MISMATCH = "revision-mismatch"
    CONFLICT = "conflict"
    ALREADY_IN_STATE = "already-in-state"
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
    # What the HTTP side answers by itself.
    MALFORMED = "malformed"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    NOT_ACCEPTABLE = "not-acceptable"
    REQUEST_TIMEOUT = "request-timeout"
    LENGTH_REQUIRED = "length-required"
    TOO_LARGE = "too-large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    UPGRADE_REQUIRED = "upgrade-required"
    HEAD_TOO_LARGE = "head-too-large"
    PRECONDITION_REQUIRED = "precondition-required"
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable"
    PROTOCOL_VERSION = "protocol-version"
    CHECKSUM_MISMATCH = "checksum-mismatch"
    CANCELLED = "cancelled"

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return _STATUS[self]

    @property
    def headline(self) -> str:
        """The short name of the kind of problem, always the same."""
        return _TITLES.get(self) or ErrorCode(self.value).headline


_STATUS = {
    ProblemCode.INVALID: 422,
    ProblemCode.UNAUTHENTICATED: 401,
    ProblemCode.FORBIDDEN: 403,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.ALREADY_EXISTS: 409,
    ProblemCode.REVISION_MISMATCH: 412,
    ProblemCode.CONFLICT: 409,
    ProblemCode.ALREADY_IN_STATE: 409,
    ProblemCode.IN_USE: 409,
    # Not 507: the host is well, and the request may be repeated once there is room.
    ProblemCode.INSUFFICIENT_SPACE: 409,
    ProblemCode.INSUFFICIENT_RESOURCES: 409,
    ProblemCode.WIPE_NOT_CONFIRMED: 409,
    ProblemCode.DIGEST_MISMATCH: 422,
    ProblemCode.TRUNCATED: 400,
    ProblemCode.UNSUPPORTED: 422,
    ProblemCode.RATE_LIMITED: 429,
    ProblemCode.TIMED_OUT: 504,
    ProblemCode.UNAVAILABLE: 503,
    ProblemCode.INTERNAL: 500,
    ProblemCode.MALFORMED: 400,
    ProblemCode.METHOD_NOT_ALLOWED: 405,
    ProblemCode.NOT_ACCEPTABLE: 406,
    ProblemCode.REQUEST_TIMEOUT: 408,
    ProblemCode.LENGTH_REQUIRED: 411,
    ProblemCode.TOO_LARGE: 413,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ProblemCode.UPGRADE_REQUIRED: 426,
    ProblemCode.PRECONDITION_REQUIRED: 428,
    ProblemCode.HEAD_TOO_LARGE: 431,
    ProblemCode.RANGE_NOT_SATISFIABLE: 416,
    ProblemCode.PROTOCOL_VERSION: 412,
    # As tus 1.0 says; it is no registered status.
    ProblemCode.CHECKSUM_MISMATCH: 460,
    ProblemCode.CANCELLED: 409,
}

_TITLES = {
    ProblemCode.MALFORMED: "The request can't be read",
    ProblemCode.METHOD_NOT_ALLOWED: "The resource doesn't know this method",
    ProblemCode.NOT_ACCEPTABLE: "No representation that the client accepts",
    ProblemCode.REQUEST_TIMEOUT: "The request's body came too slowly",
    ProblemCode.LENGTH_REQUIRED: "The request needs a Content-Length",
    ProblemCode.TOO_LARGE: "The request is too large",
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: "The body's media type is not taken",
    ProblemCode.UPGRADE_REQUIRED: "The resource speaks WebSocket",
    ProblemCode.HEAD_TOO_LARGE: "The request's header fields are too large",
    ProblemCode.PRECONDITION_REQUIRED: "If-Match or If-None-Match is needed",
    ProblemCode.RANGE_NOT_SATISFIABLE: "The range lies behind the end",
    ProblemCode.PROTOCOL_VERSION: "The host speaks another version of the protocol",
    ProblemCode.CHECKSUM_MISMATCH: "The part has another checksum than announced",
    ProblemCode.CANCELLED: "The operation was cancelled",
}


class Problem(Record, frozen=True, kw_only=True):
    """A failure (RFC 9457), as `application/problem+json`."""

    type: Annotated[
        str,
        Meta(
            description="Stable; what programs look at.",
            pattern=r"^urn:mica:problem:[a-z-]+$(?!\n)",
            examples=["urn:mica:problem:not-found"],
        ),
    ]
    title: str
    """The kind of problem in words."""
    status: Annotated[int, Meta(ge=400, le=599)]
    """The HTTP status."""
    detail: str
    """One sentence: the object and what to do."""
    instance: str
    """This request, as the host's log names it."""
    errors: tuple[FieldError, ...] = ()
    """The fields at fault."""
    operation: str | None = None
    """The operation that failed, if the request had begun one; `Location` is its path."""


class ApiError(Exception):
    """A failed request: carries what its problem document says."""

    def __init__(
        self,
        code: ProblemCode,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        status: int | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.status = code.status if status is None else status
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        self.operation: str | None = None
        """The operation that failed, if the request had begun one."""

    @classmethod
    def fields(cls, errors: Sequence[FieldError]) -> ApiError:
        """An error about several fields, parameters or headers."""
        told = [f"{each.pointer or 'The body'}: {each.detail}" for each in errors[:_MAX_TOLD]]
        if len(errors) > _MAX_TOLD:
            told.append(f"And {len(errors) - _MAX_TOLD} more, see `errors`.")
        return cls(ProblemCode.INVALID, " ".join(told), errors=tuple(errors))

    @classmethod
    def field(cls, pointer: str, detail: str, code: ProblemCode = ProblemCode.INVALID) -> ApiError:
        """An error about one field, parameter or header."""
        return cls(
            code,
            f"{pointer or 'The body'}: {detail}",
            errors=(FieldError(pointer=pointer, detail=detail),),
        )
