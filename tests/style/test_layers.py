"""Imports point one way: down the layers of a program, and round no circle in any package.

Every import counts, also those inside functions and below TYPE_CHECKING: a module that needs
another's types needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.style.readme_paths import VMKERNEL, places_to_come
from tests.style.sources import modules

Graph = Mapping[str, frozenset[str]]

LAYERS: Sequence[frozenset[str]] = tuple(
    frozenset(layer.split())
    for layer in (
        "aio clock jail service_manager text version",
        "model",
        "decoding errors",
        "devices events host",
        "auth host_devices network operations qemu state status_screen syslog workers",
        "platform resources storage",
        "fleet importers migration vm",
        "control options",
        "adapters metrics",
        "adapters_appliance adapters_hosted",
        "wiring",
        "__main__",
    )
)
"""From the lowest. A part imports lower layers, and parts of its own layer that don't import it.
What the README draws as places of what comes next has its layer already."""

API_LAYERS: Sequence[frozenset[str]] = tuple(
    frozenset(layer.split())
    for layer in (
        "schema",
        "auth client",
        "http",
        "resources",
        "document server",
        "__main__",
    )
)
"""The same of the remote API. Nothing on the server's side imports the client."""


def graph_of(imports: Mapping[str, Sequence[str]]) -> Graph:
    """Which module imports which; a name that is no module's counts for the module that has it."""
    found = {}
    for module, names in imports.items():
        needed = set()
        for name in names:
            while name and name not in imports:
                name = name.rpartition(".")[0]
            if name and name != module:
                needed.add(name)
        found[module] = frozenset(needed)
    return found


def circles_of(graph: Graph) -> list[set[str]]:
    """The groups of modules each of which reaches all others of its group (Tarjan, 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []
    for start in sorted(graph):
        if start in number:
            continue
        number[start] = low[start] = len(number)
        path.append(start)
        work = [(start, iter(sorted(graph[start])))]
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in number:
                    number[target] = low[target] = len(number)
                    path.append(target)
                    work.append((target, iter(sorted(graph[target]))))
                    break
                if target in path:
                    low[node] = min(low[node], number[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    place = path.index(node)
                    group, path[place:] = set(path[place:]), []
                    if len(group) > 1:
                        found.append(group)
    return found


def climbs_of(
    graph: Graph, layers: Sequence[frozenset[str]], top: str = "vmkernel"
) -> Iterator[str]:
    """Imports of a program's modules that don't lead down."""
    level = {part: place for place, layer in enumerate(layers) for part in layer}
    beside: dict[str, frozenset[str]] = {part: frozenset() for part in level}
    for module, needed in sorted(graph.items()):
        part = _part(module, top)
        if part is None:
            continue
        if part not in level:
            yield f"{module}: {part} is in no layer"
            continue
        for target in sorted(needed):
            other = _part(target, top)
            if other is None or other == part or other not in level:
                continue
            if level[other] > level[part]:
                yield f"{module} imports {target}, which is of a higher layer"
            elif level[other] == level[part]:
                beside[part] |= {other}
    for group in circles_of(beside):
        yield f"{', '.join(sorted(group))}: parts of one layer that import each other"


def _part(module: str, top: str = "vmkernel") -> str | None:
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == top and rest else None


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of({module.name: [name for _, name in module.imports()] for module in modules()})


def test_there_are_no_circles(graph: Graph) -> None:
    assert [sorted(circle) for circle in circles_of(graph)] == []


def test_the_vmkernel_imports_down_its_layers(graph: Graph) -> None:
    assert list(climbs_of(graph, LAYERS)) == []


def test_the_api_imports_down_its_layers(graph: Graph) -> None:
    assert list(climbs_of(graph, API_LAYERS, "remote_api")) == []


def test_the_api_is_a_server_and_a_client_that_know_nothing_of_each_other(graph: Graph) -> None:
    """They have the schema in common."""
    of_both = {"schema", "client"}
    found = [
        f"{module} imports {target}"
        for module, needed in sorted(graph.items())
        for target in sorted(needed)
        if (part := _part(module, "remote_api")) is not None
        and (other := _part(target, "remote_api")) is not None
        and ("client" in (part, other))
        and not {part, other} <= of_both
    ]
    assert found == []


def test_every_layer_of_the_api_names_what_is_there(graph: Graph) -> None:
    there = {part for module in graph if (part := _part(module, "remote_api")) is not None}
    assert frozenset().union(*API_LAYERS) == there
    assert sum(map(len, API_LAYERS)) == len(there)


def test_every_layer_names_what_is_there(graph: Graph) -> None:
    there = {part for module in graph if (part := _part(module)) is not None}
    coming = places_to_come((VMKERNEL / "README.md").read_text())
    there |= {place.split("/")[1] for place in coming if place.startswith("vmkernel/")}
    assert frozenset().union(*LAYERS) == there
    assert sum(map(len, LAYERS)) == len(there)


@pytest.mark.parametrize(
    ("module", "needs", "climbs"),
    [
        ("vmkernel.importers.ova", "vmkernel.vm.service", 0),
        ("vmkernel.importers.ova", "vmkernel.control.server", 1),
        ("vmkernel.migration.live", "vmkernel.storage.service", 0),
        ("vmkernel.migration.live", "vmkernel.wiring", 1),
        ("vmkernel.fleet.members", "vmkernel.migration.live", 0),
        ("vmkernel.fleet.members", "vmkernel.control.requests", 1),
        ("vmkernel.vm.service", "vmkernel.migration.live", 0),
        ("vmkernel.storage.service", "vmkernel.migration.live", 1),
        ("vmkernel.network.switches.bridge", "vmkernel.state.store", 0),
        ("vmkernel.network.switches.bridge", "vmkernel.vm.service", 1),
    ],
)
def test_what_comes_next_is_checked_from_its_first_module_on(
    module: str, needs: str, climbs: int
) -> None:
    graph = graph_of({module: [needs], needs: []})
    assert len(list(climbs_of(graph, LAYERS))) == climbs


@pytest.mark.parametrize(
    ("imports", "circles"),
    [
        ({"a": ["b"], "b": ["c"], "c": []}, []),
        ({"a": ["b"], "b": ["a"]}, [{"a", "b"}]),
        ({"a": ["b.Name"], "b": ["c.Name"], "c": ["a.Name", "d"], "d": []}, [{"a", "b", "c"}]),
        ({"a": ["a.Name"], "a.b": ["a.b.c"]}, []),
        ({"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c", "a"]}, [{"a", "b"}, {"c", "d"}]),
        ({"p": ["p.a.Name"], "p.a": ["p.b.Name"], "p.b": ["p.Name"]}, [{"p", "p.a", "p.b"}]),
    ],
)
def test_a_circle_is_found(imports: dict[str, list[str]], circles: list[set[str]]) -> None:
    assert circles_of(graph_of(imports)) == circles


@pytest.mark.parametrize(
    ("imports", "climbs"),
    [
        ({"vmkernel.high.a": ["vmkernel.low.b"], "vmkernel.low.b": []}, 0),
        ({"vmkernel.high.a": [], "vmkernel.low.b": ["vmkernel.high.a.Name"]}, 1),
        ({"vmkernel.low.a": ["vmkernel.base.b"], "vmkernel.base.b": []}, 0),
        ({"vmkernel.low.a": ["vmkernel.base.b"], "vmkernel.base.b": ["vmkernel.low.c"]}, 0),
        (
            {
                "vmkernel.low.a": ["vmkernel.base.b"],
                "vmkernel.base.b": [],
                "vmkernel.base.d": ["vmkernel.low.c"],
                "vmkernel.low.c": [],
            },
            1,
        ),
        ({"vmkernel.new.a": []}, 1),
    ],
)
def test_a_climb_is_found(imports: dict[str, list[str]], climbs: int) -> None:
    layers = (frozenset({"low", "base"}), frozenset({"high"}))
    assert len(list(climbs_of(graph_of(imports), layers))) == climbs
