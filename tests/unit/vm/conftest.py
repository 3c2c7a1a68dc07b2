"""Fixtures of the VM side's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.framework.own_time import own_time


@pytest.fixture
def update_golden() -> bool:
    """True where golden data are to be written instead of compared (MICA_UPDATE_GOLDEN=1)."""
    return os.environ.get("MICA_UPDATE_GOLDEN") == "1"


@pytest.fixture(autouse=True)
def time_of_its_own() -> Iterator[None]:
    """No test of VMs waits for real time, or depends on how much of it passes."""
    with own_time():
        yield
