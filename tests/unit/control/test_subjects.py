"""What the audit trail says that a request is about."""

from __future__ import annotations

from typing import Any

import pytest

from vmkernel.control import requests
from vmkernel.control.subjects import noun_of, subject_of
from vmkernel.model import PowerAction, Role, Subject, TokenSpec, UploadSpec


@pytest.mark.parametrize(
    ("request_", "subject"),
    [
        (requests.DeleteVm(id="web"), ("vm", "web")),
        (requests.RevertToSnapshot(vm="web", id="before"), ("vm", "web")),
        (requests.DeleteCheckpoint(id="web", checkpoint="c"), ("vm", "web")),
        (requests.AddDatastoreDisk(id="main", disk="serial"), ("datastore", "main")),
        (requests.DeleteDatastore(id="main"), ("datastore", "main")),
        (requests.WipeDisk(disk="serial", wipe_serial="serial"), ("disk", "serial")),
        (requests.ReadImage(id="iso", offset=0, length=1), ("image", "iso")),
        (requests.CheckVolume(id="v"), ("volume", "v")),
        (requests.DeleteUpload(id="u"), ("upload", "u")),
        (
            requests.CreateUpload(spec=UploadSpec(image="iso", datastore="main", size_bytes=1)),
            ("image", "iso"),
        ),
        (requests.CreateToken(id="t", spec=TokenSpec(role=Role.VIEWER)), ("token", "t")),
        (requests.CancelOperation(id="op-1"), ("operation", "op-1")),
        (requests.PowerHost(action=PowerAction.REBOOT), ("host", "host")),
        (requests.Claim(code="x"), ("host", "host")),
    ],
)
def test_subjects(request_: requests.Request[Any], subject: tuple[str, str]) -> None:
    assert subject_of(request_) == Subject(kind=subject[0], id=subject[1])


class _Get(requests.Request[None], frozen=True, kw_only=True, tag="affinity-rule.get"):
    id: str


def test_a_new_area_is_its_noun() -> None:
    assert subject_of(_Get(id="apart")) == Subject(kind="affinity-rule", id="apart")


def test_every_request_with_an_id_names_its_kind_of_object() -> None:
    unnamed = [
        kind.__name__
        for kind in requests.REQUESTS
        if {"id", "vm"} & set(kind.__struct_fields__) and noun_of(kind) is None
    ]
    assert unnamed == []
