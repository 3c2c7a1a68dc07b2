"""The program that tries each way out of a jail, and what it says; it must not harm who runs it."""

from __future__ import annotations

from pathlib import Path

from appliance_build.assemble.initrd import compile_init
from tests.framework import inputs

__all__ = ["PROBE", "PROBE_UNIT", "REFUSED_CALL", "build_probe", "outcomes"]

SOURCE = Path(__file__).with_name("probe.c")
REFUSED_CALL = {"EPERM", "ENOSYS"}
"""How a filter answers; the probe's arguments are such that the kernel itself answers otherwise."""


PROBE = "/usr/lib/mica-test/probe"
"""Where it is in the variant of the image."""
PROBE_UNIT = f"""\
[Service]
BindReadOnlyPaths={PROBE}
ExecPaths=+{PROBE}
"""
"""What lets the unit of the VM `probe` have it in place of QEMU and swtpm: the only difference."""


def build_probe(target: Path) -> Path:
    """Compile it, static, so that it runs in any root."""
    compile_init(inputs.tools(), SOURCE, target)
    return target


def outcomes(text: str, role: str) -> dict[str, str]:
    """What it said, by the name of the way."""
    lines = (line.split(" ") for line in text.splitlines())
    return {words[1]: words[2] for words in lines if len(words) == 3 and words[0] == role}
