"""One host for all tests of a module that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica, hosted_mica
from vmkernel.model import DatastoreKind, DatastoreSpec


@pytest.fixture(scope="module")
def short_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for Unix sockets in it."""
    return tmp_path_factory.mktemp("h")


@pytest.fixture(scope="module")
def host(short_folder: Path) -> Iterator[HostedMica]:
    """A claimed host with the datastore `main`."""
    with hosted_mica(short_folder, "--pull-from-loopback") as host:
        with host.client() as mica:
            spec = DatastoreSpec(
                kind=DatastoreKind.DIRECTORY, path=str(host.datastore_folder("main"))
            )
            mica.wait(mica.create_datastore("main", spec))
        yield host


@pytest.fixture
def mica(host: HostedMica) -> Iterator[Mica]:
    """The administrator's client of the host."""
    with host.client() as client:
        yield client


@pytest.fixture(scope="module")
def raw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that holds the module's DATA."""
    path = tmp_path_factory.mktemp("raw") / "disk.raw"
    path.write_bytes(request.module.DATA)
    return path


@pytest.fixture
def no_images_left(host: HostedMica, mica: Mica) -> Iterator[None]:
    """Take away the images and volumes that a test has made; nothing else of them may be left."""
    yield
    for image in list(mica.images()):
        mica.delete_image(image.id)
    for volume in list(mica.volumes()):
        mica.delete_volume(volume.id)
    main = host.folder / "datastores/main"
    assert [
        p.name for name in (".incoming", "uploads", "images") for p in (main / name).iterdir()
    ] == []
