"""All routes of the API in one table: whatever the modules of this package list in ROUTES.

If a module begins a group of the document, its `TAGS` has the group's name and what it holds.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

from remote_api import resources
from remote_api.auth import TicketBox
from remote_api.http.application import Application
from remote_api.http.exchange import ApiState
from remote_api.http.routing import AnyRoute, Registry
from vmkernel.control import ControlClient

__all__ = ["OPENAPI_PATH", "all_routes", "all_tags", "make_application", "tag_of"]

OPENAPI_PATH = Path(__file__).parent.parent / "openapi.json"


@cache
def all_routes() -> tuple[AnyRoute, ...]:
    """Every route, in the order of the OpenAPI document: by module."""
    return tuple(route for module in _modules() for route in getattr(module, "ROUTES", ()))


@cache
def all_tags() -> Mapping[str, str]:
    """The groups of the document with their descriptions."""
    tags: dict[str, str] = {}
    for module in _modules():
        for name, text in getattr(module, "TAGS", {}).items():
            if name in tags:
                raise ValueError(f"{module.__name__}: another module has the tag {name}")
            tags[name] = text
    return tags


def tag_of(route: AnyRoute) -> str:
    """The group of a route in the document."""
    tag = route.tag or route.path.removeprefix("/v1/").partition("/")[0]
    if tag not in all_tags():
        raise ValueError(f"{route.path}: name its tag, or what {tag} holds in TAGS of its module")
    return tag


def make_application(control: ControlClient) -> Application:
    """The API on a way to the vmkernel."""
    state = ApiState(control=control, tickets=TicketBox(), openapi=OPENAPI_PATH)
    return Application(Registry(all_routes()), state)


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(resources.__path__, f"{resources.__name__}."):
        if found.name != __name__:
            yield importlib.import_module(found.name)
