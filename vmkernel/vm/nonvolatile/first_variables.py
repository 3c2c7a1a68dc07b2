"""The firmware variables that a VM with Secure Boot begins with."""

from __future__ import annotations

import logging
from dataclasses import asdict

from firmware.guest_firmware.secure_boot_keys import MICROSOFT_2023
from vmkernel.workers.secure_boot import Key, add_keys
from vmkernel.workers.varstore import StoreError

__all__ = ["first_variables"]

_log = logging.getLogger(__name__)


def first_variables(template: bytes) -> bytes:
    """A new VM's variables with Secure Boot: the host's template, with the keys that it lacks."""
    try:
        return add_keys(template, [Key.of(asdict(key)) for key in MICROSOFT_2023])
    except StoreError as error:
        _log.warning("the host's OVMF gives new VMs no newer keys: %s", error)
        return template
