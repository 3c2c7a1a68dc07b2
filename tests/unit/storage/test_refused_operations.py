"""What is prepared for an operation is given back if the operation is refused: the same request
succeeds once there is a place, and neither space nor a descriptor is missing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.unit.storage.samples import iso
from tests.unit.storage.test_volume_changes import _make
from tests.unit.storage.world import World, image_spec, run
from vmkernel.model import (
    Allocation,
    CheckRepair,
    ErrorCode,
    ImageCapture,
    ImageFormat,
    ImagePull,
    MicaError,
    Operation,
    Subject,
    VolumeFormat,
    VolumeSpec,
)
from vmkernel.operations import OperationContext
from vmkernel.operations import registry as operations

MIB = 1 << 20
Began = Operation | tuple[Operation, socket.socket]

CALLERS: dict[str, Callable[[World, str], Awaitable[Began]]] = {
    "volume.create": lambda world, actor: world.storage.volumes.create(
        "new", VolumeSpec(datastore="d", size_bytes=64 * MIB), actor=actor
    ),
    "volume.create, of a volume": lambda world, actor: world.storage.volumes.create(
        "new", VolumeSpec(datastore="d", size_bytes=64 * MIB, source_volume="v"), actor=actor
    ),
    "volume.keep": lambda world, actor: world.storage.volumes.keep("v", actor=actor),
    "volume.resize": lambda world, actor: world.storage.volume_resizing.resize(
        "v", 128 * MIB, revision=None, allow_shrink=False, actor=actor
    ),
    "volume.move": lambda world, actor: world.storage.volume_moves.move(
        "v",
        datastore="d",
        volume_format=VolumeFormat.RAW,
        allocation=Allocation.THIN,
        revision=None,
        actor=actor,
    ),
    "volume.flatten": lambda world, actor: world.storage.volume_moves.flatten(
        "linked", actor=actor
    ),
    "volume.check": lambda world, actor: world.storage.volume_file_check.check(
        "v", CheckRepair.ALL, actor=actor
    ),
    "image.upload": lambda world, actor: world.storage.images.upload(
        "new", image_spec(iso(), ImageFormat.ISO), actor=actor
    ),
    "image.pull": lambda world, actor: world.storage.images.pull(
        "new", ImagePull(datastore="d", url="http://192.0.2.1/x", sha256="0" * 64), actor=actor
    ),
    "image.capture": lambda world, actor: world.storage.images.capture(
        "new", ImageCapture(volume="v", format=ImageFormat.QCOW2), actor=actor
    ),
}


def _descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


async def _for_ever(_: OperationContext) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("call", CALLERS.values(), ids=CALLERS)
def test_a_refused_operation_holds_nothing(
    call: Callable[[World, str], Awaitable[Began]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "_RUNNING_EACH", 3)

    async def scenario(world: World) -> None:
        await _make(world, "v")
        await _make(world, "base")
        await world.storage.for_vms.link_volume("base", "linked", clone="token")
        busy = [
            world.operations.begin(
                "x", Subject(kind="vm", id=str(n)), _for_ever, actor="loud", cancellable=True
            )
            for n in range(3)
        ]
        descriptors, files = _descriptors(), world.files()
        entry = world.storage.datastores.entry("d")
        assert entry.reserved_bytes == 0
        for _ in range(10):  # more often than any of its places
            with pytest.raises(MicaError, match="operations run") as raised:
                await call(world, "loud")
            assert raised.value.problem.code is ErrorCode.RATE_LIMITED
        assert entry.reserved_bytes == 0
        assert _descriptors() == descriptors
        assert world.files() == files
        for operation in busy:
            await world.operations.cancel(operation.id, "loud")
        began = await call(world, "loud")
        with contextlib.ExitStack() as opened:
            if isinstance(began, tuple):
                opened.enter_context(began[1])
                began = began[0]
            await world.operations.cancel(began.id, "loud") if began.cancellable else None
        await world.ended(began)
        assert entry.reserved_bytes == 0

    run(tmp_path, scenario)
