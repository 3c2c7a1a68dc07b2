"""The vmkernel's README draws the tree as it is, and the places of what comes next as they will be;
every source file that a README names with its folder is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.style.readme_paths import VMKERNEL, exists, map_of, places_to_come, source_paths
from tests.style.sources import REPOSITORY, modules, tracked_files

README = VMKERNEL / "README.md"


def _tree() -> set[str]:
    """Every package of the vmkernel, and the modules that are in none."""
    found: set[str] = set()
    for module in modules():
        path = module.path
        if not path.is_relative_to(VMKERNEL):
            continue
        folder = path.parent.relative_to(VMKERNEL)
        if folder != Path():
            found.add(f"{folder}/")
        elif path.name != "__init__.py":
            found.add(path.name)
    return found


def test_the_map_is_the_tree() -> None:
    drawn, there = map_of(README.read_text()), _tree()
    assert sorted(drawn - there) == [], f"{README.name} draws what isn't there"
    assert sorted(there - drawn) == [], f"the map in vmkernel/{README.name} lacks these"


def test_what_is_to_come_is_not_there_yet() -> None:
    places = places_to_come(README.read_text())
    assert places
    there = sorted(place for place in places if (REPOSITORY / place).exists())
    assert there == [], "these exist now: move them from the places of what comes next to the map"


@pytest.mark.parametrize(
    "readme",
    [path for path in tracked_files() if path.suffix == ".md"],
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_source_files_that_are_named_are_there(readme: Path) -> None:
    named = source_paths(readme.read_text())
    assert sorted(name for name in named if not exists(name, readme)) == []


MAP = """
| folder | what it owns |
|---|---|
| `a/`, `b/` | things (`inner/`, `inner/most/`), as `in_it.py` says |
| `c.py` | one thing |

| place | what goes there | may import | who calls it |
|---|---|---|---|
| `vmkernel/d/` | later | `a/` | `b/` |

Text with `a/gone.py`, `plain.py` and `vms/<id>/nvram.fd`.
"""


def test_how_a_readme_is_read() -> None:
    assert map_of(MAP) == {"a/", "b/", "a/inner/", "a/inner/most/", "c.py"}
    assert places_to_come(MAP) == {"vmkernel/d/"}
    assert source_paths(MAP) == {"a/gone.py"}
    assert not exists("a/gone.py", README)
    assert exists("storage/ports.py", README)
