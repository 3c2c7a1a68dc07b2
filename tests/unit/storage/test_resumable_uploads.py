"""Resumable uploads in the vmkernel: durable offsets, take-over, expiry, crashes, full disks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from pathlib import Path

import msgspec
import pytest

from tests.unit.storage.samples import iso
from tests.unit.storage.world import World, run
from vmkernel.model import (
    ErrorCode,
    ImagePull,
    MicaError,
    OperationState,
    UploadChecksum,
    UploadOutcome,
    UploadSpec,
)
from vmkernel.storage.images import import_pipeline, resumable_uploads

DATA = iso(1_000_000)


def _spec(**changes: object) -> UploadSpec:
    fields: dict[str, object] = {
        "image": "disc",
        "datastore": "d",
        "size_bytes": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        **changes,
    }
    return UploadSpec(**fields)  # type: ignore[arg-type]


def _finish(stream: socket.socket) -> UploadOutcome:
    stream.shutdown(socket.SHUT_WR)
    data = b""
    while part := stream.recv(1 << 16):
        data += part
    stream.close()
    return msgspec.json.decode(data, type=UploadOutcome)


async def _send(
    world: World, upload: str, offset: int, data: bytes, checksum: UploadChecksum | None = None
) -> UploadOutcome:
    _, stream = await world.storage.uploads.write(
        upload, offset, length=len(data), checksum=checksum, actor="me"
    )
    await asyncio.to_thread(stream.sendall, data)
    return await asyncio.to_thread(_finish, stream)


async def _image(world: World, operation: str | None) -> None:
    assert operation is not None
    ended = await world.operations.wait(operation, 10)
    assert ended.state is OperationState.SUCCEEDED, ended.error
    assert world.storage.images.get("disc").spec.sha256 == hashlib.sha256(DATA).hexdigest()


def test_parts_make_an_image_and_nothing_else_is_left(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        uploads = world.storage.uploads
        upload = await uploads.create(_spec(), actor="me")
        with pytest.raises(MicaError, match="resume or delete"):
            await uploads.create(_spec(), actor="me")
        assert (await _send(world, upload.id, 0, DATA[:1000])).offset_bytes == 1000
        with pytest.raises(MicaError, match="is at 1000, not 0") as refused:
            await uploads.write(upload.id, 0, length=None, checksum=None, actor="me")
        assert refused.value.problem.code is ErrorCode.CONFLICT
        with pytest.raises(MicaError, match="ends after"):
            await uploads.write(upload.id, 1000, length=len(DATA), checksum=None, actor="me")
        last = await _send(world, upload.id, 1000, DATA[1000:])
        await _image(world, last.operation)
        assert await uploads.list() == ()
        assert world.files() == ["d/images/disc.iso", "d/images/disc.json"]
        assert world.storage.datastores.entries["d"].reserved_bytes == 0

    run(tmp_path, scenario)


def test_a_checksum_decides_on_the_whole_part(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        uploads = world.storage.uploads
        upload = await uploads.create(_spec(), actor="me")
        right = UploadChecksum(algorithm="sha1", digest=hashlib.sha1(DATA).digest())
        part = DATA[:5000]
        wrong = await _send(world, upload.id, 0, part, checksum=right)
        assert (wrong.offset_bytes, wrong.checksum_matches) == (0, False)
        _, stream = await uploads.write(upload.id, 0, length=len(DATA), checksum=right, actor="me")
        stream.sendall(part)
        cut = await asyncio.to_thread(_finish, stream)
        assert (cut.offset_bytes, cut.checksum_matches) == (0, True)
        whole = await _send(world, upload.id, 0, DATA, checksum=right)
        await _image(world, whole.operation)

    run(tmp_path, scenario)


def test_a_new_part_takes_over_from_a_dead_one(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        uploads = world.storage.uploads
        upload = await uploads.create(_spec(), actor="me")
        _, dead = await uploads.write(upload.id, 0, length=None, checksum=None, actor="me")
        dead.sendall(DATA[:3000])
        await asyncio.sleep(0.2)
        with pytest.raises(MicaError) as refused:
            await uploads.write(upload.id, 0, length=None, checksum=None, actor="me")
        assert refused.value.problem.code is ErrorCode.CONFLICT
        assert (await uploads.get(upload.id)).status.offset_bytes == 3000
        last = await _send(world, upload.id, 3000, DATA[3000:])
        await _image(world, last.operation)
        dead.close()

    run(tmp_path, scenario)


def test_what_was_told_is_there_after_a_crash(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        upload = await world.storage.uploads.create(_spec(), actor="me")
        await _send(world, upload.id, 0, DATA[:7000])
        # What lies behind the offset that was told doesn't count.
        part = tmp_path / f"d/uploads/{upload.id}.part"
        with part.open("r+b") as file:
            file.seek(7000)
            file.write(b"x" * 500)
        (tmp_path / "d/uploads/orphan.part").write_bytes(b"x")
        again = World(tmp_path, world.medium)
        await again.storage.start()
        found = await again.storage.uploads.get(upload.id)
        assert found.status.offset_bytes == 7000
        assert found.spec == upload.spec
        assert not (tmp_path / "d/uploads/orphan.part").exists()
        with pytest.raises(MicaError, match="is being uploaded"):
            await again.storage.images.pull("disc", _pull(), actor="me")
        last = await _send(again, upload.id, 7000, DATA[7000:])
        await _image(again, last.operation)
        await again.storage.stop()

    run(tmp_path, scenario)


def _pull() -> ImagePull:
    return ImagePull(datastore="d", url="http://192.0.2.1/x", sha256="0" * 64)


def test_a_whole_upload_becomes_an_image_at_the_next_start(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        uploads = world.storage.uploads
        upload = await uploads.create(_spec(), actor="me")
        uploads._ending = True  # as if it ended between the last byte and the image
        assert (await _send(world, upload.id, 0, DATA)).operation is None
        again = World(tmp_path, world.medium)
        await again.storage.start()
        for _ in range(100):
            if "disc" in again.storage._catalogue.images:
                break
            await asyncio.sleep(0.05)
        assert again.storage.images.get("disc").spec.size_bytes == len(DATA)
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_wrong_digest_drops_it_and_a_full_disk_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        uploads = world.storage.uploads
        bad = await uploads.create(_spec(sha256="0" * 64), actor="me")
        outcome = await _send(world, bad.id, 0, DATA)
        assert outcome.operation is not None
        ended = await world.operations.wait(outcome.operation, 10)
        assert ended.error is not None
        assert ended.error.code is ErrorCode.DIGEST_MISMATCH
        assert world.files() == []

        upload = await uploads.create(_spec(), actor="me")

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(import_pipeline, "settle_file", full)
            outcome = await _send(world, upload.id, 0, DATA)
            assert outcome.operation is not None
            ended = await world.operations.wait(outcome.operation, 10)
        assert ended.error is not None
        assert ended.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert (await uploads.get(upload.id)).status.offset_bytes == len(DATA)
        # Space was made: an empty part asks for another try.
        again = await _send(world, upload.id, len(DATA), b"")
        await _image(world, again.operation)

    run(tmp_path, scenario)


def test_expired_and_deleted_uploads_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        uploads = world.storage.uploads
        monkeypatch.setattr(resumable_uploads, "LIFE_S", 0.0)
        old = await uploads.create(_spec(), actor="me")
        monkeypatch.undo()
        young = await uploads.create(_spec(image="other"), actor="me")
        await asyncio.sleep(0.01)
        await uploads.sweep_once()
        assert [upload.id for upload in await uploads.list()] == [young.id]
        with pytest.raises(MicaError, match="no upload"):
            await uploads.get(old.id)
        await uploads.delete(young.id)
        assert world.files() == []
        assert world.storage.datastores.entries["d"].reserved_bytes == 0

    run(tmp_path, scenario)


def test_one_token_leaves_places_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable_uploads, "OPEN_EACH", 3)
    monkeypatch.setattr(resumable_uploads, "WRITERS_EACH", 2)

    async def scenario(world: World) -> None:
        uploads = world.storage.uploads
        mine = [await uploads.create(_spec(image=f"i{n}"), actor="loud") for n in range(3)]
        with pytest.raises(MicaError) as caught:
            await uploads.create(_spec(image="more"), actor="loud")
        assert caught.value.problem.code is ErrorCode.RATE_LIMITED
        other = await uploads.create(_spec(image="other"), actor="quiet")
        streams = []
        for upload in mine[:2]:
            _, stream = await uploads.write(upload.id, 0, length=None, checksum=None, actor="loud")
            streams.append(stream)
        with pytest.raises(MicaError) as caught:
            await uploads.write(mine[2].id, 0, length=None, checksum=None, actor="loud")
        assert caught.value.problem.code is ErrorCode.RATE_LIMITED
        _, stream = await uploads.write(other.id, 0, length=None, checksum=None, actor="quiet")
        stream.close()
        _, again = await uploads.write(mine[0].id, 0, length=None, checksum=None, actor="loud")
        again.close()
        streams[1].close()
        await uploads.delete(mine[1].id)
        await uploads.create(_spec(image="more"), actor="loud")

    run(tmp_path, scenario)


@pytest.mark.parametrize("kind", ["link", "pipe", "device", "second name", "too long", "short"])
def test_data_that_came_with_a_datastore_are_files_of_their_own(tmp_path: Path, kind: str) -> None:
    """A link would tell the digest of a file of the host; a second name would change it."""

    async def scenario(world: World) -> None:
        upload = await world.storage.uploads.create(_spec(), actor="me")
        await _send(world, upload.id, 0, DATA[:1000])
        part = tmp_path / "d/uploads" / f"{upload.id}.part"
        secret = tmp_path / "secret"
        secret.write_bytes(DATA)
        await world.storage.stop()
        part.unlink()
        if kind == "link":
            part.symlink_to(secret)
        elif kind == "pipe":
            os.mkfifo(part)
        elif kind == "device":
            part.symlink_to("/proc/kcore")
        elif kind == "second name":
            os.link(secret, part)
        else:
            part.write_bytes(bytes(500 if kind == "short" else len(DATA) + 1))
        record = tmp_path / "d/uploads" / f"{upload.id}.json"
        record.write_text(record.read_text().replace('"offset_bytes": 1000', _whole(kind)))
        (tmp_path / "d/uploads/nest/deeper").mkdir(parents=True)
        again = World(tmp_path, world.medium)
        await again.storage.start()
        assert await again.storage.uploads.list() == ()
        assert list((tmp_path / "d/uploads").iterdir()) == []
        assert secret.read_bytes() == DATA
        assert not [op for op in again.operations.all() if op.kind == "image.upload"]
        await again.storage.stop()

    run(tmp_path, scenario)


def _whole(kind: str) -> str:
    return f'"offset_bytes": {1000 if kind == "short" else len(DATA)}'


def test_what_a_record_says_of_its_sender_is_nobody_s_word(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        upload = await world.storage.uploads.create(_spec(), actor="me")
        part = tmp_path / "d/uploads" / f"{upload.id}.part"
        record = tmp_path / "d/uploads" / f"{upload.id}.json"
        await world.storage.stop()
        part.write_bytes(DATA)
        text = record.read_text().replace('"actor": "me"', '"actor": "admin"')
        record.write_text(text.replace('"offset_bytes": 0', f'"offset_bytes": {len(DATA)}'))
        again = World(tmp_path, world.medium)
        await again.storage.start()
        await again.storage.uploads.list()
        operation = again.operations.all()[-1]
        assert operation.kind == "image.upload"
        assert operation.actor == "upload-resume"
        await _image(again, operation.id)
        await again.storage.stop()

    run(tmp_path, scenario)
