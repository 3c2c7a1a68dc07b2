"""The driver of single disks on made-up ones: what is wiped, what is adopted, what is a copy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.storage.disk_world import MadeUpChoice, disk
from vmkernel.host import disk_tools
from vmkernel.host.blkid import Signature
from vmkernel.model import DatastoreKind, DatastoreSpec, ErrorCode, MicaError
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers import local
from vmkernel.storage.drivers.base import CreateOptions
from vmkernel.storage.drivers.disk_selection import DATASTORE_TYPE, Found
from vmkernel.storage.drivers.local import LocalDriver
from vmkernel.storage.drivers.mounting import Mounting
from vmkernel.storage.errors import DatastoreMissing


def _driver(monkeypatch: pytest.MonkeyPatch, *holding: str) -> tuple[LocalDriver, MadeUpChoice]:
    """A blank disk BLANK, and disks that hold datastores."""
    choice = MadeUpChoice(disk("BLANK"), disk("FULL", partitioned=True))
    for name in holding:
        choice.made_up.all[name] = disk(name, partitioned=True)
        choice.typed[name] = DATASTORE_TYPE
    driver = LocalDriver(choice, Mounting(choice.runner, Path("/m")))

    async def probe(*_: object) -> Signature:
        return Signature(filesystem="xfs")

    async def nothing(*_: object, **__: object) -> None:
        pass

    async def opened(*_: object, **__: object) -> tuple[Path, str, str]:
        return Path("/m"), "m", "xfs"

    monkeypatch.setattr(local, "probe", probe)
    monkeypatch.setattr(disk_tools, "make_filesystem", nothing)
    monkeypatch.setattr(driver._mounting, "open_device", opened)
    return driver, choice


def _create(driver: LocalDriver, name: str, options: CreateOptions = CreateOptions()) -> None:  # noqa: B008
    spec = DatastoreSpec(kind=DatastoreKind.LOCAL, disk=name)
    asyncio.run(driver.check(spec, options))
    asyncio.run(driver.create(name.lower(), spec, options, lambda _: None))


@pytest.mark.parametrize(
    ("name", "options", "code", "pointer"),
    [
        ("FULL", CreateOptions(), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials"),
        ("FULL", CreateOptions(("BLANK",)), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials/0"),
        ("FULL", CreateOptions(("FULL", "BLANK")), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials/1"),
        ("BLANK", CreateOptions(("FULL",)), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials/0"),
        ("BLANK", CreateOptions(adopt=True), ErrorCode.CONFLICT, "/adopt"),
        ("STORE", CreateOptions(("FULL",)), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials/0"),
        ("NONE", CreateOptions(), ErrorCode.INVALID, "/spec/disk"),
    ],
)
def test_what_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: CreateOptions,
    code: ErrorCode,
    pointer: str,
) -> None:
    driver, choice = _driver(monkeypatch, "STORE")
    with pytest.raises(MicaError) as caught:
        _create(driver, name, options)
    problem = caught.value.problem
    assert (problem.code, problem.fields[0].pointer) == (code, pointer)
    assert choice.calls == []


def test_a_datastore_is_adopted_even_where_its_serial_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, choice = _driver(monkeypatch, "STORE")
    _create(driver, "STORE", CreateOptions(("STORE",)))
    assert choice.calls == []
    _create(driver, "FULL", CreateOptions(("FULL",)))
    assert choice.calls == ["partition FULL mica-datastore"]


def test_a_copy_of_a_datastores_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, choice = _driver(monkeypatch, "STORE", "COPY")
    original = choice.partition

    def cloned(item: object, type_guid: str) -> Found | None:
        found = original(item, type_guid)  # type: ignore[arg-type]
        return found and Found(found.disk, found.partition, "one-guid")

    monkeypatch.setattr(choice, "partition", cloned)
    _create(driver, "STORE")
    with pytest.raises(MicaError, match="copy of disk STORE") as caught:
        _create(driver, "COPY")
    assert caught.value.problem.code is ErrorCode.ALREADY_EXISTS
    stored = StoredDatastore(
        id="copied",
        created_at="2026-01-01T00:00:00Z",
        spec=DatastoreSpec(kind=DatastoreKind.LOCAL, disk="COPY"),
        uuid="m",
        backing="one-guid",
    )
    found = driver._find(stored)
    assert found is not None
    assert found.disk.id == "COPY"
    choice.made_up.all.clear()
    with pytest.raises(DatastoreMissing):
        asyncio.run(driver.attach(stored))
