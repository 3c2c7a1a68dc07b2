"""Fixtures of the VM side's tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def update_golden() -> bool:
    """True where golden data are to be written instead of compared (MICA_UPDATE_GOLDEN=1)."""
    return os.environ.get("MICA_UPDATE_GOLDEN") == "1"
