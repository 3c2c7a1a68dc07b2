"""How large a spec may be: it is kept in one record, and shown in lists."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from vmkernel.model import MicaError, VmSpec

__all__ = ["check_size"]

LABELS_MAX_BYTES = 16 << 10
SPEC_MAX_BYTES = 128 << 10
"""Without cloud_init, which lists don't show: 64 disks and 16 NICs with all fields take less than
half of it."""
CLOUD_INIT_MAX_BYTES = 512 << 10
"""Together less than any record takes that holds a spec (RECORD_MAX_BYTES)."""


def check_size(spec: VmSpec) -> None:
    """Raise `invalid` if a spec is larger than may be kept, or shown in a list."""
    for pointer, part, most in (
        ("/spec/labels", spec.labels, LABELS_MAX_BYTES),
        ("/spec", replace(spec, cloud_init=None), SPEC_MAX_BYTES),
        ("/spec/cloud_init", spec.cloud_init, CLOUD_INIT_MAX_BYTES),
    ):
        size = len(msgspec.json.encode(part))
        if size > most:
            raise MicaError.field(
                pointer,
                f"It takes {size} bytes as JSON; {most >> 10} KiB are possible: shorten it.",
            )
