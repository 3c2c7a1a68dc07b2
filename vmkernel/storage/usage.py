"""Who uses what, as storage asks it: the VM side once it is there, nobody before."""

from __future__ import annotations

from collections.abc import Callable

from vmkernel.model import ErrorCode, MicaError
from vmkernel.storage.ports import LiveDisks, VmUsers

__all__ = ["Users"]


class Users:
    """Passes questions on to the VM side, which is made after storage."""

    def __init__(self) -> None:
        self._vms: VmUsers | None = None
        self._live: Callable[[], LiveDisks] | None = None

    def bind(self, vms: VmUsers) -> None:
        """From now on ask the VM side."""
        self._vms = vms

    def bind_live(self, live: Callable[[], LiveDisks]) -> None:
        """From now on change the disks of running VMs by this."""
        self._live = live

    def live(self) -> LiveDisks:
        """What changes the disks of running VMs."""
        if self._live is None:
            raise MicaError(
                ErrorCode.UNAVAILABLE, "The VMs are not looked after yet; ask again in a moment."
            )
        return self._live()

    def vm_of_volume(self, volume: str) -> str | None:
        """The id of the VM whose spec names the volume."""
        return self._vms.vm_of_volume(volume) if self._vms else None

    def names_volume(self, volume: str) -> bool | None:
        """True if the stored spec of a VM names the volume; None while that isn't certain."""
        return self._vms.names_volume(volume) if self._vms else None

    def volume_is_open(self, volume: str) -> bool:
        """True where a VM that has the volume is not certainly off."""
        return self._vms.volume_is_open(volume) if self._vms else False

    def snapshots_of(self, volume: str) -> tuple[str, ...]:
        """The snapshots that hold the volume, each as `vm/snapshot`."""
        return self._vms.snapshots_of(volume) if self._vms else ()

    def snapshot_tags(self, volume: str) -> frozenset[str] | None:
        """What VMs call their snapshots inside a volume's file; None where that isn't known."""
        return self._vms.snapshot_tags(volume) if self._vms else None

    def refuse_snapshots(self, volume: str) -> None:
        """Raise `in-use` where a snapshot needs the volume's file as it is."""
        if found := self.snapshots_of(volume):
            raise MicaError(
                ErrorCode.IN_USE,
                f"Snapshot {found[0]} needs volume {volume} as it is: delete the snapshot first.",
            )

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        """The ids of the VMs whose specs name the image."""
        return self._vms.vms_of_image(image) if self._vms else ()

    def vms_on_datastore(self, datastore: str, *, active: bool = False) -> tuple[str, ...]:
        """The VMs with something there."""
        return self._vms.vms_on_datastore(datastore, active=active) if self._vms else ()
