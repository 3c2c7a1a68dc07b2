"""Every field of a VM's spec, found by reflection, and another value for each."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect
from msgspec.structs import replace

from vmkernel.model import (
    BootSpec,
    CdromSpec,
    Clock,
    CloudInitSpec,
    CpuSpec,
    DiskBus,
    DiskLimits,
    DiskSpec,
    GuestOs,
    MemorySpec,
    NicModel,
    NicSpec,
    Rate,
    VmSpec,
    VsockSpec,
    WatchdogSpec,
)
from vmkernel.model.vm import SCOPES
from vmkernel.model.vm_hardware import KernelBoot
from vmkernel.vm.spec.defaults import with_defaults

__all__ = ["BASE", "changed", "paths"]

MIB = 1 << 20
ED25519 = b64encode(b"\0\0\0\x0bssh-ed25519" + b"\0\0\0 " + bytes(32)).decode()
BASE = with_defaults(
    VmSpec(
        datastore="main",
        guest_os=GuestOs.OTHER,
        cpus=CpuSpec(count=2, max_count=4),
        memory_bytes=512 * MIB,
        memory=MemorySpec(max_bytes=1024 * MIB),
        disks=(DiskSpec(volume="a"), DiskSpec(volume="b", bus=DiskBus.VIRTIO_SCSI)),
        cdroms=(CdromSpec(image="cd"), CdromSpec()),
        nics=(NicSpec(mac="52:54:00:00:00:01"), NicSpec(mac="52:54:00:00:00:02")),
        watchdog=WatchdogSpec(),
        vsock=VsockSpec(cid=7),
        cloud_init=CloudInitSpec(user="mica"),
    )
)
"""It has one of everything that is there once, and two of what is there more than once."""

OTHERS: dict[str, Any] = {
    "datastore": "other",
    "name": "another",
    "description": "another",
    "labels": {"a": "b"},
    "guest_os": GuestOs.WINDOWS,
    "cpus.sockets": 4,
    "cpus.cores": 1,
    "cpus.threads": 2,
    "cpus.model": "EPYC-v4",
    "memory_bytes": 640 * MIB,
    "memory.max_bytes": 2048 * MIB,
    "memory.target_bytes": 256 * MIB,
    "disks[]": DiskSpec(volume="c", key="disk2", bus=DiskBus.VIRTIO_BLK),
    "disks[].volume": "z",
    "disks[].key": "disk3",
    "disks[].boot_index": 3,
    "disks[].limits": DiskLimits(iops=Rate(per_s=100, burst_per_s=200, burst_s=2)),
    "disks[].limits.iops": Rate(per_s=101, burst_per_s=200, burst_s=2),
    **{
        f"disks[].limits.{name}": Rate(per_s=100, burst_per_s=200, burst_s=2)
        for name in ("read_iops", "write_iops", "bytes", "read_bytes", "write_bytes")
    },
    "cdroms[]": CdromSpec(key="cdrom2"),
    "cdroms[].image": "cd2",
    "cdroms[].key": "cdrom3",
    "cdroms[].bus": DiskBus.USB,
    "cdroms[].boot_index": 3,
    "nics[]": NicSpec(key="nic2", mac="52:54:00:00:00:03", model=NicModel.VIRTIO),
    "nics[].port_group": "other",
    "nics[].key": "nic3",
    "nics[].mac": "52:54:00:00:00:09",
    "nics[].boot_index": 3,
    "boot.order": (),
    "boot.kernel": KernelBoot(kernel="k", initrd="i"),
    "boot.kernel.kernel": "k2",
    "boot.kernel.initrd": "i2",
    "boot.kernel.cmdline": "quiet",
    "watchdog": None,
    "vsock": None,
    "cloud_init": None,
    "cloud_init.hostname": "host",
    "cloud_init.user": "other",
    "cloud_init.password_hash": "$6$salt$hash",
    "cloud_init.ssh_keys": (f"ssh-ed25519 {ED25519} a@b",),
    "cloud_init.user_data": "#cloud-config\nruncmd: []\n",
    "cloud_init.meta_data": {"a": "b"},
    "cloud_init.network_config": "version: 2\n",
    "stop.order": 7,
}
"""Another value of each field that `_other` can't make up. A new field of text or of a record needs
its line here, one of another type doesn't."""
NEEDS: dict[str, tuple[str, Any]] = {
    "clock.utc_offset_minutes": ("clock.base", Clock.LOCAL),
    "disks[].limits.read_iops": ("disks[].limits", DiskLimits(bytes=Rate(per_s=100))),
    "disks[].limits.write_iops": ("disks[].limits", DiskLimits(bytes=Rate(per_s=100))),
    "disks[].boot_index": ("boot.order", ()),
    "cloud_init.format": ("cloud_init", CloudInitSpec(user_data="#cloud-config\nruncmd: []\n")),
}
"""What must be otherwise than in the base for another value of a field, or of one below it, to be
legal or to make a difference."""


def paths(kind: type[Any] = VmSpec) -> tuple[str, ...]:
    """The path of every field at the end of a branch, and of every list of devices."""
    return tuple(_paths(inspect.type_info(kind), ""))


def _paths(kind: inspect.Type, above: str) -> Iterator[str]:
    assert isinstance(kind, inspect.StructType)
    for field in kind.fields:
        path, options = f"{above}{field.encode_name}", _options(field.type)
        record = next((o for o in options if isinstance(o, inspect.StructType)), None)
        items = next((o for o in options if isinstance(o, inspect.VarTupleType)), None)
        if items is not None and isinstance(items.item_type, inspect.StructType):
            yield f"{path}[]"
            yield from _paths(items.item_type, f"{path}[].")
        elif record is not None:
            if len(options) > 1:
                yield path
            yield from _paths(record, f"{path}.")
        else:
            yield path


def _options(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(kind, inspect.Metadata):
        return _options(kind.type)
    if isinstance(kind, inspect.UnionType):
        return tuple(found for option in kind.types for found in _options(option))
    return (kind,)


def changed(path: str) -> tuple[VmSpec, VmSpec]:
    """The base, with all that the field needs around it, and the same with the field changed."""
    base = BASE
    for needing, (other, value) in NEEDS.items():
        if path == needing or path.startswith(f"{needing}."):
            base = _with(base, other, value)
    parts = path.split(".")
    for number in range(1, len(parts)):
        above = ".".join(parts[:number])
        if not above.endswith("[]") and _value(base, above) is None:
            base = _with(base, above, OTHERS[above])
    if path.endswith("[]"):
        name = path.removesuffix("[]")
        return base, replace(base, **{name: (*getattr(base, name), OTHERS[path])})
    if path == "boot.menu_s":  # a menu that nobody waits for is none
        return base, replace(base, boot=BootSpec(order=base.boot.order, menu_s=5))
    old = _value(base, path)
    new = OTHERS[path] if path in OTHERS else _other(_type_of(path), old)
    assert new != old, f"{path}: give it another value in OTHERS"
    return base, _with(base, path, new)


def _other(kind: inspect.Type, old: Any) -> Any:
    """Another value of a plain type."""
    for option in _options(kind):
        if isinstance(option, inspect.BoolType):
            return not old
        if isinstance(option, inspect.EnumType):
            return next(value for value in option.cls if value is not old)
        if isinstance(option, inspect.IntType):
            step = option.multiple_of or 1
            value = step if old is None else old + step
            return (
                max(value, option.ge or 0) if option.le is None or value <= option.le else old - 1
            )
        if isinstance(option, inspect.FloatType):
            return (old or 0.0) + 1.0
    return old


def _type_of(path: str) -> inspect.Type:
    kind: inspect.Type = inspect.type_info(VmSpec)
    for part in path.split("."):
        record = next(o for o in _options(kind) if isinstance(o, inspect.StructType))
        field = next(f for f in record.fields if f.encode_name == part.removesuffix("[]"))
        kind = field.type
        if part.endswith("[]"):
            kind = next(o.item_type for o in _options(kind) if isinstance(o, inspect.VarTupleType))
    return kind


def _value(record: Any, path: str) -> Any:
    for part in path.split("."):
        record = getattr(record, part.removesuffix("[]"))
        if part.endswith("[]"):
            record = record[0]
    return record


def _with(record: Any, path: str, value: Any) -> Any:
    """The record with one field changed; of a list, in its first item."""
    part, _, below = path.partition(".")
    name = part.removesuffix("[]")
    present = getattr(record, name)
    if not below:
        new = value
    elif part.endswith("[]"):
        new = (_with(present[0], below, value), *present[1:])
    else:
        new = _with(present, below, value)
    return replace(record, **{name: new})


def declared(path: str) -> str:
    """The key of the table that decides about a path."""
    while path not in SCOPES:
        path = path.rpartition(".")[0]
    return path


def decodes(spec: VmSpec) -> VmSpec:
    """The spec as it comes back from JSON: `ValidationError` if a made-up value isn't allowed."""
    return msgspec.json.decode(msgspec.json.encode(spec), type=VmSpec)
