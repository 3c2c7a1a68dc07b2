"""Making sure that a flush reaches a disk's own cache.

For USB disks the kernel does not ask whether there is a write cache and assumes none, so it would
never send SYNCHRONIZE CACHE to a stick. If this is changed, it sends one after each O_DSYNC write.
If a stick does not know the command, the first flush fails, and the kernel's setting is restored.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

__all__ = ["ensure_flushes"]

_log = logging.getLogger(__name__)
_BACK = "temporary write back"
_THROUGH = "temporary write through"


def ensure_flushes(fd: int, sys: Path = Path("/sys")) -> bool:
    """Make writes to an open block device flush the disk's cache; False if it can't."""
    number = os.fstat(fd).st_rdev
    place = (sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}").resolve()
    disk = place.parent if (place / "partition").exists() else place
    for cache_type in disk.glob("device/scsi_disk/*/cache_type"):
        try:
            if cache_type.read_text().strip() != "write through":
                return True
            cache_type.write_text(_BACK)
        except OSError as error:
            _log.warning("%s can't be set: %s", cache_type, error)
            return False
        try:
            os.fsync(fd)
        except OSError as error:
            _log.warning("the stick does not take a flush (%s)", error)
            with contextlib.suppress(OSError):
                cache_type.write_text(_THROUGH)
            return False
    return True
