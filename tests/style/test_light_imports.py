"""A pure module is cheap to import: no service comes with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.style.sources import REPOSITORY

_SHOW = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*(name for name in sys.modules if name.partition(".")[0] in {"vmkernel", "remote_api"}))
"""


@pytest.mark.parametrize(
    ("module", "most"),
    [
        ("vmkernel.model", 3),
        ("vmkernel.storage.records", 8),
        ("vmkernel.storage.formats.qcow2", 10),
        ("vmkernel.storage.formats.registry", 30),
        ("vmkernel.storage.layout", 20),
        ("vmkernel.storage.datastores.lease", 20),
        ("vmkernel.storage.ports", 32),
        ("vmkernel.storage.drivers.base", 28),
        ("vmkernel.storage.drivers.raid_status", 32),
        ("vmkernel.vm.states", 5),
    ],
)
def test_a_pure_module_loads_few_of_ours(module: str, most: int) -> None:
    """Of ours, besides the model; a tenth of what a service loads, with some room to grow."""
    found = subprocess.run(
        [sys.executable, "-c", _SHOW, module],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    assert module in found
    loaded = [name for name in found if not name.startswith("vmkernel.model.")]
    assert len(loaded) <= most, loaded
    services = [name for name in loaded if name.endswith((".service", ".assembly", ".wiring"))]
    assert services == []
