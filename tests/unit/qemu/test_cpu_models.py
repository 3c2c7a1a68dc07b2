"""CPU models as QEMU tells them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vmkernel.devices import Accelerator
from vmkernel.model import MicaError
from vmkernel.qemu.cpu_models import read_cpu_models

MESSAGES: list[dict[str, Any]] = [
    {"QMP": {"version": {}}},
    {"return": {}},
    {
        "return": [
            {"name": "host", "unavailable-features": []},
            {"name": "EPYC-v4", "unavailable-features": []},
            {"name": "EPYC-Genoa", "unavailable-features": ["avx512f", "avx512dq"]},
            {"name": "qemu64"},
        ]
    },
]
OUTPUT = b"\n".join(json.dumps(message).encode() for message in MESSAGES)


@pytest.mark.parametrize("model", ["host", "max", "EPYC-v4", "qemu64"])
def test_models_that_can_be_had(model: str) -> None:
    read_cpu_models(OUTPUT, Accelerator.KVM).check(model)


def test_what_the_host_lacks_is_named() -> None:
    with pytest.raises(MicaError) as caught:
        read_cpu_models(OUTPUT, Accelerator.KVM).check("EPYC-Genoa")
    problem = caught.value.problem
    assert [field.pointer for field in problem.fields] == ["/spec/cpus/model"]
    assert "avx512f, avx512dq" in problem.detail
    assert "host, EPYC-v4" in problem.detail


def test_emulation_leaves_features_out() -> None:
    read_cpu_models(OUTPUT, Accelerator.TCG).check("EPYC-Genoa")


def test_an_unknown_name_gets_near_ones() -> None:
    with pytest.raises(MicaError, match=r"no CPU model EPYC-v9; possible are host, EPYC-v4"):
        read_cpu_models(OUTPUT, Accelerator.TCG).check("EPYC-v9")


def test_a_name_like_none_gets_all_of_them() -> None:
    with pytest.raises(MicaError) as caught:
        read_cpu_models(OUTPUT, Accelerator.TCG).check("zzzz")
    named = caught.value.problem.detail.partition("possible are ")[2].rstrip(".").split(", ")
    models = read_cpu_models(OUTPUT, Accelerator.TCG).lacking
    assert named[0] == "host"
    assert set(named) >= {m for m in models if "-v" not in m}
    assert not any("-v" in m for m in named)


def test_a_qemu_that_does_not_tell() -> None:
    with pytest.raises(MicaError, match="does not list"):
        read_cpu_models(b"{}\nnonsense\n", Accelerator.KVM)
