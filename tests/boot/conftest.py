"""What the boot tests share: their folder, the guest, the order of the modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.idle_stick import IdleStick
from tests.framework import inputs
from tests.framework.guest import GuestFiles, guest_files
from tests.framework.installer import Installer, installer

HERE = Path(__file__).parent
FIRST, LAST = "test_uefi_stick", "test_idle_stick"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its time, and begin with what shows most, end with what waited longest."""

    def rank(item: pytest.Item) -> int:
        return {FIRST: 0, LAST: 2}.get(item.path.stem, 1)

    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(420))
    places = [number for number, item in enumerate(items) if item.path.is_relative_to(HERE)]
    for place, item in zip(places, sorted(ours, key=rank), strict=True):
        items[place] = item


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before any machine is started: is the image that of this checkout?"""
    try:
        inputs.stick_image()
    except inputs.MissingInputError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def guest() -> GuestFiles:
    """The tiny guest in all its forms."""
    return guest_files()


@pytest.fixture(scope="session")
def debian_installer() -> Installer:
    """Debian's installer."""
    return installer()


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    """Where the module's disks and logs lie; they are kept for looking at."""
    path = inputs.work_folder("boot") / Path(str(request.path)).stem
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def idle_stick() -> Iterator[IdleStick]:
    """A machine that does nothing while the other tests run (see idle_stick.py)."""
    stick = IdleStick(inputs.work_folder("boot") / "idle")
    try:
        yield stick
    finally:
        stick.end()
