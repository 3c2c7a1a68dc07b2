"""Signatures on a block device, by `blkid -p` (which reads the device, not a cache)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.runner import Runner
from vmkernel.text import clean

__all__ = ["Signature", "probe"]

_TIMEOUT_S = 20.0
_NOTHING = 2
_AMBIVALENT = 8


@dataclass(frozen=True)
class Signature:
    """What a device holds; all None if nothing known is on it."""

    filesystem: str | None = None
    label: str | None = None
    uuid: str | None = None
    partition_table: str | None = None

    @property
    def blank(self) -> bool:
        """True if neither a partition table nor anything else was found."""
        return self.filesystem is None and self.partition_table is None


async def probe(runner: Runner, device: Path) -> Signature:
    """Probe one device. Several contradicting signatures are reported as `ambiguous`."""
    done = await runner.run(
        ["blkid", "-p", "-o", "export", device],
        timeout_s=_TIMEOUT_S,
        ok=(0, _NOTHING, _AMBIVALENT),
    )
    if done.returncode == _AMBIVALENT:
        return Signature(filesystem="ambiguous")
    return _parse(done.stdout.decode(errors="replace"))


def _parse(text: str) -> Signature:
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        values[key] = clean(value.replace("\\", ""))  # a label is what its maker likes
    return Signature(
        filesystem=values.get("TYPE"),
        label=values.get("LABEL"),
        uuid=values.get("UUID"),
        partition_table=values.get("PTTYPE"),
    )
