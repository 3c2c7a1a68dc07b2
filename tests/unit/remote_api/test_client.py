"""The client's parts that need no host."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from remote_api import schema
from remote_api.client.cli.contexts import ContextStore, KnownHost
from remote_api.client.cli.parameters import SIZE
from remote_api.client.cli.session import bytes_text
from remote_api.client.errors import (
    ConflictError,
    MisuseError,
    OperationFailedError,
    RefusedError,
    UnexpectedError,
)
from remote_api.client.http.pinning import normal_address, normal_fingerprint, shown_fingerprint
from remote_api.client.http.reading import read
from remote_api.schema import PageOf, Problem
from tests.unit.remote_api.samples import NOW
from vmkernel.model import (
    DisplayModel,
    ErrorCode,
    FieldError,
    OpenEnum,
    Operation,
    OperationError,
    OperationState,
    Progress,
    Subject,
    Vm,
    VmSpec,
    VmState,
)

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "https://192.0.2.1"),
        ("host.example:8443", "https://host.example:8443"),
        ("https://host.example/", "https://host.example"),
        ("host:443", "https://host"),
        ("2001:db8::1", "https://[2001:db8::1]"),
        ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert normal_address(text) == address


@pytest.mark.parametrize("text", ["", "http://host", "host/path", "host:port", "https://h?x=1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(MisuseError):
        normal_address(text)


@pytest.mark.parametrize(
    "text",
    [
        DIGEST,
        DIGEST.upper(),
        f"sha256:{DIGEST}",
        ":".join(DIGEST[at : at + 2] for at in range(0, 64, 2)),
        shown_fingerprint(DIGEST),
    ],
)
def test_fingerprints(text: str) -> None:
    assert normal_fingerprint(text) == DIGEST


@pytest.mark.parametrize("text", ["", DIGEST[:-1], DIGEST + "0", "g" * 64])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(MisuseError):
        normal_fingerprint(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("4k", 4096),
        ("512M", 512 << 20),
        ("2GiB", 2 << 30),
        ("1.5g", 3 << 29),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert SIZE.convert(text, None, None) == count


@pytest.mark.parametrize("text", ["", "G", "2Q", "-", "1..5g"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SIZE.convert(text, None, None)


def test_sizes_for_people() -> None:
    assert [bytes_text(n) for n in (0, 1023, 1024, 1536, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1.5 KiB",
        "3 TiB",
    ]


def test_known_hosts_are_kept_for_their_user_only(tmp_path: Path) -> None:
    store = ContextStore(tmp_path / "mica/contexts.json")
    with pytest.raises(ConflictError, match="mica claim"):
        store.get(None)
    store.put("a", KnownHost(address="https://a", token="secret-a", fingerprint_sha256=DIGEST))
    assert not store.put("b", KnownHost(address="https://b"))
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert store.get(None).address == "https://a"
    with pytest.raises(ConflictError, match="--replace"):
        store.put("a", KnownHost(address="https://c"))
    store.put("b", KnownHost(address="https://b2"), replace=True, use=True)
    assert store.get(None).address == "https://b2"
    store.use("a")
    with pytest.raises(ConflictError, match="--replace"):
        store.rename("a", "b")
    store.rename("a", "c")
    store.rename("c", "a")
    assert store.get(None).token == "secret-a"
    assert "secret-a" not in repr(store.get("a"))
    store.forget("a")
    assert store.load()[0] is None
    with pytest.raises(ConflictError, match="no current context"):
        store.get(None)
    with pytest.raises(ConflictError, match="there is no context"):
        store.get("a")
    assert [path.name for path in store.path.parent.iterdir()] == ["contexts.json"]


@pytest.mark.parametrize("text", ["{", '{"version": 2}', '{"hosts": []}'])
def test_damaged_store_is_said(tmp_path: Path, text: str) -> None:
    store = ContextStore(tmp_path / "contexts.json")
    store.path.write_text(text)
    with pytest.raises(ConflictError, match=r"contexts\.json"):
        store.load()


def test_answers_of_newer_hosts_are_read() -> None:
    vm: dict[str, Any] = {
        "id": "web",
        "revision": 1,
        "created_at": NOW,
        "new": 1,
        "spec": {"datastore": "main", "new": {}, "disks": [{"volume": "a", "new": 1}]},
        "status": {"state": "running", "uuid": "u", "machine_type": "m", "new": [1]},
    }
    page = read(msgspec.json.encode({"items": [vm], "next": None, "new": 1}), PageOf[Vm])
    assert page.items[0].spec.disks[0].volume == "a"


@pytest.mark.parametrize("text", [b"<html>", b"{}", b'{"items": [{}], "next": null}'])
def test_answers_that_are_none(text: bytes) -> None:
    with pytest.raises(UnexpectedError):
        read(text, PageOf[Vm])


def test_failures_are_one_readable_line() -> None:
    problem = Problem(
        type="/v1/problems/invalid",
        code="invalid",
        title="A value can't be used",
        status=422,
        detail="There is no volume a.",
        instance="urn:mica:request:1",
        errors=(FieldError(pointer="/spec/disks/0/volume", detail="There is no volume a."),),
    )
    refused = RefusedError(problem)
    assert str(refused) == "There is no volume a. (/spec/disks/0/volume)"
    assert refused.code == "invalid"


def test_failed_operations_say_why() -> None:
    operation = Operation(
        id="op-1",
        kind="vm.start",
        subject=Subject(kind="vm", id="web"),
        state=OperationState.FAILED,
        progress=Progress(),
        cancellable=False,
        actor="admin",
        created_at=NOW,
        error=OperationError(
            type="/v1/problems/conflict", code=ErrorCode.CONFLICT, title="T", detail="It runs."
        ),
    )
    assert str(OperationFailedError(operation)) == "vm.start of vm web failed: It runs."


def test_values_and_fields_of_a_newer_host_are_read() -> None:
    page = {
        "items": [
            {
                "id": "web",
                "revision": 3,
                "created_at": NOW,
                "spec": {
                    "datastore": "main",
                    "display": "hologram",
                    "disks": [{"volume": "a", "bus": "cxl", "mood": "good"}],
                    "boot": {"order": ["disk", "cloud"]},
                    "quantum": {"qubits": 4},
                },
                "status": {
                    "state": "hibernating",
                    "uuid": "u",
                    "machine_type": "pc-q35-12.0",
                    "since": 1,
                },
            }
        ],
        "next": None,
        "total": 1,
    }
    vm = read(msgspec.json.encode(page), PageOf[Vm]).items[0]
    assert (vm.spec.display, vm.status.state) == ("hologram", "hibernating")
    assert (vm.spec.disks[0].bus, vm.spec.boot.order[1]) == ("cxl", "cloud")
    assert isinstance(vm.status.state, VmState)
    assert (vm.status.state.value, str(vm.status.state), f"{vm.status.state}") == (
        ("hibernating",) * 3
    )
    assert vm.status.state is not VmState.RUNNING
    assert msgspec.json.decode(msgspec.json.encode(vm))["spec"]["display"] == "hologram"


def test_every_set_of_values_is_open_to_newer_ones() -> None:
    sets = [each for each in vars(schema).values() if isinstance(each, type)]
    closed = [each for each in sets if issubclass(each, Enum) and not issubclass(each, OpenEnum)]
    assert closed == [schema.HttpCode]


def test_requests_take_the_known_values_alone() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"datastore": "m", "display": "hologram"}', type=VmSpec)
    with pytest.raises(ValueError, match="hologram"):
        DisplayModel("hologram")


def test_many_threads_read_at_once() -> None:
    running = Operation(
        id="op-1",
        kind="vm.start",
        subject=Subject(kind="vm", id="web"),
        state=OperationState.RUNNING,
        progress=Progress(),
        cancellable=False,
        actor="admin",
        created_at=NOW,
    )
    operation = msgspec.json.encode(running)
    with ThreadPoolExecutor(16) as pool:
        states = pool.map(lambda _: read(operation, Operation).state, range(200))
        assert set(states) == {OperationState.RUNNING}
