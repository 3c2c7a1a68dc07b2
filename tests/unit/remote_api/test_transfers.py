"""Ranges and the words of tus, without a host."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from remote_api.http.ranges import wanted_part
from remote_api.http.tus import checksum_of, count_of, require_version, spec_of
from remote_api.schema import ApiError
from vmkernel.model import SourceFormat


class _Exchange:
    """As much of an exchange as a header needs."""

    def __init__(self, **headers: str) -> None:
        self._headers = {name.replace("_", "-").lower(): text for name, text in headers.items()}
        self.content_length: int | None = 4

    def header(self, name: str) -> str | None:
        return self._headers.get(name.lower())


def _exchange(**headers: str) -> Any:
    return _Exchange(**headers)


@pytest.mark.parametrize(
    ("asked", "offset", "length", "status"),
    [
        (None, 0, 100, 200),
        ("bytes=0-0", 0, 1, 206),
        ("bytes=10-", 10, 90, 206),
        ("bytes=10-19", 10, 10, 206),
        ("bytes=90-1000", 90, 10, 206),
        ("bytes=-5", 95, 5, 206),
        ("bytes=-500", 0, 100, 206),
        ("bytes=5-4", 0, 100, 200),
        ("bytes=0-1,3-4", 0, 100, 200),
        ("bytes=-", 0, 100, 200),
        ("lines=1-2", 0, 100, 200),
        ("bytes=a-b", 0, 100, 200),
    ],
)
def test_ranges(asked: str | None, offset: int, length: int, status: int) -> None:
    part = wanted_part(100, '"x"', asked, None)
    assert (part.offset, part.length, part.status) == (offset, length, status)
    assert ("content-range" in part.headers) is (status == 206)


def test_a_range_of_what_has_changed_is_the_whole() -> None:
    assert wanted_part(100, '"x"', "bytes=1-2", '"x"').status == 206
    assert wanted_part(100, '"x"', "bytes=1-2", '"y"').status == 200
    assert wanted_part(100, '"x"', "bytes=1-2", 'W/"x"').status == 200


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_ranges_behind_the_end(asked: str) -> None:
    with pytest.raises(ApiError) as refused:
        wanted_part(100, '"x"', asked, None)
    assert refused.value.status == 416
    assert refused.value.headers == {"content-range": "bytes */100"}


def _word(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_metadata() -> None:
    metadata = f"image {_word('a')},datastore {_word('b')},format {_word('vmdk')},filename x,empty"
    spec = spec_of(_exchange(upload_length="7", upload_metadata=metadata))
    assert (spec.image, spec.datastore, spec.size_bytes) == ("a", "b", 7)
    assert (spec.format, spec.sha256) == (SourceFormat.VMDK, None)


@pytest.mark.parametrize(
    ("length", "metadata", "status"),
    [
        ("7", "", 422),
        ("7", "image !!!,datastore b", 422),
        ("7", f"image {_word('a')},image {_word('a')}", 422),
        ("7", f"image {_word('A B')},datastore {_word('b')}", 422),
        ("-7", f"image {_word('a')},datastore {_word('b')}", 422),
        ("0", f"image {_word('a')},datastore {_word('b')}", 422),
        (str(1 << 51), f"image {_word('a')},datastore {_word('b')}", 413),
    ],
)
def test_metadata_that_is_refused(length: str, metadata: str, status: int) -> None:
    with pytest.raises(ApiError) as refused:
        spec_of(_exchange(upload_length=length, upload_metadata=metadata))
    assert refused.value.status == status


def test_deferred_lengths_are_not_taken() -> None:
    with pytest.raises(ApiError) as refused:
        spec_of(_exchange(upload_defer_length="1"))
    assert refused.value.status == 422


def test_checksums() -> None:
    assert checksum_of(_exchange()) is None
    digest = base64.b64encode(bytes(20)).decode()
    found = checksum_of(_exchange(upload_checksum=f"sha1 {digest}"))
    assert found is not None
    assert (found.algorithm, found.digest) == ("sha1", bytes(20))
    for wrong in ("sha1", "sha1 xx!", f"sha256 {digest}", f"crc32 {digest}"):
        with pytest.raises(ApiError) as refused:
            checksum_of(_exchange(upload_checksum=wrong))
        assert refused.value.status == 400
    without = _exchange(upload_checksum=f"sha1 {digest}")
    without.content_length = None
    with pytest.raises(ApiError) as refused:
        checksum_of(without)
    assert refused.value.status == 411


def test_versions_and_counts() -> None:
    require_version(_exchange(tus_resumable="1.0.0"))
    for version in ({}, {"tus_resumable": "0.2"}):
        with pytest.raises(ApiError) as refused:
            require_version(_exchange(**version))
        assert (refused.value.status, refused.value.headers) == (412, {"tus-version": "1.0.0"})
    assert count_of(_exchange(upload_offset="12"), "Upload-Offset") == 12
    for count in ("x", "1.5", "", "9" * 17):
        with pytest.raises(ApiError):
            count_of(_exchange(upload_offset=count), "Upload-Offset")
