"""The flow with what openapi-generator made for Python, in the package `mica_client`."""
# mypy: ignore-errors

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import mica_client as mica

__all__ = ["main"]

NAME = os.environ["MICA_NAME"]


def client(token: str) -> mica.ApiClient:
    configuration = mica.Configuration(
        host=os.environ["MICA_ADDRESS"],
        access_token=token,
        ssl_ca_cert=os.environ["MICA_CERTIFICATE"],
    )
    return mica.ApiClient(configuration)


def refused(call: object, *arguments: object, **named: object) -> tuple[int, str]:
    try:
        call(*arguments, **named)
    except mica.ApiException as error:
        return error.status, mica.Problem.from_json(error.body).code
    raise AssertionError("it was not refused")


def main() -> None:
    first = client(os.environ["MICA_TOKEN"])
    assert mica.HostApi(first).get_host().status.memory.total_bytes > 1 << 31
    token = mica.TokenBody(spec=mica.TokenSpec(role=mica.Role.ADMIN))
    api = client(mica.AccessApi(first).create_token(NAME, token).secret)
    assert mica.AccessApi(api).get_own_token().id == NAME
    spec = mica.DatastoreSpec(kind=mica.DatastoreKind.DIRECTORY, path=os.environ["MICA_FOLDER"])
    made = mica.DatastoresApi(api).create_datastore(NAME, mica.DatastoreBody(spec=spec), wait=60)
    assert made.state == "succeeded"
    data = Path(os.environ["MICA_IMAGE"]).read_bytes()
    images = mica.ImagesApi(api)
    digest = hashlib.sha256(data).hexdigest()
    image = images.upload_image(NAME, NAME, digest, data, format="raw")
    assert image.spec.size_bytes == len(data)
    assert images.download_image(NAME) == data
    volume = mica.VolumeBody(spec=mica.VolumeSpec(datastore=NAME, size_bytes=5 << 30))
    made = mica.VolumesApi(api).create_volume(NAME, volume, wait=60, if_none_match="*")
    assert made.state == "succeeded"
    vms = mica.VmsApi(api)
    spec = mica.VmSpec(datastore=NAME, memory_bytes=64 << 20, disks=[mica.DiskSpec(volume=NAME)])
    body = mica.VmBody(spec=spec)
    answer = vms.put_vm_with_http_info(NAME, body, if_none_match="*")
    assert (answer.status_code, answer.data.spec.cpus.count) == (201, 1)
    assert refused(vms.put_vm, NAME, body, if_none_match="*") == (412, "already-exists")
    patch = mica.VmBodyPatch(spec=mica.VmSpecPatch(cpus=mica.CpuSpecPatch(count=2)))
    etag = answer.headers["etag"]
    assert vms.patch_vm(NAME, patch, if_match=etag).spec.cpus.count == 2
    assert refused(vms.patch_vm, NAME, patch, if_match=etag) == (412, "revision-mismatch")
    assert vms.start_vm(NAME, wait=120).state == "succeeded"
    assert vms.get_vm(NAME).status.state == "running"
    assert vms.start_vm(NAME).unchanged is True
    assert bytes(vms.take_screenshot(NAME)).startswith(b"\x89PNG")
    assert refused(vms.delete_vm, NAME)[0] == 409
    assert vms.power_off_vm(NAME, wait=60).state == "succeeded"
    vms.delete_vm(NAME, with_volumes=True)
    images.delete_image(NAME)
    assert refused(vms.get_vm, NAME) == (404, "not-found")
    print("done")


main()
