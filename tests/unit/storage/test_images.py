"""Images: whatever goes wrong with an upload, nothing is left of it."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from pathlib import Path

import pytest

from tests.unit.storage.samples import iso, qcow2, vhdx
from tests.unit.storage.world import World, image_spec, run
from vmkernel.host.errors import CommandError
from vmkernel.host.qemu_img import CheckReport
from vmkernel.model import (
    ErrorCode,
    ImageFormat,
    ImageSpec,
    MicaError,
    OperationState,
    SourceFormat,
    VolumeSpec,
)
from vmkernel.storage.images import upload
from vmkernel.storage.images.upload import UPLOADS_EACH

ISO = ImageFormat.ISO


def _free(world: World) -> int:
    return world.storage.datastores.entries["d"].reserved_bytes


def test_an_image_is_taken_and_found_again(tmp_path: Path) -> None:
    data = iso(3_000_000)

    async def scenario(world: World) -> None:
        ended = await world.upload("debian", data, ISO)
        assert ended.state is OperationState.SUCCEEDED
        image = world.storage.images.get("debian")
        digest = hashlib.sha256(data).hexdigest()
        assert image.spec == ImageSpec(
            datastore="d", format=ISO, size_bytes=len(data), sha256=digest
        )
        assert image.status.virtual_size_bytes == -(-len(data) // 512) * 512
        file = world.storage.for_vms.image("debian")
        assert file.path.read_bytes() == data
        assert file.path.stat().st_mode & 0o777 == 0o644
        assert world.files() == ["d/images/debian.iso", "d/images/debian.json"]
        assert _free(world) == 0
        again = World(tmp_path, world.medium)
        await again.storage.start()
        assert again.storage.images.list(None) == (image,)
        await again.storage.stop()

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("sent", "changes", "code", "pointer"),
    [
        (iso()[:-1], {}, ErrorCode.TRUNCATED, None),
        (b"", {}, ErrorCode.TRUNCATED, None),
        (iso() + b"x", {}, ErrorCode.INVALID, "/spec/size_bytes"),
        (iso(), {"sha256": "0" * 64}, ErrorCode.DIGEST_MISMATCH, "/spec/sha256"),
        (bytes(1 << 16), {}, ErrorCode.INVALID, "/spec/format"),
        (qcow2()[: 1 << 16], {"format": SourceFormat.RAW}, ErrorCode.INVALID, "/spec/format"),
    ],
)
def test_a_wrong_upload_leaves_nothing(
    tmp_path: Path,
    sent: bytes,
    changes: dict[str, object],
    code: ErrorCode,
    pointer: str | None,
) -> None:
    async def scenario(world: World) -> None:
        spec = image_spec(iso(), ISO, **changes)
        ended = await world.upload("x", sent, spec=spec)
        assert ended.state is OperationState.FAILED
        assert ended.error is not None
        assert ended.error.code is code
        assert [field.pointer for field in ended.error.errors] == ([pointer] if pointer else [])
        assert world.files() == []
        assert _free(world) == 0
        # The name is free again.
        assert (await world.upload("x", iso(), ISO)).state is OperationState.SUCCEEDED

    run(tmp_path, scenario)


def test_a_disk_with_broken_tables_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.qemu_img.report = CheckReport(3, 1, 0, 0)
        spec = image_spec(qcow2(), ImageFormat.QCOW2)
        ended = await world.upload("x", qcow2(), spec=spec)
        assert ended.error is not None
        assert "its tables have 3 errors" in ended.error.errors[0].detail
        assert world.files() == []
        assert _free(world) == 0
        world.qemu_img.report = CheckReport(0, 1, 0, 0)  # what is only wasted does no harm
        assert (await world.upload("x", qcow2(), spec=spec)).state is OperationState.SUCCEEDED
        # Of one that nothing has closed, the reference counts may be behind.
        world.qemu_img.report = CheckReport(3, 0, 0, 0)
        dirty = qcow2(incompatible=1)
        spec = image_spec(dirty, ImageFormat.QCOW2)
        assert (await world.upload("y", dirty, spec=spec)).state is OperationState.SUCCEEDED

    run(tmp_path, scenario)


def test_a_disk_that_nothing_closed_is_completed_from_its_log(tmp_path: Path) -> None:
    data = vhdx(log="to be replayed")

    async def scenario(world: World) -> None:
        world.qemu_img.error = CommandError("It is damaged.", replay="", returncode=1, output="")
        spec = image_spec(data, ISO, format=SourceFormat.VHDX)
        ended = await world.upload("x", data, spec=spec)
        assert ended.error is not None
        assert [field.pointer for field in ended.error.errors] == ["/spec/format"]
        assert world.files() == []
        world.qemu_img.error = None
        world.qemu_img.calls.clear()
        assert (await world.upload("x", data, spec=spec)).state is OperationState.SUCCEEDED
        assert world.qemu_img.calls == ["replay vhdx", "convert vhdx qcow2 with its log"]
        assert world.files() == ["d/images/x.json", "d/images/x.qcow2"]
        assert _free(world) == 0

    run(tmp_path, scenario)


def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = image_spec(iso(), ISO)
        operation, stream = await world.storage.images.upload("x", spec, actor="me")
        stream.sendall(iso()[:1000])
        ended = await world.operations.cancel(operation.id, "me")
        assert ended.state is OperationState.CANCELLED
        assert world.files() == []
        assert stream.recv(1) == b""
        stream.close()

    run(tmp_path, scenario)


def test_a_sender_that_falls_silent_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.storage.images._uploader._silence_s = 0.05
        spec = image_spec(iso(), ISO)
        operation, stream = await world.storage.images.upload("x", spec, actor="me")
        ended = await world.ended(operation)
        assert ended.error is not None
        assert ended.error.code is ErrorCode.TIMED_OUT
        assert world.files() == []
        stream.close()

    run(tmp_path, scenario)


def test_a_full_disk_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(_: int, __: int) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(world: World) -> None:
        monkeypatch.setattr(upload, "allocate", full)
        ended = await world.upload("x", iso(), ISO)
        assert ended.error is not None
        assert ended.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert world.files() == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("image_id", "changes", "code"),
    [
        ("taken", {}, ErrorCode.ALREADY_EXISTS),
        ("x", {"datastore": "nope"}, ErrorCode.INVALID),
        ("x", {"size_bytes": 1 << 49}, ErrorCode.INSUFFICIENT_SPACE),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    tmp_path: Path, image_id: str, changes: dict[str, object], code: ErrorCode
) -> None:
    async def scenario(world: World) -> None:
        await world.upload("taken", iso(), ISO)
        with pytest.raises(MicaError) as caught:
            await world.storage.images.upload(
                image_id, image_spec(iso(), ISO, **changes), actor="me"
            )
        assert caught.value.problem.code is code

    run(tmp_path, scenario)


def test_one_name_is_uploaded_once_at_a_time_and_uploads_are_bounded(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = image_spec(iso(), ISO)
        streams: list[socket.socket] = []
        for number in range(UPLOADS_EACH):
            if number == 1:
                with pytest.raises(MicaError) as caught:
                    await world.storage.images.upload("x0", spec, actor="me")
                assert caught.value.problem.code is ErrorCode.CONFLICT
            _, stream = await world.storage.images.upload(f"x{number}", spec, actor="me")
            streams.append(stream)
        with pytest.raises(MicaError) as caught:
            await world.storage.images.upload("more", spec, actor="me")
        assert caught.value.problem.code is ErrorCode.RATE_LIMITED
        _, stream = await world.storage.images.upload("others", spec, actor="other")
        streams.append(stream)
        for stream in streams:
            stream.close()

    run(tmp_path, scenario)


def test_an_image_in_use_is_not_deleted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.upload("base", qcow2())
        world.users.images["base"] = ("vm-1",)
        with pytest.raises(MicaError) as caught:
            await world.storage.images.delete("base", actor="me")
        assert caught.value.problem.code is ErrorCode.IN_USE
        assert world.storage.images.get("base").status.used_by == ("vm-1",)
        world.users.images.clear()
        world.qemu_img.gate = asyncio.Event()
        spec = VolumeSpec(datastore="d", size_bytes=1 << 26, source_image="base")
        operation = await world.storage.volumes.create("v", spec, actor="me")
        with pytest.raises(MicaError) as caught:
            await world.storage.images.delete("base", actor="me")
        assert caught.value.problem.code is ErrorCode.IN_USE
        world.qemu_img.gate.set()
        await world.succeeded(operation)
        await world.storage.images.delete("base", actor="me")
        assert world.storage.images.list(None) == ()

    run(tmp_path, scenario)


@pytest.mark.parametrize("fault", ["data file", "backing", "other size", "link"])
def test_an_image_that_came_with_a_datastore_is_proven_again(tmp_path: Path, fault: str) -> None:
    async def scenario(world: World) -> None:
        data = qcow2(size=1 << 26)
        assert (await world.upload("img", data)).state is OperationState.SUCCEEDED
        await world.storage.stop()
        path = tmp_path / "d/images/img.qcow2"
        other = {
            "data file": qcow2(size=1 << 26, incompatible=1 << 2),
            "backing": qcow2(size=1 << 26, backing_name="/etc/passwd"),
            "other size": qcow2(size=1 << 27),
            "link": data,
        }[fault]
        path.unlink()
        if fault == "link":
            (tmp_path / "elsewhere").write_bytes(other)
            path.symlink_to(tmp_path / "elsewhere")
        else:
            path.write_bytes(other.ljust(len(data), b"\0")[: len(data)])
        again = World(tmp_path, world.medium)
        await again.storage.start()
        spec = VolumeSpec(datastore="d", size_bytes=1 << 28, source_image="img")
        with pytest.raises(MicaError, match="can't be used"):
            await again.storage.volumes.create("v", spec, actor="test")
        assert any(f.code == "image-unusable" for f in again.storage.findings())
        await again.storage.stop()

    run(tmp_path, scenario)


def test_one_token_leaves_places_for_others(tmp_path: Path) -> None:
    """Uploads and downloads of images; what ends, by itself or not, gives its place back."""

    async def scenario(world: World) -> None:
        storage = world.storage
        spec = image_spec(iso(), ISO)
        mine = [await storage.images.upload(f"i{n}", spec, actor="loud") for n in range(8)]
        with pytest.raises(MicaError) as caught:
            await storage.images.upload("more", spec, actor="loud")
        assert caught.value.problem.code is ErrorCode.RATE_LIMITED
        assert "8 images are being made for the token loud" in str(caught.value)
        large = iso() + bytes(4 << 20)  # more than waits in a socket
        assert (await world.upload("other", large, ISO)).error is None
        operation, stream = mine[0]
        stream.close()
        assert (await world.ended(operation)).error is not None
        operation, again = await storage.images.upload("more", spec, actor="loud")
        for _, stream in (*mine[1:], (operation, again)):
            stream.close()

        read = [await storage.images.read("other", 0, len(large), actor="loud") for _ in range(8)]
        with pytest.raises(MicaError) as caught:
            await storage.images.read("other", 0, len(large), actor="loud")
        assert caught.value.problem.code is ErrorCode.RATE_LIMITED
        (await storage.images.read("other", 0, len(large), actor="quiet"))[1].close()
        for _, stream in read:
            stream.close()
        for _ in range(500):
            try:
                (await storage.images.read("other", 0, len(large), actor="loud"))[1].close()
                break
            except MicaError:
                await asyncio.sleep(0.01)
        else:
            raise AssertionError("no place came back")

    run(tmp_path, scenario)
