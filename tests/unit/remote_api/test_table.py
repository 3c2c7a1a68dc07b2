"""The table of routes takes whatever the modules of resources list; nothing that they make is
left out."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from remote_api.http.routing import AnyRoute, Route
from remote_api.resources import table
from remote_api.resources.table import all_routes, all_tags, tag_of
from tests.style.sources import modules

MODULES = [module for module in modules() if module.name.startswith("remote_api.resources.")]


def made_in(module: ModuleType) -> list[AnyRoute]:
    """The routes that a module holds by any name."""
    held: list[Any] = []
    for value in vars(module).values():
        held += value if isinstance(value, tuple | list) else [value]
    return [route for route in held if isinstance(route, Route)]


@pytest.mark.parametrize("name", [module.name for module in MODULES])
def test_every_route_that_a_module_makes_is_in_the_table(name: str) -> None:
    module = importlib.import_module(name)
    served = {id(route) for route in all_routes()}
    assert [route.name for route in made_in(module) if id(route) not in served] == []


def test_every_module_that_makes_routes_lists_them() -> None:
    found = [
        module.name
        for module in MODULES
        if "Route(" in module.path.read_text()
        and not importlib.import_module(module.name).__dict__.get("ROUTES")
    ]
    assert found == []


def test_each_group_of_the_document_has_a_text() -> None:
    assert {tag_of(route) for route in all_routes()} == set(all_tags())


def test_a_route_of_an_unknown_group_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"/v1/affinity/\{id\}: .* TAGS of its module"):
        tag_of(replace(all_routes()[0], tag="", path="/v1/affinity/{id}"))


def test_a_forgotten_route_is_found() -> None:
    route = all_routes()[0]
    made = ModuleType("made")
    made.__dict__.update(FORGOTTEN=replace(route, name="forgotten"), ROUTES=(route,))
    assert [each.name for each in made_in(made)] == ["forgotten", route.name]
    assert table.__name__ in {module.name for module in MODULES}
