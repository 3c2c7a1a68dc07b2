"""Failures as responses: collecting the faults of a request, and the problem document."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from remote_api.schema import ApiError, Problem
from vmkernel.model import PROBLEM_TYPES, ErrorInfo

__all__ = ["Failures", "PROBLEM_TYPE", "api_error", "problem_document"]

PROBLEM_TYPE = "application/problem+json"


def api_error(error: ErrorInfo) -> ApiError:
    """What the vmkernel answered, as this side raises it."""
    return ApiError(
        error.code,
        error.detail,
        errors=error.fields,
        retry_after_s=error.retry_after_s,
    )


class Failures:
    """The faults of one request, collected to be reported together."""

    def __init__(self) -> None:
        self._found: list[ApiError] = []

    def __bool__(self) -> bool:
        """True if anything is wrong so far."""
        return bool(self._found)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Keep an ApiError of the block."""
        try:
            yield
        except ApiError as error:
            self._found.append(error)

    def end(self) -> None:
        """Raise ApiError if anything was wrong: of the first failure's kind, naming all."""
        if not self._found:
            return
        first, *others = self._found
        if not others:
            raise first
        raise ApiError(
            first.code,
            " ".join(error.detail for error in self._found),
            errors=tuple(each for error in self._found for each in error.errors),
            status=first.status,
            headers={name: each for error in self._found for name, each in error.headers.items()},
        )


def problem_document(error: ApiError, request_id: str) -> Problem:
    """The RFC 9457 document of a failure."""
    return Problem(
        type=PROBLEM_TYPES + error.code,
        code=error.code,
        title=error.code.headline,
        status=error.status,
        detail=error.detail,
        instance=f"urn:mica:request:{request_id}",
        errors=error.errors,
        operation=error.operation,
    )
