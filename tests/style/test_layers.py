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
        "aio clock dry_run jail service_manager text version",
        "model",
        "decoding errors",
        "devices events host",
        "auth host_devices network operations qemu state status_screen syslog workers",
        "platform resources storage webhooks",
        "fleet importers migration vm",
        "metrics",
        "control options",
        "adapters",
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

VM_LAYERS: Sequence[frozenset[str]] = tuple(
    frozenset(layer.split())
    for layer in (
        "guest launch open_streams ports spec states",
        "reservations store",
        "context",
        "datastore_use machine nonvolatile spec_review",
        "snapshots start",
        "driver",
        "hotplug inventory",
        "changes folders",
        "usage",
        "backup clone consoles lifecycle live_disks snapshot_service statistics",
        "power",
        "side",
        "assembly",
    )
)
"""The same inside vmkernel/vm: what is wanted of a VM and what it keeps in files; what is true of
one VM (`machine`), and the task that alone changes that (`driver`); all VMs (`inventory`); what
requests do with them."""

STORAGE_LAYERS: Sequence[frozenset[str]] = tuple(
    frozenset(layer.split())
    for layer in (
        "errors ports records",
        "formats layout patience usage",
        "catalogue drivers",
        "datastores disks",
        "volumes",
        "images vm_storage",
        "service",
    )
)
"""The same inside vmkernel/storage."""

LAYERS_OF: Mapping[str, Sequence[frozenset[str]]] = {
    "vmkernel": LAYERS,
    "vmkernel.storage": STORAGE_LAYERS,
    "vmkernel.vm": VM_LAYERS,
    "remote_api": API_LAYERS,
}


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


def packages_of(graph: Graph) -> set[str]:
    """The packages among the modules."""
    return {name.rpartition(".")[0] for name in graph if "." in name} & graph.keys()


def parts_of(graph: Graph, package: str) -> Graph:
    """Which part of a package, a module or a sub-package, imports which."""
    parts: dict[str, set[str]] = {}
    for module, needed in graph.items():
        if (part := _part(module, package)) is not None:
            others = parts.setdefault(part, set())
            others |= {other for name in needed if (other := _part(name, package)) is not None}
    return {part: frozenset(others - {part}) for part, others in parts.items()}


def climbs_of(
    graph: Graph, layers: Sequence[frozenset[str]], top: str = "vmkernel"
) -> Iterator[str]:
    """Imports of a package's modules that don't lead down."""
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
    return module[len(top) + 1 :].partition(".")[0] if module.startswith(f"{top}.") else None


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of({module.name: [name for _, name in module.imports()] for module in modules()})


def test_there_are_no_circles(graph: Graph) -> None:
    assert [sorted(circle) for circle in circles_of(graph)] == []


def test_there_are_no_circles_between_the_parts_of_any_package(graph: Graph) -> None:
    """Sub-packages count as a whole: what one imports of another is one arrow."""
    packages = packages_of(graph)
    assert {"vmkernel", "vmkernel.vm", "vmkernel.storage", "tests.unit"} <= packages
    found = [
        f"{package}: {', '.join(sorted(circle))}"
        for package in sorted(packages)
        for circle in circles_of(parts_of(graph, package))
    ]
    assert found == []


@pytest.mark.parametrize("package", LAYERS_OF)
def test_a_package_imports_down_its_layers(graph: Graph, package: str) -> None:
    assert list(climbs_of(graph, LAYERS_OF[package], package)) == []


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


@pytest.mark.parametrize("package", LAYERS_OF)
def test_every_layer_names_what_is_there(graph: Graph, package: str) -> None:
    there = set(parts_of(graph, package))
    if package == "vmkernel":
        coming = places_to_come((VMKERNEL / "README.md").read_text())
        there |= {place.split("/")[1] for place in coming if place.startswith("vmkernel/")}
    assert frozenset().union(*LAYERS_OF[package]) == there
    assert sum(map(len, LAYERS_OF[package])) == len(there)


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
    ("imports", "circles"),
    [
        ({"p": [], "p.a": [], "p.a.x": ["p.b.y"], "p.b": [], "p.b.y": []}, []),
        (
            {"p": [], "p.a": [], "p.a.x": ["p.b.y"], "p.b": [], "p.b.y": [], "p.b.z": ["p.a.w"]}
            | {"p.a.w": []},
            [{"a", "b"}],
        ),
        ({"p": [], "p.a": [], "p.a.x": ["p.a.y"], "p.a.y": ["p.a"]}, []),
        ({"p": [], "p.a": [], "p.a.x": ["p.b.Name"], "p.b": ["p.a.x"]}, [{"a", "b"}]),
    ],
)
def test_a_circle_between_parts_is_found(
    imports: dict[str, list[str]], circles: list[set[str]]
) -> None:
    assert circles_of(parts_of(graph_of(imports), "p")) == circles


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
