"""The Secure Boot keys in a VM's firmware variables: which are missing, and how they are added; and
the finding about VMs that lack some.

A guest writes its variables, so they are parsed in a confined worker. New VMs begin with all keys,
whatever the host's template has (first_variables.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from firmware.guest_firmware.secure_boot_keys import MICROSOFT_2023
from vmkernel.host.files import open_regular, write_durably
from vmkernel.host.memory_file import MemoryFile
from vmkernel.host.worker import Confinement, Outcome
from vmkernel.model import (
    ErrorCode,
    Finding,
    Firmware,
    MicaError,
    SecureBootStatus,
    Severity,
)
from vmkernel.vm.context import VmContext
from vmkernel.vm.store.definition import NVRAM_FILES
from vmkernel.workers.secure_boot import FLASH_MAX_BYTES

__all__ = ["add_missing_keys", "findings_of_keys", "status_of_keys"]

_KEYS = [asdict(key) for key in MICROSOFT_2023]
_WORKER_BYTES = 512 << 20
"""Of address space: Python itself, and three times the largest flash file."""
_WORK_S = 60.0


async def status_of_keys(host: VmContext, folder: Path) -> SecureBootStatus | None:
    """What the variables in a VM's folder hold; None if there are none yet. A failure is part of
    the status."""
    try:
        try:
            fd = await asyncio.to_thread(open_regular, _variables(folder), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return _status(await _work(host, fd, None))
        finally:
            os.close(fd)
    except (MicaError, OSError) as error:
        return SecureBootStatus(error=_words(error))


async def add_missing_keys(host: VmContext, folder: Path, vm_id: str) -> None:
    """Add the keys that they lack to the variables of a VM at rest; everything else in them stays.

    Durable when it returns; a crash before leaves the variables as they were.
    """
    path = _variables(folder)
    try:
        fd = await asyncio.to_thread(open_regular, path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise MicaError(
            ErrorCode.CONFLICT,
            f"VM {vm_id} has no firmware variables yet; its first start makes them, with all keys.",
        ) from error
    try:
        found = os.fstat(fd)
        with MemoryFile("variables") as new:
            await _work(host, fd, new.writer())
            data = new.read(FLASH_MAX_BYTES)
        if len(data) != found.st_size:
            raise MicaError(
                ErrorCode.UNAVAILABLE, f"The firmware variables of VM {vm_id} were cut off."
            )
        # Whose file it is, the next start settles (start/files.py).
        await asyncio.to_thread(write_durably, path, data, limit=FLASH_MAX_BYTES)
    finally:
        os.close(fd)


def findings_of_keys(known: Mapping[str, SecureBootStatus | None]) -> Iterator[Finding]:
    """The VMs that trust certificates which have expired, and not the ones after them."""
    for vm_id, status in sorted(known.items()):
        if status is not None and status.missing:
            yield Finding(
                code="secure-boot-keys-outdated",
                severity=Severity.WARNING,
                message=f"VM {vm_id} lacks the Secure Boot certificates"
                f" {', '.join(status.missing)}: systems and updates that are signed with them are"
                " refused. Stop the VM and update its keys (`mica vm update-secure-boot"
                f" {vm_id}`).",
                subject=vm_id,
            )


def _variables(folder: Path) -> Path:
    return folder / NVRAM_FILES[Firmware.UEFI_SECURE_BOOT]


async def _work(host: VmContext, source: int, target: int | None) -> Outcome:
    workers = host.workers
    if workers is None:
        raise MicaError(ErrorCode.UNSUPPORTED, "This host has no workers.")
    job = {"source": source, "target": target, "keys": _KEYS}
    return await workers.run(
        "secure_boot",
        job,
        Confinement(memory_bytes=_WORKER_BYTES, file_bytes=FLASH_MAX_BYTES),
        fds=[source] if target is None else [source, target],
        user=host.worker_uid,
        on_progress=lambda _, __: None,
        timeout_s=_WORK_S,
    )


def _status(outcome: Outcome) -> SecureBootStatus:
    if any(number >= len(MICROSOFT_2023) for number in outcome.missing):
        raise MicaError(ErrorCode.UNAVAILABLE, "The check of the variables had no result.")
    names = (MICROSOFT_2023[number].name for number in outcome.missing)
    return SecureBootStatus(missing=tuple(dict.fromkeys(names)), revoked=outcome.revoked)


def _words(error: BaseException) -> str:
    if isinstance(error, MicaError):
        return str(error)
    return (error.strerror if isinstance(error, OSError) else None) or "they can't be read"
