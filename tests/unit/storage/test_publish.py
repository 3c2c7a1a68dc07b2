"""A disk that fails at the very last step of making something."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.storage.samples import iso
from tests.unit.storage.world import World, run
from vmkernel.model import ErrorCode, ImageFormat, VolumeSpec
from vmkernel.storage import layout


@pytest.mark.parametrize("step", ["write_durably", "rename_durably"])
def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(world: World) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(layout, step, full)
            spec = VolumeSpec(datastore="d", size_bytes=1 << 20)
            for ended in (
                await world.ended(await world.storage.volumes.create("v", spec, actor="me")),
                await world.upload("i", iso(), ImageFormat.ISO),
            ):
                assert ended.error is not None
                assert ended.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert world.files() == []
        await world.succeeded(await world.storage.volumes.create("v", spec, actor="me"))

    run(tmp_path, scenario)
