"""Failures on their way out: what a handler raises, and the problem document that is sent.

ApiError
  a failure that the HTTP side finds by itself; MicaError is what the vmkernel answers
"""

from __future__ import annotations

from collections.abc import Mapping

from remote_api.schema import PROBLEM_TYPE_PREFIX, FieldError, Problem, ProblemCode

__all__ = ["ApiError", "problem_document"]


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

    @classmethod
    def field(cls, pointer: str, detail: str, code: ProblemCode = ProblemCode.INVALID) -> ApiError:
        """An error about one field, parameter or header."""
        return cls(
            code,
            f"{pointer or 'The body'}: {detail}",
            errors=(FieldError(pointer=pointer, detail=detail),),
        )


def problem_document(error: ApiError, request_id: str) -> Problem:
    """The RFC 9457 document of a failure."""
    return Problem(
        type=PROBLEM_TYPE_PREFIX + error.code,
        title=error.code.headline,
        status=error.status,
        detail=error.detail,
        instance=f"urn:mica:request:{request_id}",
        errors=error.errors,
    )
