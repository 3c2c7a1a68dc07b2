"""The SDK: one typed method for each call of the API, one module for each noun.

It never touches the terminal.

with Mica("192.0.2.7", token=token, fingerprint=fingerprint) as mica:
    mica.wait(mica.start_vm("web-1"))
"""

from __future__ import annotations

from remote_api.client.sdk.access import AccessCalls
from remote_api.client.sdk.backups import BackupCalls
from remote_api.client.sdk.base import OnBytes, OnProgress
from remote_api.client.sdk.console import ConsoleCalls
from remote_api.client.sdk.datastores import DatastoreCalls
from remote_api.client.sdk.files import file_sha256
from remote_api.client.sdk.host import HostCalls
from remote_api.client.sdk.operations import OperationCalls
from remote_api.client.sdk.snapshots import SnapshotCalls
from remote_api.client.sdk.statistics import StatisticsCalls
from remote_api.client.sdk.uploads import UploadCalls
from remote_api.client.sdk.vms import VmCalls
from remote_api.client.sdk.volumes import VolumeCalls
from remote_api.client.sdk.webhooks import WebhookCalls

__all__ = ["Mica", "OnBytes", "OnProgress", "file_sha256"]


class Mica(
    HostCalls,
    AccessCalls,
    WebhookCalls,
    DatastoreCalls,
    VolumeCalls,
    UploadCalls,
    VmCalls,
    SnapshotCalls,
    BackupCalls,
    ConsoleCalls,
    StatisticsCalls,
    OperationCalls,
):
    """One host."""

    def __enter__(self) -> Mica:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
