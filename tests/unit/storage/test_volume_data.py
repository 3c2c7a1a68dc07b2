"""Data written into a raw volume from a stream."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import msgspec
import pytest

from tests.unit.storage.world import World, run
from vmkernel.model import ErrorCode, ErrorInfo, MicaError, VolumeFormat, VolumeSpec

MIB = 1 << 20


async def _make(world: World, volume_id: str, volume_format: VolumeFormat) -> None:
    spec = VolumeSpec(datastore="d", size_bytes=MIB, format=volume_format)
    await world.succeeded(await world.storage.volumes.create(volume_id, spec, actor="me"))


def _send(stream: socket.socket, data: bytes) -> bytes:
    with stream:
        stream.settimeout(10)
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        return stream.recv(65536)


def test_a_part_is_written_and_the_volume_is_free_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world, "v", VolumeFormat.RAW)
        stream = await world.storage.volume_data().write("v", 4096, 6, actor="test")
        with pytest.raises(MicaError, match="being written"):
            world.storage.for_vms.volume("v")
        assert await asyncio.to_thread(_send, stream, b"abcdef") == b""
        assert world.storage.for_vms.volume("v").path.read_bytes()[4090:4110] == (
            bytes(6) + b"abcdef" + bytes(8)
        )

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("data", "code"), [(b"abc", ErrorCode.TRUNCATED), (b"a" * 9, ErrorCode.INVALID)]
)
def test_a_wrong_length_is_told(tmp_path: Path, data: bytes, code: ErrorCode) -> None:
    async def scenario(world: World) -> None:
        await _make(world, "v", VolumeFormat.RAW)
        stream = await world.storage.volume_data().write("v", 0, 6, actor="test")
        verdict = await asyncio.to_thread(_send, stream, data)
        assert msgspec.json.decode(verdict, type=ErrorInfo).code is code
        assert world.storage.for_vms.volume("v").id == "v"

    run(tmp_path, scenario)


def test_what_takes_no_data_is_refused(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world, "v", VolumeFormat.RAW)
        await _make(world, "q", VolumeFormat.QCOW2)
        for volume, offset, code in (
            ("q", 0, ErrorCode.CONFLICT),
            ("v", MIB, ErrorCode.CONFLICT),
            ("none", 0, ErrorCode.NOT_FOUND),
        ):
            with pytest.raises(MicaError) as caught:
                await world.storage.volume_data().write(volume, offset, 6, actor="test")
            assert caught.value.problem.code is code
        world.users.open.add("v")
        with pytest.raises(MicaError) as caught:
            await world.storage.volume_data().write("v", 0, 6, actor="test")
        assert caught.value.problem.code is ErrorCode.IN_USE

    run(tmp_path, scenario)


def test_one_token_leaves_places_for_others(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(9):
            await _make(world, f"v{number}", VolumeFormat.RAW)
        writing = [
            await world.storage.volume_data().write(f"v{n}", 0, 6, actor="loud") for n in range(4)
        ]
        with pytest.raises(MicaError) as caught:
            await world.storage.volume_data().write("v4", 0, 6, actor="loud")
        assert caught.value.problem.code is ErrorCode.RATE_LIMITED
        assert world.storage.for_vms.volume("v4").id == "v4", "and the volume is free"
        others = [
            await world.storage.volume_data().write(f"v{n}", 0, 6, actor="quiet") for n in (4, 5)
        ]
        # A slow sender holds nobody up: each has a thread.
        for stream in others:
            assert await asyncio.to_thread(_send, stream, b"abcdef") == b""
        assert await asyncio.to_thread(_send, writing.pop(), b"abcdef") == b""
        writing.append(await world.storage.volume_data().write("v6", 0, 6, actor="loud"))
        for stream in writing:
            stream.close()

    run(tmp_path, scenario)
