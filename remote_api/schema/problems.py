"""Failures on the wire: RFC 9457 problem details with stable types.

ApiError
  a failure that this side finds by itself; vmkernel.model.MicaError is what the vmkernel answers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from vmkernel.model import PROBLEM_TYPE_PATTERN, ErrorCode, FieldCode, FieldError, Record

__all__ = ["ApiError", "HttpCode", "PROBLEM_CODES", "Problem", "ProblemCode", "status_of"]

_MAX_TOLD = 5
"""How many failures the sentence of a problem repeats; `errors` has them all."""


class HttpCode(StrEnum):
    """What HTTP alone can fail in: the rest of the closed set of problems, after ErrorCode."""

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
    def headline(self) -> str:
        """The short name of the kind of problem, always the same."""
        return _HEADLINES[self]


ProblemCode = ErrorCode | HttpCode
"""The closed set of problems; `type` is the prefix and one of these."""
PROBLEM_CODES: tuple[ProblemCode, ...] = (*ErrorCode, *HttpCode)


def status_of(code: ProblemCode) -> int:
    """The HTTP status that goes with a problem."""
    return _STATUS[code]


_STATUS: dict[ProblemCode, int] = {
    ErrorCode.INVALID: 422,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.ALREADY_EXISTS: 409,
    ErrorCode.REVISION_MISMATCH: 412,
    ErrorCode.CONFLICT: 409,
    ErrorCode.ALREADY_IN_STATE: 409,
    ErrorCode.IN_USE: 409,
    # Not 507: the host is well, and the request may be repeated once there is room.
    ErrorCode.INSUFFICIENT_SPACE: 409,
    ErrorCode.INSUFFICIENT_RESOURCES: 409,
    ErrorCode.WIPE_NOT_CONFIRMED: 409,
    ErrorCode.DIGEST_MISMATCH: 422,
    ErrorCode.TRUNCATED: 400,
    ErrorCode.GONE: 410,
    ErrorCode.INTERRUPTED: 503,
    ErrorCode.UNSUPPORTED: 422,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.TIMED_OUT: 504,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
    HttpCode.MALFORMED: 400,
    HttpCode.METHOD_NOT_ALLOWED: 405,
    HttpCode.NOT_ACCEPTABLE: 406,
    HttpCode.REQUEST_TIMEOUT: 408,
    HttpCode.LENGTH_REQUIRED: 411,
    HttpCode.TOO_LARGE: 413,
    HttpCode.UNSUPPORTED_MEDIA_TYPE: 415,
    HttpCode.UPGRADE_REQUIRED: 426,
    HttpCode.PRECONDITION_REQUIRED: 428,
    HttpCode.HEAD_TOO_LARGE: 431,
    HttpCode.RANGE_NOT_SATISFIABLE: 416,
    HttpCode.PROTOCOL_VERSION: 412,
    # As tus 1.0 says; it is no registered status.
    HttpCode.CHECKSUM_MISMATCH: 460,
    HttpCode.CANCELLED: 409,
}

_HEADLINES = {
    HttpCode.MALFORMED: "The request can't be read",
    HttpCode.METHOD_NOT_ALLOWED: "Method not allowed",
    HttpCode.NOT_ACCEPTABLE: "No acceptable representation",
    HttpCode.REQUEST_TIMEOUT: "The request's body came too slowly",
    HttpCode.LENGTH_REQUIRED: "The request needs a Content-Length",
    HttpCode.TOO_LARGE: "The request is too large",
    HttpCode.UNSUPPORTED_MEDIA_TYPE: "Unsupported media type",
    HttpCode.UPGRADE_REQUIRED: "WebSocket required",
    HttpCode.HEAD_TOO_LARGE: "The request's header fields are too large",
    HttpCode.PRECONDITION_REQUIRED: "If-Match or If-None-Match is needed",
    HttpCode.RANGE_NOT_SATISFIABLE: "Range beyond the end",
    HttpCode.PROTOCOL_VERSION: "Unsupported protocol version",
    HttpCode.CHECKSUM_MISMATCH: "Checksum mismatch",
    HttpCode.CANCELLED: "The operation was cancelled",
}


class Problem(Record, frozen=True, kw_only=True):
    """A failure (RFC 9457), as `application/problem+json`."""

    type: Annotated[
        str,
        Meta(
            description="A path of the host that explains this kind of problem; stable.",
            pattern=PROBLEM_TYPE_PATTERN,
            examples=["/v1/problems/not-found"],
        ),
    ]
    code: Annotated[str, Meta(pattern=r"^[a-z-]+$(?!\n)", examples=["not-found"])]
    """The last part of `type`, for programs."""
    title: str
    """The kind of problem, in words."""
    status: Annotated[int, Meta(ge=400, le=599)]
    """The HTTP status."""
    detail: str
    """One sentence: the object and what to do."""
    instance: str
    """The ID of this request in the host's log."""
    errors: tuple[FieldError, ...] = ()
    """The invalid fields."""
    operation: str | None = None
    """The operation that failed, if the request had begun one; `Location` is its path."""


class ApiError(Exception):
    """A failed request: carries the content of its problem document."""

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
        self.status = status_of(code) if status is None else status
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
        return cls(ErrorCode.INVALID, " ".join(told), errors=tuple(errors))

    @classmethod
    def field(cls, pointer: str, detail: str, code: ProblemCode = ErrorCode.INVALID) -> ApiError:
        """An error about one field, parameter or header."""
        return cls(
            code,
            f"{pointer or 'The body'}: {detail}",
            errors=(FieldError(pointer=pointer, detail=detail, code=FieldCode.of(code)),),
        )
