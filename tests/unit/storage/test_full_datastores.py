"""Whatever fails for want of space says on which datastore, and what makes room there."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tests.unit.storage.samples import qcow2
from tests.unit.storage.world import World, run
from vmkernel.host import DatastoreFullError, HostError, from_os_error, naming_datastore
from vmkernel.model import (
    Allocation,
    ErrorCode,
    ErrorInfo,
    ImageCapture,
    ImageFormat,
    MicaError,
    Operation,
    OperationError,
    VolumeFormat,
    VolumeSpec,
)
from vmkernel.storage.images import upload
from vmkernel.storage.volumes import restore_stream

MIB = 1 << 20
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
REFUSED = HostError("The disk can't be copied: it needs more space.", ErrorCode.INSUFFICIENT_SPACE)
HELPS = "delete volumes, images or snapshots there, move some to another datastore, or grow it."


def _names(problem: ErrorInfo | OperationError | None, datastore: str) -> None:
    assert problem is not None
    assert problem.code is ErrorCode.INSUFFICIENT_SPACE
    assert problem.detail.endswith(f" on datastore {datastore}; {HELPS}"), problem.detail
    assert problem.detail.count("datastore ") == 1 + HELPS.count("datastore ")


async def _make(world: World, volume_id: str, **fields: object) -> Operation:
    spec = {"datastore": "d", "size_bytes": 64 * MIB, **fields}
    return await world.storage.volumes.create(
        volume_id, msgspec.convert(spec, VolumeSpec), actor="me"
    )


async def _create(world: World) -> Operation:
    return await _make(world, "new", datastore="far")


async def _copy(world: World) -> Operation:
    return await _make(world, "new", datastore="far", source_volume="v")


async def _move(world: World) -> Operation:
    return await world.storage.volume_moves.move(
        "v",
        datastore="far",
        volume_format=VolumeFormat.QCOW2,
        allocation=Allocation.THIN,
        revision=None,
        actor="me",
    )


async def _capture(world: World) -> Operation:
    capture = ImageCapture(volume="v", datastore="far", format=ImageFormat.QCOW2, compress=True)
    return await world.storage.images.capture("i", capture, actor="me")


@pytest.mark.parametrize("error", [FULL, REFUSED])
@pytest.mark.parametrize("work", [_create, _copy, _move, _capture])
def test_the_datastore_that_is_written_to_is_named(
    tmp_path: Path, work: Callable[[World], Awaitable[Operation]], error: Exception
) -> None:
    """And not the one that is only read."""

    async def scenario(world: World) -> None:
        await world.datastore("far")
        await world.succeeded(await _make(world, "v"))
        world.qemu_img.error = error
        _names((await world.ended(await work(world))).error, "far")

    run(tmp_path, scenario)


def test_an_upload_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise FULL

    async def scenario(world: World) -> None:
        monkeypatch.setattr(upload, "allocate", full)
        _names((await world.upload("x", qcow2(size=MIB))).error, "d")

    run(tmp_path, scenario)


def test_data_written_into_a_volume_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise FULL

    async def scenario(world: World) -> None:
        await world.succeeded(await _make(world, "v", size_bytes=MIB, format="raw"))
        monkeypatch.setattr(restore_stream, "_pour", full)
        with await world.storage.volume_data().write("v", 0, 6, actor="me") as stream:
            stream.settimeout(10)
            verdict = await asyncio.to_thread(stream.recv, 65536)
        _names(msgspec.json.decode(verdict, type=ErrorInfo), "d")

    run(tmp_path, scenario)


def test_what_needs_too_much_is_refused_with_the_field(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(DatastoreFullError) as caught:
            await _make(world, "v", size_bytes=1 << 43, format="raw", allocation="thick")
        _names(caught.value.problem, "d")
        assert [field.pointer for field in caught.value.problem.fields] == ["/spec/size_bytes"]

    run(tmp_path, scenario)


def test_only_a_want_of_space_is_named_and_only_once() -> None:
    for other in (OSError(errno.EIO, "x"), MicaError(ErrorCode.CONFLICT, "x"), ValueError("x")):
        with pytest.raises(type(other)) as caught, naming_datastore("d"):
            raise other
        assert caught.value is other
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(DatastoreFullError) as named, naming_datastore("outer"):
            with naming_datastore("inner"):
                raise from_os_error(OSError(number, "x"), "Volume v can't be made")
        assert named.value.problem.detail == (
            f"Volume v can't be made: no space is left on datastore inner; {HELPS}"
        )
