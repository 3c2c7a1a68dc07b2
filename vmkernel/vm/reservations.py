"""What the specs of all VMs claim, by name: finding the VM with a volume, an image, a MAC address,
a CID or a user number takes the same time however many VMs there are.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from enum import Enum, auto

from vmkernel.model import ErrorCode, MicaError, VmSpec
from vmkernel.vm.spec.macs import normal_mac

__all__ = ["OthersReservations", "Reservations", "images_of"]


class _Kind(Enum):
    VOLUME = auto()
    IMAGE = auto()
    MAC = auto()
    CID = auto()
    UID = auto()


_Claim = tuple[_Kind, str | int]
_Holder = tuple[str, bool]
"""A VM's id, and whether the claim is that of a change under way."""


class OthersReservations:
    """What others than one VM have, to be looked up in."""

    def __init__(self, claims: Reservations, kind: _Kind, except_vm: str) -> None:
        self._reservations = claims
        self._kind = kind
        self._except_vm = except_vm

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str | int):
            return False
        return any(vm != self._except_vm for vm in self._reservations.holders(self._kind, name))


class Reservations:
    """Owned by the event loop's thread. A VM claims what its spec names, and beside that, while a
    change is under way, what the new spec names."""

    def __init__(self) -> None:
        self._held: dict[_Holder, tuple[VmSpec, int | None]] = {}
        self._holders: dict[_Claim, list[_Holder]] = {}
        self._datastores: Counter[str] = Counter()
        self._changing: set[str] = set()
        """VMs whose specs are being changed."""

    @contextlib.contextmanager
    def change(self, vm_id: str, spec: VmSpec) -> Iterator[None]:
        """Hold what a spec names while the change that brings it is under way; `conflict` if
        another change of the VM is."""
        if vm_id in self._changing:
            raise MicaError(
                ErrorCode.CONFLICT, f"VM {vm_id} is being changed already; retry in a moment."
            )
        self._changing.add(vm_id)
        self.note(vm_id, spec, change=True)
        try:
            yield
        finally:
            self.drop(vm_id, change=True)
            self._changing.remove(vm_id)

    def is_changing(self, vm_id: str) -> bool:
        """True while a VM is made, or its spec changed."""
        return vm_id in self._changing

    def note(
        self, vm_id: str, spec: VmSpec, uid: int | None = None, *, change: bool = False
    ) -> None:
        """A VM has this spec now (and user number), or is getting it by a `change`."""
        self._renew((vm_id, change), (spec, uid))

    def drop(self, vm_id: str, *, change: bool = False) -> None:
        """A VM is no more, or a change has ended."""
        self._renew((vm_id, change), None)

    @property
    def datastores(self) -> frozenset[str]:
        """The datastores with VMs' folders."""
        return frozenset(self._datastores)

    def specs(self) -> tuple[tuple[str, VmSpec], ...]:
        """Every spec that claims something, those of changes under way included."""
        return tuple((vm_id, spec) for (vm_id, _), (spec, _) in self._held.items())

    def vms_of_volume(self, volume: str) -> tuple[str, ...]:
        """The VMs that name a volume, the first one first."""
        return tuple(dict.fromkeys(self.holders(_Kind.VOLUME, volume)))

    def is_stored(self, volume: str) -> bool:
        """True if a VM's stored spec names a volume, and not only a change under way."""
        return any(not change for _, change in self._holders.get((_Kind.VOLUME, volume), ()))

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        """The VMs that name an image, sorted."""
        return tuple(sorted(set(self.holders(_Kind.IMAGE, image))))

    def macs(self, except_vm: str) -> OthersReservations:
        """The MAC addresses of all other VMs."""
        return OthersReservations(self, _Kind.MAC, except_vm)

    def cids(self, except_vm: str) -> OthersReservations:
        """The vsock CIDs of all other VMs."""
        return OthersReservations(self, _Kind.CID, except_vm)

    def uids(self, except_vm: str) -> OthersReservations:
        """The user numbers of all other VMs."""
        return OthersReservations(self, _Kind.UID, except_vm)

    def free_uid(self, first: int, last: int) -> int | None:
        """The lowest user number in a range that no VM has."""
        held = self._holders
        return next((uid for uid in range(first, last + 1) if (_Kind.UID, uid) not in held), None)

    def holders(self, kind: _Kind, name: str | int) -> Iterator[str]:
        """The VMs with reservations."""
        return (vm for vm, _ in self._holders.get((kind, name), ()))

    def _renew(self, holder: _Holder, new: tuple[VmSpec, int | None] | None) -> None:
        """Only differences are changed, so that the first holder stays the first."""
        old = self._held.pop(holder, None)
        before = set(_claims_of(*old)) if old else set()
        after = set(_claims_of(*new)) if new else set()
        for claim in before - after:
            holders = self._holders[claim]
            holders.remove(holder)
            if not holders:
                del self._holders[claim]
        for claim in after - before:
            self._holders.setdefault(claim, []).append(holder)
        if old:
            self._datastores[old[0].datastore] -= 1
            if not self._datastores[old[0].datastore]:
                del self._datastores[old[0].datastore]
        if new:
            self._datastores[new[0].datastore] += 1
            self._held[holder] = new


def _claims_of(spec: VmSpec, uid: int | None) -> Iterator[_Claim]:
    yield from ((_Kind.VOLUME, disk.volume) for disk in spec.disks)
    yield from ((_Kind.IMAGE, image) for image in images_of(spec))
    yield from ((_Kind.MAC, normal_mac(nic.mac)) for nic in spec.nics if nic.mac is not None)
    if spec.vsock is not None and spec.vsock.cid is not None:
        yield _Kind.CID, spec.vsock.cid
    if uid is not None:
        yield _Kind.UID, uid


def images_of(spec: VmSpec) -> set[str]:
    """The images that a spec names."""
    named = {c.image for c in spec.cdroms}
    if spec.boot.kernel is not None:
        named |= {spec.boot.kernel.kernel, spec.boot.kernel.initrd}
    return {name for name in named if name is not None}
