"""The SDK: one method a call, typed by the schema.

with Mica("192.0.2.7", token=token, fingerprint=fingerprint) as mica:
    mica.wait(mica.start_vm("web-1"))
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from remote_api.client.errors import (
    MisuseError,
    OperationFailedError,
    TimedOutError,
    UnreachableError,
)
from remote_api.client.reading import read
from remote_api.client.transport import ANSWER_TIMEOUT_S, Answer, Transport
from remote_api.schema import (
    ApiInfo,
    ClaimBody,
    ConsoleBody,
    ConsoleKind,
    ConsoleTicket,
    Datastore,
    DatastoreBody,
    DatastorePage,
    DatastoreSpec,
    Device,
    DevicePage,
    Disk,
    DiskPage,
    Event,
    Host,
    Image,
    ImageFormat,
    ImagePage,
    IssuedToken,
    Operation,
    OperationPage,
    OperationState,
    PowerAction,
    PowerBody,
    Token,
    TokenBody,
    TokenPage,
    TokenSpec,
    Vm,
    VmBody,
    VmPage,
    VmSpec,
    Volume,
    VolumeBody,
    VolumePage,
    VolumeSpec,
)

__all__ = ["Mica", "OnBytes", "OnProgress"]

T = TypeVar("T")
OnBytes = Callable[[int], None]
"""Told how many bytes more have gone."""
OnProgress = Callable[[Operation], None]

_CREATE = {"if-none-match": "*"}
_MERGE_PATCH = {"content-type": "application/merge-patch+json"}
_PART_BYTES = 1 << 18
_PAGE = 200
_POLL_S = 1.0
_EVENTS_IDLE_S = 45.0


class Mica:
    """One host."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        fingerprint: str | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        hooks: Mapping[str, list[Any]] | None = None,
    ) -> None:
        """A client of the host at `address`, trusted by `fingerprint` (see Transport)."""
        self.transport = Transport(
            address, token=token, fingerprint=fingerprint, timeout_s=timeout_s, hooks=hooks
        )

    def __enter__(self) -> Mica:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    # --- host ---------------------------------------------------------------------------------

    def api(self) -> ApiInfo:
        """What anyone may know of the host."""
        return self.transport.send("GET", "/v1").read(ApiInfo)

    def host(self) -> Host:
        """The host."""
        return self.transport.send("GET", "/v1/host").read(Host)

    def devices(self) -> Iterator[Device]:
        """All PCI and USB devices."""
        return self._all("/v1/host/devices", DevicePage)

    def disks(self) -> Iterator[Disk]:
        """All disks of the host."""
        return self._all("/v1/host/disks", DiskPage)

    def power(self, action: PowerAction) -> Operation:
        """End the guests in order, then power off or reboot."""
        return self._operation("POST", "/v1/host/power", body=PowerBody(action=action))

    # --- access -------------------------------------------------------------------------------

    def claim(self, code: str, *, token_id: str = "admin") -> IssuedToken:  # noqa: S107 - an id
        """Spend the claim code for an admin token."""
        body = ClaimBody(code=code, token_id=token_id)
        return self.transport.send("POST", "/v1/claim", body=body).read(IssuedToken)

    def whoami(self) -> Token:
        """The token of this client."""
        return self.transport.send("GET", "/v1/whoami").read(Token)

    def tokens(self) -> Iterator[Token]:
        """All tokens."""
        return self._all("/v1/tokens", TokenPage)

    def create_token(self, token_id: str, spec: TokenSpec) -> IssuedToken:
        """Make a token; its secret is in the answer and nowhere else."""
        path = f"/v1/tokens/{token_id}"
        return self.transport.send("PUT", path, body=TokenBody(spec=spec), headers=_CREATE).read(
            IssuedToken
        )

    def delete_token(self, token_id: str) -> None:
        """Revoke a token."""
        self.transport.send("DELETE", f"/v1/tokens/{token_id}")

    # --- storage ------------------------------------------------------------------------------

    def datastores(self) -> Iterator[Datastore]:
        """All datastores."""
        return self._all("/v1/datastores", DatastorePage)

    def datastore(self, datastore_id: str) -> Datastore:
        """One datastore."""
        return self.transport.send("GET", f"/v1/datastores/{datastore_id}").read(Datastore)

    def create_datastore(
        self, datastore_id: str, spec: DatastoreSpec, *, wipe_serial: str | None = None
    ) -> Operation:
        """Make a datastore, or take over the one that a disk holds."""
        return self._operation(
            "PUT",
            f"/v1/datastores/{datastore_id}",
            body=DatastoreBody(spec=spec, wipe_serial=wipe_serial),
            headers=_CREATE,
        )

    def delete_datastore(self, datastore_id: str) -> Operation:
        """Unmount and forget a datastore."""
        return self._operation("DELETE", f"/v1/datastores/{datastore_id}")

    def images(self, datastore: str | None = None) -> Iterator[Image]:
        """All images."""
        return self._all("/v1/images", ImagePage, datastore=datastore)

    def image(self, image_id: str) -> Image:
        """One image."""
        return self.transport.send("GET", f"/v1/images/{image_id}").read(Image)

    def upload_image(
        self,
        image_id: str,
        file: Path,
        *,
        datastore: str,
        image_format: ImageFormat,
        sha256: str | None = None,
        wait_s: float = 300.0,
        on_bytes: OnBytes | None = None,
    ) -> Image | Operation:
        """Upload a file; an operation where the host takes longer than `wait_s` to prove it."""
        digest = sha256 or file_sha256(file)
        try:
            size = file.stat().st_size
        except OSError as error:
            raise MisuseError(f"{file} can't be read: {error.strerror}") from error
        answer = self.transport.send(
            "PUT",
            f"/v1/images/{image_id}",
            parameters={
                "datastore": datastore,
                "format": image_format.value,
                "sha256": digest,
                "wait": wait_s,
            },
            content=_parts(file, on_bytes),
            headers={
                **_CREATE,
                "content-length": str(size),
                "content-type": "application/octet-stream",
            },
            wait_s=wait_s,
        )
        return answer.read(Operation) if answer.status == 202 else answer.read(Image)

    def delete_image(self, image_id: str) -> None:
        """Delete an image."""
        self.transport.send("DELETE", f"/v1/images/{image_id}")

    def volumes(self, datastore: str | None = None) -> Iterator[Volume]:
        """All volumes."""
        return self._all("/v1/volumes", VolumePage, datastore=datastore)

    def volume(self, volume_id: str) -> Volume:
        """One volume."""
        return self.transport.send("GET", f"/v1/volumes/{volume_id}").read(Volume)

    def create_volume(self, volume_id: str, spec: VolumeSpec) -> Operation:
        """Make a volume."""
        return self._operation(
            "PUT", f"/v1/volumes/{volume_id}", body=VolumeBody(spec=spec), headers=_CREATE
        )

    def resize_volume(
        self, volume_id: str, size_bytes: int, *, allow_shrink: bool = False
    ) -> Operation:
        """Change a volume's size."""
        return self._operation(
            "PATCH",
            f"/v1/volumes/{volume_id}",
            body={"spec": {"size_bytes": size_bytes}},
            headers=_MERGE_PATCH,
            allow_shrink=allow_shrink,
        )

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume."""
        self.transport.send("DELETE", f"/v1/volumes/{volume_id}")

    # --- virtual machines ---------------------------------------------------------------------

    def vms(self) -> Iterator[Vm]:
        """All virtual machines."""
        return self._all("/v1/vms", VmPage)

    def vm(self, vm_id: str) -> Vm:
        """One virtual machine."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}").read(Vm)

    def create_vm(self, vm_id: str, spec: VmSpec) -> Vm:
        """Make a virtual machine."""
        return self.transport.send(
            "PUT", f"/v1/vms/{vm_id}", body=VmBody(spec=spec), headers=_CREATE
        ).read(Vm)

    def replace_vm(self, vm: Vm, spec: VmSpec) -> Vm:
        """Replace the spec of a virtual machine that nobody else has changed since `vm`."""
        return self.transport.send(
            "PUT",
            f"/v1/vms/{vm.id}",
            body=VmBody(spec=spec),
            headers={"if-match": f'"{vm.revision}"'},
        ).read(Vm)

    def patch_vm(self, vm_id: str, patch: dict[str, Any], *, revision: int | None = None) -> Vm:
        """Merge a patch of the spec (RFC 7396)."""
        headers = dict(_MERGE_PATCH)
        if revision is not None:
            headers["if-match"] = f'"{revision}"'
        return self.transport.send(
            "PATCH", f"/v1/vms/{vm_id}", body={"spec": patch}, headers=headers
        ).read(Vm)

    def delete_vm(self, vm_id: str, *, with_volumes: bool = False) -> None:
        """Delete a stopped virtual machine."""
        self.transport.send("DELETE", f"/v1/vms/{vm_id}", parameters={"with_volumes": with_volumes})

    def start_vm(self, vm_id: str) -> Operation:
        """Start a virtual machine."""
        return self._operation("POST", f"/v1/vms/{vm_id}/start")

    def shut_down_vm(self, vm_id: str, *, timeout_s: float = 120.0) -> Operation:
        """Ask the guest to shut down."""
        return self._operation("POST", f"/v1/vms/{vm_id}/shutdown", timeout_s=timeout_s)

    def power_off_vm(self, vm_id: str) -> Operation:
        """End a virtual machine at once."""
        return self._operation("POST", f"/v1/vms/{vm_id}/power-off")

    def reset_vm(self, vm_id: str) -> Operation:
        """Reset a virtual machine."""
        return self._operation("POST", f"/v1/vms/{vm_id}/reset")

    def console_ticket(self, vm_id: str, kind: ConsoleKind = ConsoleKind.SERIAL) -> ConsoleTicket:
        """Open a console; see console.py for the WebSocket."""
        return self.transport.send(
            "POST", f"/v1/vms/{vm_id}/console", body=ConsoleBody(kind=kind)
        ).read(ConsoleTicket)

    # --- operations and events ----------------------------------------------------------------

    def operations(self) -> Iterator[Operation]:
        """Running and recent operations."""
        return self._all("/v1/operations", OperationPage)

    def operation(self, operation_id: str, *, wait_s: float = 0.0) -> Operation:
        """One operation, once it has finished or the wait is over."""
        return self.transport.send(
            "GET", f"/v1/operations/{operation_id}", parameters={"wait": wait_s}, wait_s=wait_s
        ).read(Operation)

    def cancel(self, operation_id: str) -> Operation:
        """Ask an operation to stop."""
        path = f"/v1/operations/{operation_id}/cancel"
        return self.transport.send("POST", path).read(Operation)

    def wait(
        self,
        operation: Operation,
        *,
        timeout_s: float = 3600.0,
        on_progress: OnProgress | None = None,
    ) -> Operation:
        """The operation once it has succeeded.

        Raises OperationFailedError where it ends otherwise, TimedOutError where it goes on.
        """
        end = time.monotonic() + timeout_s
        poll_s = _POLL_S if on_progress else 30.0
        while not operation.state.finished:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TimedOutError(
                    f"operation {operation.id} ({operation.kind}) goes on after {timeout_s:g} s"
                )
            operation = self.operation(operation.id, wait_s=min(poll_s, left_s))
            if on_progress is not None:
                on_progress(operation)
        if operation.state is not OperationState.SUCCEEDED:
            raise OperationFailedError(operation)
        return operation

    def events(self, after: str | None = None, *, reconnect: bool = True) -> Iterator[Event]:
        """What happens from now on, or after an event; connections that break are made anew."""
        while True:
            headers = {"accept": "text/event-stream"}
            if after is not None:
                headers["last-event-id"] = after
            try:
                with self.transport.stream(
                    "/v1/events", headers=headers, idle_timeout_s=_EVENTS_IDLE_S
                ) as lines:
                    for line in lines:
                        if line.startswith("data:"):
                            event = read(line[5:].strip().encode("utf-8"), Event)
                            after = event.id
                            yield event
            except UnreachableError:
                if not reconnect:
                    raise
            if not reconnect:
                return
            time.sleep(_POLL_S)

    # --- parts --------------------------------------------------------------------------------

    def _operation(
        self,
        method: str,
        path: str,
        *,
        body: msgspec.Struct | dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: str | float | bool | None,
    ) -> Operation:
        answer: Answer = self.transport.send(
            method, path, body=body, headers=headers, parameters=parameters
        )
        return answer.read(Operation)

    def _all(self, path: str, page_type: type[Any], **parameters: str | None) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self.transport.send(
                "GET", path, parameters={"limit": _PAGE, "page": token, **parameters}
            ).read(page_type)
            yield from page.items
            token = page.next
            if token is None:
                return


def file_sha256(file: Path, on_bytes: OnBytes | None = None) -> str:
    """The digest of a file. Raises MisuseError where it can't be read."""
    digest = hashlib.sha256()
    for part in _parts(file, on_bytes):
        digest.update(part)
    return digest.hexdigest()


def _parts(file: Path, on_bytes: OnBytes | None) -> Iterator[bytes]:
    try:
        with file.open("rb") as source:
            while part := source.read(_PART_BYTES):
                yield part
                if on_bytes is not None:
                    on_bytes(len(part))
    except OSError as error:
        raise MisuseError(f"{file} can't be read: {error.strerror}") from error
