"""The TPM 2.0: QEMU's end of an emulator that is a process of its own (swtpm)."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments

__all__ = ["add_tpm"]


def add_tpm(args: Arguments, fd: int) -> None:
    """The command-response-buffer interface, which every system with TPM 2.0 knows."""
    args.keyval("chardev", "socket", id="tpm", fd=fd)
    args.keyval("tpmdev", "emulator", id="tpm0", chardev="tpm")
    args.device("tpm-crb", id="tpm", tpmdev="tpm0")
