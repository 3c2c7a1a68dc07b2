"""Hosts in hosted mode with many virtual machines defined, each with a disk and a network card.

One VM is made through the API; the others are copies of its files, with what must be unique among
VMs changed, put into the datastore while no Mica runs. Making a thousand by API would take minutes
and give the same.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica, hosted_mica, unclaimed_mica
from tests.framework.repository import REPOSITORY
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    DiskSpec,
    NicSpec,
    VmSpec,
    VolumeFormat,
    VolumeSpec,
)

__all__ = ["DATASTORE", "ManyVms", "host_with", "vm_name"]

DATASTORE = "main"
MIB = 1 << 20
_FIRST_UID = 100_000


@dataclass(frozen=True)
class ManyVms:
    """A host that runs, with its VMs taken up."""

    host: HostedMica
    mica: Mica
    count: int
    start_s: float
    """From the start of `mica serve` to its first answer."""

    def vmkernel_start_s(self) -> float:
        """From the vmkernel's own beginning to its readiness, as its log says."""
        log = (self.host.folder / "state/run/vmkernel.log").read_text()
        return float(re.findall(r"control: ready at (\d+\.\d+) s", log)[-1])

    def memory(self) -> dict[str, int]:
        """What vmkernel holds, in bytes: `Pss` and `Private_Dirty` of Linux."""
        rollup = Path(f"/proc/{self.host.pid('vmkernel')}/smaps_rollup").read_text()
        rows = (line.split() for line in rollup.splitlines()[1:])
        found = {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[1].isdigit()}
        return {name: found[name] for name in ("Pss", "Private_Dirty")}


def vm_name(number: int) -> str:
    """The id of a VM."""
    return f"vm-{number:04}"


@contextmanager
def host_with(folder: Path, count: int, source: Path = REPOSITORY) -> Iterator[ManyVms]:
    """A fresh host in `folder` with `count` VMs, of the checkout `source`."""
    folder.mkdir(parents=True)
    token = _make(folder, count)
    began = time.monotonic()
    with unclaimed_mica(folder, source=source) as host:
        start_s = time.monotonic() - began
        host.token = token
        mica = Mica(host.address, token=token, fingerprint=host.fingerprint, timeout_s=60.0)
        try:
            yield ManyVms(host, mica, count, start_s)
        finally:
            mica.close()


def _make(folder: Path, count: int) -> str:
    with hosted_mica(folder) as host:
        root = host.datastore_folder(DATASTORE)
        with host.client() as mica:
            spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(root))
            mica.wait(mica.create_datastore(DATASTORE, spec))
            if count:
                _make_first(mica)
        assert host.token is not None
        token = host.token
    if count:
        _multiply(root, count)
    return token


def _make_first(mica: Mica) -> None:
    name = vm_name(0)
    volume = VolumeSpec(datastore=DATASTORE, size_bytes=MIB, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume(name, volume))
    spec = VmSpec(
        name="One of many",
        datastore=DATASTORE,
        labels={"made-by": "benchmark"},
        disks=(DiskSpec(volume=name),),
        nics=(NicSpec(),),
    )
    mica.create_vm(name, spec)


def _multiply(root: Path, count: int) -> None:
    first = vm_name(0)
    definition: dict[str, Any] = json.loads((root / "vms" / first / "vm.json").read_text())
    record: dict[str, Any] = json.loads((root / "volumes" / f"{first}.json").read_text())
    size = (root / "volumes" / f"{first}.raw").stat().st_size
    for number in range(1, count):
        name = vm_name(number)
        definition |= {"id": name, "uuid": str(uuid.uuid4()), "uid": _FIRST_UID + number}
        definition["spec"]["disks"][0]["volume"] = name
        definition["spec"]["nics"][0]["mac"] = f"52:54:00:be:{number >> 8:02x}:{number & 255:02x}"
        record |= {"id": name}
        folder = root / "vms" / name
        folder.mkdir(mode=0o700)
        (folder / "vm.json").write_text(json.dumps(definition))
        (root / "volumes" / f"{name}.json").write_text(json.dumps(record))
        with (root / "volumes" / f"{name}.raw").open("wb") as file:
            file.truncate(size)
