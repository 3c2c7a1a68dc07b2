"""Every request that the vmkernel takes: its fields, the role it needs, the type of its reply;
one module an area. It holds data alone and must not touch any service.

A request is a record whose class names its wire tag, `ROLE` and `REPLY`. Requests with
`ROLE = None` need no token. `STREAM` says that the reply carries a file descriptor: a connected
stream socket whose meaning the request's docstring gives.
"""

from __future__ import annotations

from vmkernel.control.requests.access import (
    AuditPage,
    Claim,
    CreateToken,
    DeleteToken,
    GetToken,
    ListAudit,
    ListTokens,
    TokenPage,
    WhoAmI,
)
from vmkernel.control.requests.backups import (
    BackupExtents,
    BackupList,
    BeginBackup,
    CheckpointList,
    DeleteCheckpoint,
    EndBackup,
    GetBackup,
    GetBackupVm,
    ListBackups,
    ListCheckpoints,
    ListExtents,
    ReadBackup,
    WriteVolume,
)
from vmkernel.control.requests.base import MAX_PAGE, Done, ListRequest, Request
from vmkernel.control.requests.clones import CloneVm
from vmkernel.control.requests.console import (
    InjectNmi,
    OpenConsole,
    Screenshot,
    SendKeys,
    TakeScreenshot,
)
from vmkernel.control.requests.datastores import (
    AddDatastoreDisk,
    CreateDatastore,
    DatastorePage,
    DeleteDatastore,
    DiskPage,
    GetDatastore,
    GrowDatastore,
    ListDatastores,
    ListDisks,
    MountDatastore,
    RenameDatastore,
    ReplaceDatastoreDisk,
    UnmountDatastore,
    UpdateDatastore,
    WipeDisk,
)
from vmkernel.control.requests.host import (
    DevicePage,
    GetApiInfo,
    GetHost,
    GetTlsIdentity,
    ListDevices,
    PowerHost,
    RotateCertificate,
    TlsIdentity,
)
from vmkernel.control.requests.images import (
    CaptureImage,
    CreateUpload,
    DeleteUpload,
    GetImageMap,
    GetUpload,
    GetVolumeData,
    GetVolumeMap,
    ListUploads,
    PullImage,
    ReadImage,
    ReadVolume,
    UploadImage,
    UploadPage,
    WriteUpload,
)
from vmkernel.control.requests.operations import (
    CancelOperation,
    GetOperation,
    ListOperations,
    OperationPage,
    SubscribeEvents,
)
from vmkernel.control.requests.snapshots import (
    CreateSnapshot,
    DeleteSnapshot,
    GetSnapshot,
    ListSnapshots,
    RevertToSnapshot,
    SnapshotPage,
)
from vmkernel.control.requests.statistics import (
    AllStatistics,
    GetAllStatistics,
    GetHostStatistics,
    GetVmStatistics,
)
from vmkernel.control.requests.storage import (
    CheckVolume,
    CreateVolume,
    DeleteImage,
    DeleteVolume,
    FlattenVolume,
    GetImage,
    GetVolume,
    ImagePage,
    ListImages,
    ListVolumes,
    MoveVolume,
    ResizeVolume,
    VolumePage,
)
from vmkernel.control.requests.vm import (
    ActOnVm,
    CreateVm,
    DeleteVm,
    GetVm,
    ListVms,
    UpdateVm,
    VmPage,
)

__all__ = [
    "ActOnVm",
    "AddDatastoreDisk",
    "AllStatistics",
    "AnyRequest",
    "AuditPage",
    "BackupExtents",
    "BackupList",
    "BeginBackup",
    "CancelOperation",
    "CaptureImage",
    "CheckVolume",
    "CheckpointList",
    "Claim",
    "CloneVm",
    "CreateDatastore",
    "CreateSnapshot",
    "CreateToken",
    "CreateUpload",
    "CreateVm",
    "CreateVolume",
    "DatastorePage",
    "DeleteCheckpoint",
    "DeleteDatastore",
    "DeleteImage",
    "DeleteSnapshot",
    "DeleteToken",
    "DeleteUpload",
    "DeleteVm",
    "DeleteVolume",
    "DevicePage",
    "DiskPage",
    "Done",
    "EndBackup",
    "FlattenVolume",
    "GetAllStatistics",
    "GetApiInfo",
    "GetBackup",
    "GetBackupVm",
    "GetDatastore",
    "GetHost",
    "GetHostStatistics",
    "GetImage",
    "GetImageMap",
    "GetOperation",
    "GetSnapshot",
    "GetTlsIdentity",
    "GetToken",
    "GetUpload",
    "GetVm",
    "GetVmStatistics",
    "GetVolume",
    "GetVolumeData",
    "GetVolumeMap",
    "GrowDatastore",
    "ImagePage",
    "InjectNmi",
    "ListAudit",
    "ListBackups",
    "ListCheckpoints",
    "ListDatastores",
    "ListDevices",
    "ListDisks",
    "ListExtents",
    "ListImages",
    "ListOperations",
    "ListRequest",
    "ListSnapshots",
    "ListTokens",
    "ListUploads",
    "ListVms",
    "ListVolumes",
    "MAX_PAGE",
    "MountDatastore",
    "MoveVolume",
    "OpenConsole",
    "OperationPage",
    "PowerHost",
    "PullImage",
    "ReadBackup",
    "ReadImage",
    "ReadVolume",
    "RenameDatastore",
    "ReplaceDatastoreDisk",
    "Request",
    "ResizeVolume",
    "RevertToSnapshot",
    "RotateCertificate",
    "Screenshot",
    "SendKeys",
    "SnapshotPage",
    "SubscribeEvents",
    "TakeScreenshot",
    "TlsIdentity",
    "TokenPage",
    "UnmountDatastore",
    "UpdateDatastore",
    "UpdateVm",
    "UploadImage",
    "UploadPage",
    "VmPage",
    "VolumePage",
    "WhoAmI",
    "WipeDisk",
    "WriteUpload",
    "WriteVolume",
]

AnyRequest = (
    GetApiInfo
    | GetTlsIdentity
    | GetHost
    | ListDevices
    | ListDisks
    | PowerHost
    | RotateCertificate
    | Claim
    | ListTokens
    | ListAudit
    | GetToken
    | WhoAmI
    | CreateToken
    | DeleteToken
    | ListDatastores
    | GetDatastore
    | CreateDatastore
    | DeleteDatastore
    | AddDatastoreDisk
    | GrowDatastore
    | MountDatastore
    | RenameDatastore
    | ReplaceDatastoreDisk
    | UnmountDatastore
    | UpdateDatastore
    | WipeDisk
    | ListImages
    | GetImage
    | UploadImage
    | PullImage
    | CaptureImage
    | ReadImage
    | GetVolumeData
    | GetImageMap
    | GetVolumeMap
    | ReadVolume
    | ListUploads
    | GetUpload
    | CreateUpload
    | WriteUpload
    | DeleteUpload
    | DeleteImage
    | ListVolumes
    | GetVolume
    | CreateVolume
    | ResizeVolume
    | MoveVolume
    | CheckVolume
    | WriteVolume
    | BeginBackup
    | ListBackups
    | GetBackup
    | GetBackupVm
    | EndBackup
    | ListExtents
    | ReadBackup
    | ListCheckpoints
    | DeleteCheckpoint
    | DeleteVolume
    | FlattenVolume
    | ListVms
    | GetVm
    | CreateVm
    | UpdateVm
    | DeleteVm
    | ActOnVm
    | OpenConsole
    | TakeScreenshot
    | SendKeys
    | InjectNmi
    | GetVmStatistics
    | GetHostStatistics
    | GetAllStatistics
    | ListOperations
    | GetOperation
    | CancelOperation
    | CloneVm
    | ListSnapshots
    | GetSnapshot
    | CreateSnapshot
    | RevertToSnapshot
    | DeleteSnapshot
    | SubscribeEvents
)
