"""Failures on their way out: what a handler raises, and the problem document that is sent.

ApiError
  a failure that the HTTP side finds by itself; MicaError is what the vmkernel answers
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from remote_api.schema import Problem, ProblemCode
from vmkernel.model import PROBLEM_TYPE_PREFIX, ErrorInfo, FieldError

__all__ = ["ApiError", "Failures", "api_error", "problem_document"]

_MAX_TOLD = 5
"""How many failures the sentence of a problem repeats; `errors` has them all."""


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


def api_error(error: ErrorInfo) -> ApiError:
    """What the vmkernel answered, as this side raises it."""
    return ApiError(
        ProblemCode(error.code.value),
        error.detail,
        errors=error.fields,
        retry_after_s=error.retry_after_s,
    )


class Failures:
    """What is wrong with one request, part by part, until it is said at once."""

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
        type=PROBLEM_TYPE_PREFIX + error.code,
        title=error.code.headline,
        status=error.status,
        detail=error.detail,
        instance=f"urn:mica:request:{request_id}",
        errors=error.errors,
        operation=error.operation,
    )
