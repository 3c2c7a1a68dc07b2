"""The files of a VM's start: their paths, and preparing them before QEMU opens them.

`find_files` asks the storage and no disk; `prepare_files` runs in a thread, because it waits for
disks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from vmkernel.devices import Aio, CdromPlan, DiskPlan, FirmwarePlan, KernelPlan
from vmkernel.devices.defaults import SEED_BUS, seed_key
from vmkernel.host.file_io import linux_aio_works, takes_direct_io
from vmkernel.host.files import exists, open_regular, write_durably
from vmkernel.model import DiskSpec, ErrorCode, Firmware, MicaError, VmSpec
from vmkernel.storage.errors import volume_linked
from vmkernel.storage.ports import VolumeFile
from vmkernel.vm.context import VmContext
from vmkernel.vm.nonvolatile import tpm_state
from vmkernel.vm.store.definition import NVRAM_FILES, SEED_FILE, VmDefinition

__all__ = [
    "StartFiles",
    "disk_plan",
    "find_files",
    "prepare_files",
    "refuse_template",
    "with_access",
]

_VARIABLES_MAX_BYTES = 16 << 20
"""A template of the host's own: the largest flash that a machine has."""
_SEED_MAX_BYTES = 4 << 20
"""The largest cloud-init content of a spec (definition.py), as a CD-ROM."""


@dataclass(frozen=True)
class StartFiles:
    """What QEMU opens by path."""

    disks: tuple[DiskPlan, ...]
    cdroms: tuple[CdromPlan, ...]
    firmware: FirmwarePlan | None
    nvram_template: Path | None
    kernel: KernelPlan | None
    tpm: Path | None
    """The file of the TPM's state."""
    seed: Path | None = None
    """The image with what cloud-init reads; it may hold secrets."""
    tpm_began: bytes | None = None
    """The TPM's state, as the VM starts with it."""
    tpm_restored: str | None = None
    """What was wrong with the state that was replaced by its copy."""

    def read_only(self) -> tuple[Path, ...]:
        """The files that QEMU only reads."""
        found = [c.path for c in self.cdroms if c.path is not None]
        for disk in self.disks:
            found += [layer.path for layer in disk.backing]
            if disk.read_only:
                found.append(disk.path)
        if self.firmware is not None:
            found.append(self.firmware.code)
        if self.kernel is not None:
            found.append(self.kernel.kernel)
            if self.kernel.initrd is not None:
                found.append(self.kernel.initrd)
        return tuple(dict.fromkeys(found))

    def read_write(self) -> tuple[Path, ...]:
        """The files that QEMU writes."""
        found = [disk.path for disk in self.disks if not disk.read_only]
        if self.firmware is not None:
            found.append(self.firmware.variables)
        if self.tpm is not None:
            found.append(self.tpm)
        return tuple(found)


def find_files(host: VmContext, definition: VmDefinition, vm_folder: Path) -> StartFiles:
    """The paths of all files; MicaError if the host lacks something, or the VM can't be started."""
    spec = definition.spec
    refuse_template(definition)
    disks = [disk_plan(spec, disk, host.storage.volume(disk.volume)) for disk in spec.disks]
    cdroms = [
        CdromPlan.of(c, host.storage.image(c.image).path if c.image else None) for c in spec.cdroms
    ]
    kernel = None
    if spec.boot.kernel is not None:
        wanted = spec.boot.kernel
        kernel = KernelPlan(
            kernel=host.storage.image(wanted.kernel).path,
            initrd=host.storage.image(wanted.initrd).path if wanted.initrd else None,
            cmdline=wanted.cmdline,
        )
    firmware, template = _find_firmware(host, definition, vm_folder)
    seed = None
    if spec.cloud_init is not None:
        seed = vm_folder / SEED_FILE
        cdroms.append(CdromPlan(key=seed_key(spec), bus=SEED_BUS, path=seed))
    return StartFiles(
        disks=tuple(disks),
        cdroms=tuple(cdroms),
        firmware=firmware,
        nvram_template=template,
        kernel=kernel,
        tpm=vm_folder / tpm_state.STATE_FILE if spec.tpm else None,
        seed=seed,
    )


def refuse_template(definition: VmDefinition) -> None:
    """MicaError if the VM is a template."""
    if definition.spec.template:
        raise MicaError(
            ErrorCode.CONFLICT,
            f"VM {definition.id} is a template: clone it, or set `template: false`.",
        )


def disk_plan(spec: VmSpec, disk: DiskSpec, volume: VolumeFile) -> DiskPlan:
    """A disk of the spec on its volume; `with_access` finds the best way to access the file.
    MicaError if a volume that it would write to has linked clones.
    """
    if volume.children and not disk.read_only:
        raise volume_linked(volume.id, volume.children)
    return DiskPlan.of(spec, disk, volume)


def with_access(disk: DiskPlan) -> DiskPlan:
    """The disk with the best way to its file that the host has; asks the file system."""
    direct = disk.direct and takes_direct_io(disk.path)
    aio = Aio.NATIVE if direct and linux_aio_works() else Aio.THREADS
    return replace(disk, aio=aio, direct=direct)


def prepare_files(host: VmContext, definition: VmDefinition, files: StartFiles) -> StartFiles:
    """Make the files ready for QEMU."""
    if files.firmware is not None and files.nvram_template is not None:
        variables = files.firmware.variables
        if not exists(variables):
            data = files.nvram_template.read_bytes()
            if files.firmware.secure:
                from vmkernel.vm.nonvolatile.first_variables import first_variables

                data = first_variables(data)
            write_durably(variables, data, limit=_VARIABLES_MAX_BYTES)
    began: bytes | None = None
    restored: str | None = None
    if files.tpm is not None:
        try:
            began, restored = tpm_state.prove(files.tpm.parent)
        except tpm_state.TpmDamagedError as error:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"The TPM state of VM {definition.id} is damaged ({error}): revert to a snapshot,"
                " or restore the VM from a backup.",
            ) from error
        tpm_state.prepare(files.tpm.parent)
    if files.seed is not None:
        _write_seed(definition, files.seed)
    uid = definition.uid if host.jailed else None
    for path in files.read_write():
        _give(path, uid, owned=True)
    for path in files.read_only():
        if files.firmware is None or path != files.firmware.code:  # the host's own may be a link
            _give(path, uid, owned=path == files.seed)
    return replace(
        files,
        disks=tuple(with_access(disk) for disk in files.disks),
        tpm_began=began,
        tpm_restored=restored,
    )


def _give(path: Path, uid: int | None, *, owned: bool) -> None:
    """Make a VM's user, if it has one, the owner of a file of a datastore, or let it read the file.

    A datastore may come from anywhere: OSError if something else is in the file's place, such as a
    symbolic link, which could lead to any file of this host.
    """
    fd = open_regular(path, os.O_RDONLY, single=owned)
    try:
        if uid is not None and owned:
            os.fchown(fd, uid, uid)
            os.fchmod(fd, 0o600)
        elif uid is not None and not os.fstat(fd).st_mode & 0o004:
            os.fchmod(fd, 0o644)
    finally:
        os.close(fd)


def _write_seed(definition: VmDefinition, path: Path) -> None:
    """The image for the present spec; readable only by the VM."""
    from vmkernel.vm.spec.cloud_init.documents import seed_files
    from vmkernel.vm.spec.cloud_init.seed import make_seed

    assert definition.spec.cloud_init is not None
    files = seed_files(definition.spec.cloud_init, uuid=definition.uuid, vm_id=definition.id)
    write_durably(path, make_seed(files), mode=0o400, limit=_SEED_MAX_BYTES)


def _find_firmware(
    host: VmContext, definition: VmDefinition, vm_folder: Path
) -> tuple[FirmwarePlan | None, Path | None]:
    wanted = definition.spec.firmware
    if wanted is Firmware.BIOS:
        return None, None
    secure = wanted is Firmware.UEFI_SECURE_BOOT
    files = host.uefi_secure_boot if secure else host.uefi
    if files is None:
        what = "UEFI with Secure Boot" if secure else "UEFI"
        raise MicaError.field(
            "/spec/firmware",
            f"VM {definition.id} needs {what}, but this host has no OVMF for it:"
            " install it, or choose another firmware.",
            ErrorCode.UNAVAILABLE,
        )
    plan = FirmwarePlan(code=files.code, variables=vm_folder / NVRAM_FILES[wanted], secure=secure)
    return plan, files.variables
