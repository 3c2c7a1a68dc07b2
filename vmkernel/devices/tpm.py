"""The TPM 2.0: QEMU's end of an emulator in a separate process (swtpm)."""

from __future__ import annotations

from collections.abc import Iterator

from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import Family, MachinePlan
from vmkernel.model import FieldError, Firmware, VmSpec

__all__ = ["TPM"]


def _add(board: Board, plan: MachinePlan) -> None:
    """The command-response-buffer interface, which every system with TPM 2.0 knows."""
    if plan.tpm_fd is None:
        return
    board.args.keyval("chardev", "socket", id="tpm", fd=plan.tpm_fd)
    board.args.keyval("tpmdev", "emulator", id="tpm0", chardev="tpm")
    board.args.device("tpm-crb", id="tpm", tpmdev="tpm0")


def _check(spec: VmSpec, _family: Family) -> Iterator[FieldError]:
    if spec.tpm and spec.firmware is Firmware.BIOS and spec.boot.kernel is not None:
        yield FieldError(
            pointer="/spec/tpm",
            detail="With BIOS, the TPM's log is at the address where a directly booted kernel"
            " expects its initrd:"
            " choose UEFI, or boot from a disk.",
        )


TPM = Device(add=_add, check=_check)
