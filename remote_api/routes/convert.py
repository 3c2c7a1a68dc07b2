"""Between the domain's types and the wire's: the one place that knows both.

Most shapes agree field by field; a unit test holds them together. Where they don't (pages, the
host, problems), a function of its own stands here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from remote_api.failures import ApiError
from remote_api.routes.decode import convert
from remote_api.schema import (
    PROBLEM_TYPE_PREFIX,
    FieldError,
    Host,
    HostStatus,
    Operation,
    OperationPage,
    ProblemCode,
)
from vmkernel.control import model, requests

__all__ = [
    "from_wire",
    "host_to_wire",
    "in_utc",
    "operation_page_to_wire",
    "operation_to_wire",
    "problem_to_error",
    "to_wire",
]

WireT = TypeVar("WireT")
ModelT = TypeVar("ModelT")


def to_wire(value: Any, wire: type[WireT], **changes: Any) -> WireT:
    """A domain object as the wire type whose fields agree with its own, but for `changes`."""
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    fields.pop("more", None)
    return msgspec.convert(msgspec.to_builtins(fields | changes), wire)


def from_wire(value: msgspec.Struct, domain: type[ModelT], *, at: str = "/spec") -> ModelT:
    """A wire object, which is at this pointer in the body, as the domain type that agrees with it.

    Raises ApiError (422) where the domain refuses a value that the wire lets through.
    """
    return convert(msgspec.to_builtins(value), domain, at=at)


def in_utc(moment: str, pointer: str) -> str:
    """A SentTimestamp as a Timestamp. Raises ApiError (422) for a day or an hour that isn't."""
    try:
        when = datetime.fromisoformat(moment.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ApiError.field(pointer, "There is no such point in time.") from error
    return when.isoformat().replace("+00:00", "Z")


def host_to_wire(value: model.HostInfo) -> Host:
    """The host; all of it is observed, so far."""
    return Host(status=to_wire(value, HostStatus))


def operation_to_wire(value: model.Operation) -> Operation:
    """An operation; its error becomes a problem's type, title and fields."""
    return to_wire(value, Operation, error=_operation_error(value.error))


def operation_page_to_wire(value: requests.OperationPage, next_page: str | None) -> OperationPage:
    """A page of operations."""
    return OperationPage(
        items=tuple(operation_to_wire(item) for item in value.items), next=next_page
    )


def problem_to_error(problem: model.Problem) -> ApiError:
    """What the vmkernel answered, as this side raises it."""
    return ApiError(
        ProblemCode(problem.code.value),
        problem.detail,
        errors=tuple(FieldError(pointer=f.pointer, detail=f.detail) for f in problem.fields),
        retry_after_s=problem.retry_after_s,
    )


def _operation_error(problem: model.Problem | None) -> dict[str, Any] | None:
    if problem is None:
        return None
    code = ProblemCode(problem.code.value)
    return {
        "type": PROBLEM_TYPE_PREFIX + code,
        "title": code.headline,
        "detail": problem.detail,
        "errors": problem.fields,
    }
