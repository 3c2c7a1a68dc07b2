"""Every request that the vmkernel takes: its fields, the role it needs, the type of its reply.

A request is a record whose class names its wire tag, `ROLE` and `REPLY`. Requests with
`ROLE = None` need no token. `STREAM` says that the reply carries a file descriptor: a connected
stream socket whose meaning the request's docstring gives.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec

from vmkernel.model import (
    ApiInfo,
    ConsoleKind,
    Datastore,
    DatastoreSpec,
    Device,
    Disk,
    Event,
    HostInfo,
    Image,
    ImageSpec,
    IssuedToken,
    Operation,
    PowerAction,
    Record,
    Role,
    Slug,
    Token,
    TokenSpec,
    Vm,
    VmAction,
    VmSpec,
    Volume,
    VolumeSpec,
)

__all__ = [
    "ActOnVm",
    "AnyRequest",
    "CancelOperation",
    "Claim",
    "CreateDatastore",
    "CreateToken",
    "CreateVm",
    "CreateVolume",
    "DatastorePage",
    "DeleteDatastore",
    "DeleteImage",
    "DeleteToken",
    "DeleteVm",
    "DeleteVolume",
    "DevicePage",
    "DiskPage",
    "Done",
    "GetApiInfo",
    "GetDatastore",
    "GetHost",
    "GetImage",
    "GetOperation",
    "GetTlsIdentity",
    "GetToken",
    "GetVm",
    "GetVolume",
    "ImagePage",
    "ListDatastores",
    "ListDevices",
    "ListDisks",
    "ListImages",
    "ListOperations",
    "ListRequest",
    "ListTokens",
    "ListVms",
    "ListVolumes",
    "MAX_PAGE",
    "OpenConsole",
    "OperationPage",
    "PowerHost",
    "Request",
    "ResizeVolume",
    "SubscribeEvents",
    "TlsIdentity",
    "TokenPage",
    "UpdateVm",
    "UploadImage",
    "VmPage",
    "VolumePage",
    "WhoAmI",
]

ReplyT = TypeVar("ReplyT")

MAX_PAGE = 1000
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]


class Request(
    msgspec.Struct,
    Generic[ReplyT],
    frozen=True,
    kw_only=True,
    tag_field="op",
    forbid_unknown_fields=True,
):
    """Base of every request; `ReplyT` is what the reply holds."""

    ROLE: ClassVar[Role | None] = Role.VIEWER
    REPLY: ClassVar[Any] = None
    STREAM: ClassVar[bool] = False
    READ_ONLY: ClassVar[bool] = False
    """True where it changes nothing: it ends when its peer goes away, and is not audited."""


class ListRequest(Request[ReplyT], Generic[ReplyT], frozen=True, kw_only=True):
    """Base of the lists, which are ordered by id: `after` is the last id already seen."""

    READ_ONLY: ClassVar[bool] = True

    limit: Limit = 100
    after: str | None = None


class Done(Record, frozen=True, kw_only=True):
    """The reply of a request that only succeeds."""


class VmPage(Record, frozen=True, kw_only=True):
    """A part of the VMs; `more` where others follow the last one."""

    items: tuple[Vm, ...]
    more: bool


class DatastorePage(Record, frozen=True, kw_only=True):
    """A part of the datastores."""

    items: tuple[Datastore, ...]
    more: bool


class VolumePage(Record, frozen=True, kw_only=True):
    """A part of the volumes."""

    items: tuple[Volume, ...]
    more: bool


class ImagePage(Record, frozen=True, kw_only=True):
    """A part of the images."""

    items: tuple[Image, ...]
    more: bool


class TokenPage(Record, frozen=True, kw_only=True):
    """A part of the tokens."""

    items: tuple[Token, ...]
    more: bool


class OperationPage(Record, frozen=True, kw_only=True):
    """A part of the operations, oldest first."""

    items: tuple[Operation, ...]
    more: bool


class DevicePage(Record, frozen=True, kw_only=True):
    """A part of the physical devices, ordered by bus and address (`after` is `bus/address`)."""

    items: tuple[Device, ...]
    more: bool


class DiskPage(Record, frozen=True, kw_only=True):
    """A part of the host's disks."""

    items: tuple[Disk, ...]
    more: bool


class TlsIdentity(Record, frozen=True, kw_only=True):
    """What the API's TLS listener presents."""

    certificate_pem: bytes
    private_key_pem: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return "TlsIdentity(…)"


# --- host -------------------------------------------------------------------------------------


class GetApiInfo(Request[ApiInfo], frozen=True, kw_only=True, tag="api.info"):
    """What anyone may know."""

    ROLE: ClassVar[Role | None] = None
    REPLY: ClassVar[Any] = ApiInfo
    READ_ONLY: ClassVar[bool] = True


class GetTlsIdentity(Request[TlsIdentity], frozen=True, kw_only=True, tag="api.tls"):
    """The API's certificate and key; no token, given to the peer on the socket alone."""

    ROLE: ClassVar[Role | None] = None
    REPLY: ClassVar[Any] = TlsIdentity
    READ_ONLY: ClassVar[bool] = True


class GetHost(Request[HostInfo], frozen=True, kw_only=True, tag="host.get"):
    """The host as a whole."""

    REPLY: ClassVar[Any] = HostInfo
    READ_ONLY: ClassVar[bool] = True


class ListDevices(ListRequest[DevicePage], frozen=True, kw_only=True, tag="host.devices"):
    """Physical PCI and USB devices."""

    REPLY: ClassVar[Any] = DevicePage


class ListDisks(ListRequest[DiskPage], frozen=True, kw_only=True, tag="host.disks"):
    """The host's disks and what they hold."""

    REPLY: ClassVar[Any] = DiskPage


class PowerHost(Request[Operation], frozen=True, kw_only=True, tag="host.power"):
    """End the guests in order, then power off or reboot."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = Operation

    action: PowerAction


# --- access -----------------------------------------------------------------------------------


class Claim(Request[IssuedToken], frozen=True, kw_only=True, tag="access.claim"):
    """Spend the one-time claim code for an admin token."""

    ROLE: ClassVar[Role | None] = None
    REPLY: ClassVar[Any] = IssuedToken

    code: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    token_id: Slug = "admin"  # noqa: S105 - the id, not the secret

    def __repr__(self) -> str:
        """Without the code."""
        return f"Claim(token_id={self.token_id!r})"


class ListTokens(ListRequest[TokenPage], frozen=True, kw_only=True, tag="access.tokens"):
    """All tokens, without secrets."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = TokenPage


class GetToken(Request[Token], frozen=True, kw_only=True, tag="access.token"):
    """One token, without its secret."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = Token
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class WhoAmI(Request[Token], frozen=True, kw_only=True, tag="access.whoami"):
    """The token that the call came with; it fails as any request does where there is none."""

    REPLY: ClassVar[Any] = Token
    READ_ONLY: ClassVar[bool] = True


class CreateToken(Request[IssuedToken], frozen=True, kw_only=True, tag="access.create-token"):
    """Make a token; its secret is told once, here."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = IssuedToken

    id: Slug
    spec: TokenSpec


class DeleteToken(Request[Done], frozen=True, kw_only=True, tag="access.delete-token"):
    """Revoke a token at once."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = Done

    id: Slug


# --- storage ----------------------------------------------------------------------------------


class ListDatastores(
    ListRequest[DatastorePage], frozen=True, kw_only=True, tag="storage.datastores"
):
    """All datastores."""

    REPLY: ClassVar[Any] = DatastorePage


class GetDatastore(Request[Datastore], frozen=True, kw_only=True, tag="storage.datastore"):
    """One datastore."""

    REPLY: ClassVar[Any] = Datastore
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateDatastore(
    Request[Operation], frozen=True, kw_only=True, tag="storage.create-datastore"
):
    """Make a datastore, or adopt the one that the disk already holds.

    A disk that holds anything else is wiped only where `wipe_serial` equals its id.
    """

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = Operation

    id: Slug
    spec: DatastoreSpec
    wipe_serial: str | None = None


class DeleteDatastore(Request[Operation], frozen=True, kw_only=True, tag="storage.rm-datastore"):
    """Unmount and forget a datastore; its data stay on the disk."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = Operation

    id: Slug


class ListImages(ListRequest[ImagePage], frozen=True, kw_only=True, tag="storage.images"):
    """All images, of one datastore or of all."""

    REPLY: ClassVar[Any] = ImagePage

    datastore: Slug | None = None


class GetImage(Request[Image], frozen=True, kw_only=True, tag="storage.image"):
    """One image."""

    REPLY: ClassVar[Any] = Image
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class UploadImage(Request[Operation], frozen=True, kw_only=True, tag="storage.upload-image"):
    """Take a new image from a stream.

    Sizes, names and free space are checked before the reply. The stream takes exactly
    `spec.size_bytes` bytes and is then shut down for writing; the operation succeeds once length,
    digest and header are proven and the file is durable. Anything else leaves nothing behind.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Operation
    STREAM: ClassVar[bool] = True

    id: Slug
    spec: ImageSpec


class DeleteImage(Request[Done], frozen=True, kw_only=True, tag="storage.delete-image"):
    """Delete an image that no VM names."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Done

    id: Slug


class ListVolumes(ListRequest[VolumePage], frozen=True, kw_only=True, tag="storage.volumes"):
    """All volumes, of one datastore or of all."""

    REPLY: ClassVar[Any] = VolumePage

    datastore: Slug | None = None


class GetVolume(Request[Volume], frozen=True, kw_only=True, tag="storage.volume"):
    """One volume."""

    REPLY: ClassVar[Any] = Volume
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateVolume(Request[Operation], frozen=True, kw_only=True, tag="storage.create-volume"):
    """Make a volume, blank or filled from an image."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Operation

    id: Slug
    spec: VolumeSpec


class ResizeVolume(Request[Operation], frozen=True, kw_only=True, tag="storage.resize-volume"):
    """Grow a volume of a stopped VM (or of none); shrinking needs `allow_shrink`."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Operation

    id: Slug
    size_bytes: int
    revision: int | None = None
    allow_shrink: bool = False


class DeleteVolume(Request[Done], frozen=True, kw_only=True, tag="storage.delete-volume"):
    """Delete a volume that no VM names."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Done

    id: Slug
    revision: int | None = None


# --- virtual machines -------------------------------------------------------------------------


class ListVms(ListRequest[VmPage], frozen=True, kw_only=True, tag="vm.list"):
    """All virtual machines."""

    REPLY: ClassVar[Any] = VmPage


class GetVm(Request[Vm], frozen=True, kw_only=True, tag="vm.get"):
    """One virtual machine."""

    REPLY: ClassVar[Any] = Vm
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateVm(Request[Vm], frozen=True, kw_only=True, tag="vm.create"):
    """Make a virtual machine; the id must be new."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Vm

    id: Slug
    spec: VmSpec


class UpdateVm(Request[Vm], frozen=True, kw_only=True, tag="vm.update"):
    """Replace a VM's spec where `revision` is still the present one."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Vm

    id: Slug
    spec: VmSpec
    revision: int


class DeleteVm(Request[Done], frozen=True, kw_only=True, tag="vm.delete"):
    """Delete a stopped VM; its volumes stay unless `with_volumes`."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Done

    id: Slug
    revision: int | None = None
    with_volumes: bool = False


class ActOnVm(Request[Operation], frozen=True, kw_only=True, tag="vm.act"):
    """Start, shut down, power off or reset a VM."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Operation

    id: Slug
    action: VmAction
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 120.0
    """How long a shutdown may take before the operation fails (nothing is forced)."""


class OpenConsole(Request[Done], frozen=True, kw_only=True, tag="vm.console"):
    """A VM's serial line or VNC server as a raw byte stream in both directions.

    A serial stream begins with the scrollback.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Done
    STREAM: ClassVar[bool] = True

    id: Slug
    kind: ConsoleKind


# --- operations and events --------------------------------------------------------------------


class ListOperations(ListRequest[OperationPage], frozen=True, kw_only=True, tag="operation.list"):
    """Running and recent operations."""

    REPLY: ClassVar[Any] = OperationPage


class GetOperation(Request[Operation], frozen=True, kw_only=True, tag="operation.get"):
    """One operation; with `wait_s`, once it has finished or the time is over."""

    REPLY: ClassVar[Any] = Operation
    READ_ONLY: ClassVar[bool] = True

    id: str
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 0.0


class CancelOperation(Request[Operation], frozen=True, kw_only=True, tag="operation.cancel"):
    """Ask an operation to stop; it answers with the operation as it then stands."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Operation

    id: str


class SubscribeEvents(Request[Event], frozen=True, kw_only=True, tag="event.subscribe"):
    """Every event after `after` (or from now on); the replies go on until the peer closes.

    Where `after` is older than the ring buffer, the first event is `events.lost`.
    """

    REPLY: ClassVar[Any] = Event
    READ_ONLY: ClassVar[bool] = True

    after: str | None = None


AnyRequest = (
    GetApiInfo
    | GetTlsIdentity
    | GetHost
    | ListDevices
    | ListDisks
    | PowerHost
    | Claim
    | ListTokens
    | GetToken
    | WhoAmI
    | CreateToken
    | DeleteToken
    | ListDatastores
    | GetDatastore
    | CreateDatastore
    | DeleteDatastore
    | ListImages
    | GetImage
    | UploadImage
    | DeleteImage
    | ListVolumes
    | GetVolume
    | CreateVolume
    | ResizeVolume
    | DeleteVolume
    | ListVms
    | GetVm
    | CreateVm
    | UpdateVm
    | DeleteVm
    | ActOnVm
    | OpenConsole
    | ListOperations
    | GetOperation
    | CancelOperation
    | SubscribeEvents
)
