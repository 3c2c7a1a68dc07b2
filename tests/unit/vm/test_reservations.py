"""The index of what specs claim, against looking through all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmkernel.model import (
    BootSpec,
    CdromSpec,
    DiskSpec,
    KernelBoot,
    NicSpec,
    VmSpec,
    VsockSpec,
)
from vmkernel.vm.reservations import Reservations

MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03")
VOLUMES = ("a", "b", "c")
IMAGES = ("i", "j")
VMS = ("web", "db", "mail")
CIDS = (3, 4)
UIDS = (100_000, 100_001, 100_002)

specs = st.builds(
    lambda datastore, volumes, macs, image, kernel, cid: VmSpec(
        datastore=datastore,
        disks=tuple(DiskSpec(volume=name) for name in volumes),
        nics=tuple(NicSpec(mac=mac) for mac in macs),
        cdroms=(CdromSpec(image=image),),
        boot=BootSpec(kernel=KernelBoot(kernel=kernel) if kernel else None),
        vsock=VsockSpec(cid=cid) if cid else None,
    ),
    st.sampled_from(("main", "other")),
    st.lists(st.sampled_from(VOLUMES), unique=True),
    st.lists(st.sampled_from((*MACS, None)), max_size=3),
    st.sampled_from((*IMAGES, None)),
    st.sampled_from((*IMAGES, None)),
    st.sampled_from((*CIDS, None)),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(VMS), st.booleans(), st.none() | st.tuples(specs, st.sampled_from(UIDS))
    )
)


@given(steps)
def test_it_says_what_looking_through_all_specs_says(
    steps: list[tuple[str, bool, tuple[VmSpec, int] | None]],
) -> None:
    claims = Reservations()
    held: dict[tuple[str, bool], tuple[VmSpec, int | None]] = {}
    for vm_id, change, new in steps:
        if new is None:
            claims.drop(vm_id, change=change)
            held.pop((vm_id, change), None)
        else:
            spec, uid = new[0], None if change else new[1]
            claims.note(vm_id, spec, uid, change=change)
            held[(vm_id, change)] = (spec, uid)
    for volume in VOLUMES:
        there = {vm for (vm, _), (s, _) in held.items() if any(d.volume == volume for d in s.disks)}
        found = claims.vms_of_volume(volume)
        assert set(found) == there
        assert len(found) == len(there)
    for image in IMAGES:
        there = {
            vm
            for (vm, _), (s, _) in held.items()
            if image == s.cdroms[0].image or (s.boot.kernel and s.boot.kernel.kernel == image)
        }
        assert claims.vms_of_image(image) == tuple(sorted(there))
    for except_vm in (*VMS, "fresh"):
        others = [(s, uid) for (vm, _), (s, uid) in held.items() if vm != except_vm]
        for mac in MACS:
            taken = any(nic.mac == mac for s, _ in others for nic in s.nics)
            assert (mac in claims.macs(except_vm)) is taken
        for cid in CIDS:
            taken = any(s.vsock is not None and s.vsock.cid == cid for s, _ in others)
            assert (cid in claims.cids(except_vm)) is taken
        for number in UIDS:
            assert (number in claims.uids(except_vm)) is any(uid == number for _, uid in others)
    used = {uid for _, uid in held.values()}
    free = [uid for uid in UIDS if uid not in used]
    assert claims.free_uid(UIDS[0], UIDS[-1]) == (free[0] if free else None)
    assert claims.datastores == {s.datastore for s, _ in held.values()}
    assert sorted(vm for vm, _ in claims.specs()) == sorted(vm for vm, _ in held)


def test_who_came_first_stays_first() -> None:
    claims = Reservations()
    both = VmSpec(datastore="main", disks=(DiskSpec(volume="a"),))
    claims.note("web", both)
    claims.note("db", both)
    more = VmSpec(datastore="main", disks=(DiskSpec(volume="a"), DiskSpec(volume="b")))
    claims.note("web", more)
    assert claims.vms_of_volume("a") == ("web", "db")
    claims.drop("web")
    assert claims.vms_of_volume("a") == ("db",)
    assert claims.vms_of_volume("b") == ()
