"""The VM side, as used by storage: made after storage, so there are no VMs until it is bound."""

from __future__ import annotations

from collections.abc import Callable

from vmkernel.model import ErrorCode, MicaError
from vmkernel.storage.ports import LiveDisks, VmUsers

__all__ = ["VmUsage"]


class _NoVms:
    def vm_of_volume(self, volume: str) -> str | None:  # noqa: ARG002
        return None

    def names_volume(self, volume: str) -> bool | None:  # noqa: ARG002
        """Not certain: the VMs haven't been read yet."""
        return None

    def volume_is_open(self, volume: str) -> bool:  # noqa: ARG002
        return False

    def snapshots_of(self, volume: str) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def snapshot_tags(self, volume: str) -> frozenset[str] | None:  # noqa: ARG002
        """Not known: the VMs haven't been read yet."""
        return None

    def vms_of_image(self, image: str) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def vms_on_datastore(
        self,
        datastore: str,  # noqa: ARG002
        *,
        active: bool = False,  # noqa: ARG002
    ) -> tuple[str, ...]:
        return ()


class VmUsage:
    """Holds the VM side for the parts of storage, which are made before it."""

    def __init__(self) -> None:
        self.vms: VmUsers = _NoVms()
        self._bound = False
        self._live: Callable[[], LiveDisks] | None = None

    def bind(self, vms: VmUsers) -> None:
        """From now on use this VM side."""
        self.vms = vms
        self._bound = True

    def may_run_on(self, datastore: str) -> bool:
        """True unless it is certain that no VM has files of a datastore open. While the host
        starts, and the VM side can't be asked yet, it isn't: VMs outlive a vmkernel."""
        return not self._bound or bool(self.vms.vms_on_datastore(datastore, active=True))

    def bind_live(self, live: Callable[[], LiveDisks]) -> None:
        """From now on change the disks of running VMs with this."""
        self._live = live

    def live(self) -> LiveDisks:
        if self._live is None:
            raise MicaError(
                ErrorCode.UNAVAILABLE, "The VM service is still starting; try again in a moment."
            )
        return self._live()

    def refuse_snapshots(self, volume: str) -> None:
        """Raise `in-use` if a snapshot needs the volume's file as it is."""
        if found := self.vms.snapshots_of(volume):
            raise MicaError(
                ErrorCode.IN_USE,
                f"Snapshot {found[0]} needs volume {volume} as it is: delete the snapshot first.",
            )
