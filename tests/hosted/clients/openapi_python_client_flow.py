"""The flow with what openapi-python-client made, in the package `made_client`."""
# mypy: ignore-errors

from __future__ import annotations

import hashlib
import io
import os
import ssl
from pathlib import Path

from made_client import AuthenticatedClient
from made_client.api.access import create_token, get_own_token
from made_client.api.datastores import create_datastore, get_datastore
from made_client.api.host import get_host
from made_client.api.images import delete_image, download_image, upload_image
from made_client.api.vms import (
    delete_vm,
    get_vm,
    patch_vm,
    power_off_vm,
    put_vm,
    start_vm,
    take_screenshot,
)
from made_client.api.volumes import create_volume
from made_client.models import (
    CpuSpecPatch,
    CreateVolumeIfNoneMatch,
    DatastoreBody,
    DatastoreKind,
    DatastoreSpec,
    DiskSpec,
    PutVmIfNoneMatch,
    Role,
    TokenBody,
    TokenSpec,
    UploadImageFormat,
    VmBody,
    VmBodyPatch,
    VmSpec,
    VmSpecPatch,
    VolumeBody,
    VolumeSpec,
)
from made_client.types import File

__all__ = ["main"]

NAME = os.environ["MICA_NAME"]


def main() -> None:
    context = ssl.create_default_context(cafile=os.environ["MICA_CERTIFICATE"])
    client = AuthenticatedClient(
        base_url=os.environ["MICA_ADDRESS"], token=os.environ["MICA_TOKEN"], verify_ssl=context
    )
    assert get_host.sync(client=client).status.memory.total_bytes > 1 << 31
    secret = create_token.sync(
        NAME, client=client, body=TokenBody(spec=TokenSpec(role=Role.ADMIN))
    ).secret
    client = AuthenticatedClient(
        base_url=os.environ["MICA_ADDRESS"], token=secret, verify_ssl=context, timeout=120
    )
    assert get_own_token.sync(client=client).id == NAME
    made = create_datastore.sync(
        NAME,
        client=client,
        wait=60,
        body=DatastoreBody(
            spec=DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=os.environ["MICA_FOLDER"])
        ),
    )
    assert made.state == "succeeded"
    assert get_datastore.sync(NAME, client=client).status.state == "available"
    data = Path(os.environ["MICA_IMAGE"]).read_bytes()
    image = upload_image.sync(
        NAME,
        client=client,
        datastore=NAME,
        sha256=hashlib.sha256(data).hexdigest(),
        format_=UploadImageFormat.RAW,
        body=File(payload=io.BytesIO(data)),
    )
    assert image.spec.size_bytes == len(data)
    assert download_image.sync(NAME, client=client).payload.read() == data
    volume = create_volume.sync_detailed(
        NAME,
        client=client,
        wait=60,
        if_none_match=CreateVolumeIfNoneMatch.VALUE_0,
        body=VolumeBody(spec=VolumeSpec(datastore=NAME, size_bytes=5 << 30)),
    )
    assert volume.status_code == 200
    body = VmBody(spec=VmSpec(datastore=NAME, memory_bytes=64 << 20, disks=[DiskSpec(volume=NAME)]))
    vm = put_vm.sync_detailed(
        NAME, client=client, body=body, if_none_match=PutVmIfNoneMatch.VALUE_0
    )
    assert (vm.status_code, vm.parsed.spec.cpus.count) == (201, 1)
    again = put_vm.sync_detailed(
        NAME, client=client, body=body, if_none_match=PutVmIfNoneMatch.VALUE_0
    )
    assert (again.status_code, again.parsed.type_) == (412, "/v1/problems/already-exists")
    patch = VmBodyPatch(spec=VmSpecPatch(cpus=CpuSpecPatch(count=2)))
    patched = patch_vm.sync_detailed(NAME, client=client, body=patch, if_match=vm.headers["etag"])
    assert (patched.status_code, patched.parsed.spec.cpus.count) == (200, 2)
    stale = patch_vm.sync_detailed(NAME, client=client, body=patch, if_match=vm.headers["etag"])
    assert stale.status_code == 412
    seen = get_vm.sync_detailed(NAME, client=client)
    known = get_vm.sync_detailed(NAME, client=client, if_none_match=seen.headers["etag"])
    assert known.status_code == 304
    assert start_vm.sync(NAME, client=client, wait=120).state == "succeeded"
    assert get_vm.sync(NAME, client=client).status.state == "running"
    assert start_vm.sync(NAME, client=client).unchanged is True
    picture = take_screenshot.sync(NAME, client=client).payload.read()
    assert picture.startswith(b"\x89PNG")
    assert delete_vm.sync_detailed(NAME, client=client).status_code == 409
    assert power_off_vm.sync(NAME, client=client, wait=60).state == "succeeded"
    assert delete_vm.sync_detailed(NAME, client=client, with_volumes=True).status_code == 204
    assert delete_image.sync_detailed(NAME, client=client).status_code == 204
    assert get_vm.sync_detailed(NAME, client=client).status_code == 404
    print("done")


main()
