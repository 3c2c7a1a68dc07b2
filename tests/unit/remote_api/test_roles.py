"""A route asks for the role that the vmkernel asks for, so that both refuse the same callers."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import pytest

from remote_api.http.routing import AnyRoute
from remote_api.resources.table import all_routes
from vmkernel.control import requests
from vmkernel.control.requests import Request
from vmkernel.model import Role

BY_NAME = {kind.__name__: kind for kind in requests.REQUESTS}
RANKS = (None, Role.VIEWER, Role.OPERATOR, Role.ADMIN)


def requests_of(handler: object, seen: set[int] | None = None) -> Iterator[type[Request[Any]]]:
    """The requests that a handler can send: those that it names, itself or by the functions of the
    resources that it calls."""
    seen = set() if seen is None else seen
    if isinstance(handler, type) and issubclass(handler, Request):
        yield handler
        return
    if id(handler) in seen or not isinstance(handler, FunctionType):
        return
    seen.add(id(handler))
    for cell in handler.__closure__ or ():
        yield from requests_of(cell.cell_contents, seen)
    if not handler.__module__.startswith("remote_api.resources."):
        return
    for name in _names(handler.__code__):
        if name in BY_NAME:
            yield BY_NAME[name]
        else:
            yield from requests_of(handler.__globals__.get(name), seen)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def needed(route: AnyRoute) -> tuple[Role | None, frozenset[str]]:
    """The strictest role of what it sends, and what that is."""
    kinds = set(requests_of(route.handler))
    role = max((kind.ROLE for kind in kinds), key=RANKS.index, default=None)
    return role, frozenset(kind.__name__ for kind in kinds)


REASONS = {
    "getApi": "Without a token it answers less; with one, the vmkernel says whose that is.",
}
"""Why a route's role is another than that of its requests."""


@pytest.mark.parametrize("route", all_routes(), ids=lambda route: route.name)
def test_a_route_needs_the_role_of_what_it_asks_for(route: AnyRoute) -> None:
    role, kinds = needed(route)
    if route.name in REASONS:
        assert role != route.role, f"{route.name} needs no reason any more"
    else:
        assert role == route.role, sorted(kinds)
