"""LVM2 volume groups by the `lvm` program, limited to the devices that it is given.

Nothing of lvm.conf, its devices file, its daemons or udev is used: every run disables them, and
writes no archive of the metadata anywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmkernel.decoding import UndecodableError, decode_document
from vmkernel.host.drivers import load_driver
from vmkernel.host.errors import CommandError
from vmkernel.host.runner import Runner

__all__ = ["GROUP_PREFIX", "Lvm", "PhysicalVolume", "parse_physical_volumes", "volume_node"]

GROUP_PREFIX = "mica-"
_VOLUME = "datastore"
_QUICK_S = 60.0
_CONFIG = " ".join(
    (
        "activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0 }",
        "backup { backup=0 archive=0 }",
        "devices { use_devicesfile=0 obtain_device_list_from_udev=0 hints=none",
        'external_device_info_source="none" }',
        "global { event_activation=0 use_lvmpolld=0 use_lvmlockd=0 }",
        "log { syslog=0 }",
    )
)


@dataclass(frozen=True)
class PhysicalVolume:
    """A device and its group."""

    device: Path | None
    """None if the group lists it but it is missing."""
    uuid: str
    group: str
    group_uuid: str

    @property
    def ours(self) -> bool:
        """True if Mica made the group."""
        return self.group.startswith(GROUP_PREFIX)


class Lvm:
    """One method per use of the program. CommandError if it fails."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def create(self, group: str, devices: Sequence[Path]) -> None:
        """Make a group on these devices with one active volume over all of their space."""
        await self._load_mapper()
        await self._lvm(devices, "vgcreate", "--yes", "--", group, *devices)
        await self._lvm(
            devices,
            *("lvcreate", "--yes", "--wipesignatures", "y", "--extents", "100%FREE"),
            *("--name", _VOLUME, "--", group),
        )

    async def activate(self, group: str, devices: Sequence[Path]) -> None:
        """Create the volume's device node; refused if a disk of the group is missing."""
        await self._load_mapper()
        await self._lvm(devices, "vgchange", "--activate", "y", "--sysinit", "--", group)

    async def _load_mapper(self) -> None:
        """lvm requires the volume's target before the kernel would load it, and can't load it: the
        vmkernel's unit may not load modules.
        """
        with contextlib.suppress(CommandError):  # lvm says what is missing
            await load_driver(self._runner, "dm-mod")

    async def deactivate(self, group: str, devices: Sequence[Path]) -> None:
        """Remove the volume's device node."""
        await self._lvm(devices, "vgchange", "--activate", "n", "--", group)

    async def extend(self, group: str, devices: Sequence[Path], new: Path) -> None:
        """Add a device to the group, and its space to the volume."""
        everything = [*devices, new]
        await self._lvm(everything, "vgextend", "--yes", "--", group, new)
        await self.take_all_space(group, everything)

    async def take_all_space(self, group: str, devices: Sequence[Path]) -> None:
        """Use the space that the devices have gained."""
        await self._lvm(devices, "pvresize", "--yes", "--", *devices)
        await self._lvm(
            devices,
            *("lvextend", "--extents", "+100%FREE", "--", f"{group}/{_VOLUME}"),
            ok=(0, 5),
        )

    async def physical_volumes(self, devices: Sequence[Path]) -> tuple[PhysicalVolume, ...]:
        """The devices of the groups on these devices, including missing ones."""
        if not devices:
            return ()
        text = await self._lvm(
            devices,
            *("pvs", "--reportformat", "json", "--options", "pv_name,pv_uuid,vg_name,vg_uuid"),
            ok=(0, 5),
        )
        return parse_physical_volumes(text)

    async def _lvm(
        self,
        devices: Sequence[Path],
        command: str,
        *words: str | Path,
        ok: tuple[int, ...] = (0,),
    ) -> bytes:
        limits = ["--config", _CONFIG, "--devices", ",".join(str(device) for device in devices)]
        done = await self._runner.run(["lvm", command, *limits, *words], timeout_s=_QUICK_S, ok=ok)
        return done.stdout


def volume_node(group: str) -> Path:
    """The device node of a group's volume; device mapper doubles the hyphens in names."""
    return Path("/dev/mapper") / f"{group.replace('-', '--')}-{_VOLUME}"


def parse_physical_volumes(text: bytes) -> tuple[PhysicalVolume, ...]:
    """The JSON report of `pvs`: `{"report": [{"pv": [{"pv_name": ...}, ...]}]}`."""
    try:
        report = decode_document(text)
        rows = [row for part in report["report"] for row in part["pv"]]
    except (UndecodableError, KeyError, TypeError):
        return ()
    found = []
    for row in rows:
        if not isinstance(row, dict) or not row.get("vg_name"):
            continue
        name = str(row.get("pv_name", ""))
        found.append(
            PhysicalVolume(
                device=Path(name) if name.startswith("/dev/") else None,
                uuid=str(row.get("pv_uuid", "")),
                group=str(row["vg_name"]),
                group_uuid=str(row.get("vg_uuid", "")),
            )
        )
    return tuple(found)
