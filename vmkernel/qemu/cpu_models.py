"""The CPU models that a QEMU offers with an accelerator, as it reports.

Asked of a QEMU without a machine, over QMP on its standard input and output (QAPI:
query-cpu-definitions). A model whose features the host lacks is named with them.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.devices import Accelerator
from vmkernel.devices.processors import HOST_MODEL
from vmkernel.host import Runner
from vmkernel.model import ErrorCode, MicaError
from vmkernel.qemu.answers import CpuModel
from vmkernel.qemu.program import PROGRAM

__all__ = ["CpuModels", "probe_cpu_models", "read_cpu_models"]

_TIMEOUT_S = 60.0
_MAX_OUTPUT_BYTES = 16 << 20
_NAMED_MAX = 12
_ACCEL = {Accelerator.KVM: "kvm", Accelerator.TCG: "tcg,split-wx=on"}
"""TCG allocates its buffers at once, and the vmkernel's programs can't have memory that is both
writable and executable; TCG can use two views of it instead."""
_QUESTIONS = ("qmp_capabilities", "query-cpu-definitions", "quit")


_VERSION = re.compile(r"-v\d+\Z")


@dataclass(frozen=True)
class CpuModels:
    """The models with one accelerator."""

    accelerator: Accelerator
    lacking: Mapping[str, tuple[str, ...]]
    """Model -> the features that the host lacks for it."""

    def check(self, model: str) -> None:
        """Raise `invalid` with alternatives if a model isn't available."""
        if model in (HOST_MODEL, "max"):
            return
        lacking = self.lacking.get(model)
        if lacking is None:
            problem = f"There is no CPU model {model}"
        elif lacking and self.accelerator is Accelerator.KVM:
            features = ", ".join(lacking[:_NAMED_MAX])
            problem = f"This host's CPU can't provide the model {model} (it lacks {features})"
        else:
            return
        usable = sorted(m for m, without in self.lacking.items() if self._usable(m, without))
        near = difflib.get_close_matches(model, usable, n=_NAMED_MAX, cutoff=0.4)
        if near:
            told = f"possible are {', '.join([HOST_MODEL, *near])} and others"
        else:
            # Each has versions (-v1 …) besides; the model alone is the newest that is possible.
            told = ", ".join([HOST_MODEL, *(m for m in usable if not _VERSION.search(m))])
            told = f"possible are {told}"
        raise MicaError.field("/spec/cpus/model", f"{problem}; {told}.", ErrorCode.INVALID)

    def _usable(self, model: str, without: tuple[str, ...]) -> bool:
        return model != HOST_MODEL and not (without and self.accelerator is Accelerator.KVM)


def read_cpu_models(output: bytes, accelerator: Accelerator) -> CpuModels:
    """The models in QEMU's output; `unavailable` if they aren't in it."""
    for line in output.splitlines():
        with contextlib.suppress(UndecodableError):
            models = decode_json(line, _Answer).models
            return CpuModels(accelerator, dict(map(_model, models)))
    raise MicaError(ErrorCode.UNAVAILABLE, f"{PROGRAM} does not list its CPU models.")


async def probe_cpu_models(runner: Runner, accelerator: Accelerator) -> CpuModels:
    questions = b"".join(json.dumps({"execute": q}).encode() + b"\n" for q in _QUESTIONS)
    completed = await runner.run(
        [
            *(PROGRAM, "-no-user-config", "-nodefaults", "-display", "none", "-S"),
            *("-machine", "none", "-accel", _ACCEL[accelerator], "-qmp", "stdio"),
        ],
        timeout_s=_TIMEOUT_S,
        input_data=questions,
        max_output_bytes=_MAX_OUTPUT_BYTES,
    )
    return read_cpu_models(completed.stdout, accelerator)


class _Answer(msgspec.Struct):
    """The answer that is a list; the others' are objects."""

    models: tuple[CpuModel, ...] = msgspec.field(name="return")


def _model(model: CpuModel) -> tuple[str, tuple[str, ...]]:
    return model.name, tuple(f for f in model.unavailable_features if f != "type")
