"""Everything that is wrong with a request is said at once, with a pointer to each part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_api.http.decode import decode_body, decode_patch, decode_query
from remote_api.schema import ApiError, PageQuery, SpecBody, UploadQuery, VmBody
from remote_api.schema.violations import MAX_VIOLATIONS, examined
from tests.framework.asgi import request
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import JSON, MERGE_PATCH, served, vm
from vmkernel.control import requests
from vmkernel.model import (
    VmSpec,
    VolumeSpec,
)

WRONG_SPEC = {
    "cpu": 2,
    "name": 7,
    "memory_bytes": 1,
    "cpus": {"count": "two", "model": "a b"},
    "disks": [{"volume": "OK?"}, {}, {"volume": "b", "bus": "scsi", "boot_index": 1.5}],
    "labels": {"-": "x", "fine": 1},
    "boot": {"order": ["disk", "floppy"]},
    "watchdog": [],
}
EXPECTED = [
    "/spec/boot/order/1",
    "/spec/cpu",
    "/spec/cpus/count",
    "/spec/cpus/model",
    "/spec/datastore",
    "/spec/disks/0/volume",
    "/spec/disks/1/volume",
    "/spec/disks/2/boot_index",
    "/spec/disks/2/bus",
    "/spec/labels/-",
    "/spec/labels/fine",
    "/spec/memory_bytes",
    "/spec/name",
    "/spec/watchdog",
    "/specs",
]


def pointers(caught: pytest.ExceptionInfo[ApiError]) -> list[str]:
    """The fields at fault, in order."""
    return sorted(error.pointer for error in caught.value.errors)


def test_a_body_with_many_errors() -> None:
    body = json.dumps({"spec": WRONG_SPEC, "specs": 1}).encode()
    with pytest.raises(ApiError) as caught:
        decode_body(body, VmBody)
    assert caught.value.status == 422
    assert pointers(caught) == EXPECTED
    said = {error.pointer: error.detail for error in caught.value.errors}
    assert said["/spec/cpu"] == "Unknown field. Did you mean `cpus`?"
    assert said["/spec/cpus/count"] == "It must be a whole number, and is text."
    assert said["/spec/memory_bytes"] == "It must be a whole number of at least 16777216."
    assert said["/spec/disks/1/volume"] == "The field is required."
    assert "virtio-blk" in said["/spec/disks/2/bus"]
    assert said["/spec/disks/2/boot_index"] == "It must be a whole number or null, and is a number."
    for detail in said.values():
        for word in ("regex", "`int`", "`str`", "msgspec", "Expected"):
            assert word not in detail


def test_a_patch_with_many_errors() -> None:
    target = VmBody(spec=VmSpec(datastore="main"))
    patch = {"spec": {"datastore": None, "cpus": {"count": 0, "cores": "x"}, "nics": [{"mac": 1}]}}
    with pytest.raises(ApiError) as caught:
        decode_patch(json.dumps(patch).encode(), target, VmBody)
    assert pointers(caught) == [
        "/spec/cpus/cores",
        "/spec/cpus/count",
        "/spec/datastore",
        "/spec/nics/0/mac",
    ]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (b"limit=0&page=%20&other=1", ["limit", "other", "page"]),
        (b"limit=x&limit=y&page=", ["limit", "limit", "page"]),
        (b"a=1&b=2", ["a", "b"]),
    ],
)
def test_a_query_with_many_errors(query: bytes, named: list[str]) -> None:
    with pytest.raises(ApiError) as caught:
        decode_query(query, PageQuery)
    assert pointers(caught) == named


def test_missing_parameters_are_named_together() -> None:
    with pytest.raises(ApiError) as caught:
        decode_query(b"wait=-1&format=exe", UploadQuery)
    assert pointers(caught) == ["datastore", "format", "sha256", "wait"]


@on_loop
async def test_query_headers_and_body_together(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        answer = await request(
            api,
            "PUT",
            "/v1/volumes/data?wait=-1&waits=1",
            headers={**JSON, "if-match": '"3"', "accept": "text/html"},
            body=json.dumps({"spec": {"size_bytes": 1, "format": "vmdk"}}).encode(),
        )
        assert answer.status == 422
        assert sorted(answer.pointers) == sorted(
            [
                *("wait", "waits", "If-Match", "Accept"),
                *("/spec/datastore", "/spec/size_bytes", "/spec/format"),
            ]
        )
        assert fake.asked(requests.CreateVolume) == []


@on_loop
async def test_query_and_patch_together(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        answer = await request(
            api,
            "PATCH",
            "/v1/vms/web?force=1",
            headers=MERGE_PATCH,
            body=b'{"spec": {"cpus": {"count": 0}, "tpm": "yes", "name": null}}',
        )
        assert sorted(answer.pointers) == ["/spec/cpus/count", "/spec/tpm", "force"]


@on_loop
async def test_a_precondition_that_is_missing_hides_no_field(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(
            api, "PUT", "/v1/vms/web", headers=JSON, body=b'{"spec": {"tpm": 1}}'
        )
        assert (answer.status, answer.problem) == (428, "precondition-required")
        assert sorted(answer.pointers) == ["/spec/datastore", "/spec/tpm"]


def test_errors_are_bounded() -> None:
    body = json.dumps({"spec": {"datastore": "m", "disks": [{}] * 5000}}).encode()
    with pytest.raises(ApiError) as caught:
        decode_body(body, VmBody)
    assert len(caught.value.errors) == MAX_VIOLATIONS
    assert len(caught.value.detail) < 500


@pytest.mark.parametrize("number", ["2.0", "2e0", "20E-1", "2"])
def test_whole_numbers_in_any_spelling(number: str) -> None:
    body = f'{{"spec": {{"datastore": "m", "cpus": {{"count": {number}, "cores": {number}}}}}}}'
    spec = decode_body(body.encode(), VmBody).spec
    assert (spec.cpus.count, spec.cpus.cores) == (2, 2)
    assert isinstance(spec.cpus.count, int)
    patch = f'{{"spec": {{"cpus": {{"count": {number}}}}}}}'.encode()
    patched = decode_patch(patch, VmBody(spec=VmSpec(datastore="m")), VmBody)
    assert patched.spec.cpus.count == 2


@pytest.mark.parametrize("number", ["2.5", "1e400", "-1e30", "1e30", '"2"', "true"])
def test_other_numbers_are_refused(number: str) -> None:
    body = f'{{"spec": {{"datastore": "m", "size_bytes": {number}}}}}'.encode()
    with pytest.raises(ApiError) as caught:
        decode_body(body, SpecBody[VolumeSpec])
    assert caught.value.status in (400, 422)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cpus", "disks", "count", "datastore", "x"]), inner)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_any_value_is_taken_or_pointed_at(value: Any) -> None:
    """What is refused has a pointer to what is there, or to a field that is missing."""
    _, wrong = examined(value, VmSpec, at="/spec")
    for each in wrong:
        assert each.pointer.startswith("/spec")
        assert each.detail.endswith((".", "?"))


@given(VALUES)
def test_examining_agrees_with_decoding(value: Any) -> None:
    taken, wrong = examined(value, VmSpec)
    if not wrong:
        assert decode_body(json.dumps({"spec": taken}).encode(), VmBody)
