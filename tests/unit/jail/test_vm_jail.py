"""A VM's jail: the unit template and the drop-in, read together as systemd does."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

import vmkernel
from vmkernel.jail import Program, VmJail, encode_handover, render_drop_in
from vmkernel.jail.roles import LAUNCHER, QEMU, SWTPM

ROOT = Path(vmkernel.__file__).parent.parent
UNITS = ROOT / "appliance_build/image/rootfs/usr/lib/systemd/system"

JAIL = VmJail(
    vm_id="web",
    uid=100_007,
    root=Path("/run/mica/vm/web/root"),
    launch_socket=Path("/run/mica/vm/web/launch.sock"),
    memory_max_bytes=1 << 30,
    cpu_count=4,
    kvm=True,
    read_only=(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),),
    read_write=(Path("/run/mica/datastores/main/volumes/root.qcow2"),),
)

DROP_IN = """\
# Written by vmkernel for one run of VM web.
[Service]
RootDirectory=/run/mica/vm/web/root
OpenFile=/run/mica/vm/web/launch.sock:launch
User=100007
Group=100007
MemoryMax=1073741824
CPUWeight=400
TasksMax=260
LimitNPROC=260
MemoryDenyWriteExecute=yes
BindReadOnlyPaths=/usr/share/OVMF/OVMF_CODE_4M.fd
BindPaths=/run/mica/datastores/main/volumes/root.qcow2
"""


def settings(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("SystemCallFilter=")]


def calls(text: str) -> set[str]:
    return {name for line in settings(text)["SystemCallFilter"] for name in line.split()}


def test_drop_in() -> None:
    assert lines(render_drop_in(JAIL)) == DROP_IN.splitlines()


def test_its_system_calls_are_those_of_its_programs() -> None:
    """A list of what is allowed: no group of systemd's, nothing taken away again."""
    without = calls(render_drop_in(JAIL))
    assert without == LAUNCHER.names() | QEMU.names()
    assert calls(render_drop_in(replace(JAIL, tpm=True))) == without | SWTPM.names()
    assert all(name.replace("_", "").isalnum() for name in without)


def test_without_kvm_code_is_written() -> None:
    assert "MemoryDenyWriteExecute" not in render_drop_in(replace(JAIL, kvm=False))


def test_a_tpm_adds_its_program_and_its_folder() -> None:
    """And nothing else: it runs in the same jail."""
    tpm = Path("/run/mica/datastores/main/vms/web/tpm")
    text = render_drop_in(replace(JAIL, tpm=True, read_write=(*JAIL.read_write, tpm)))
    added = set(lines(text)) - set(DROP_IN.splitlines())
    assert added == {
        "TasksMax=268",
        "LimitNPROC=268",
        "BindReadOnlyPaths=/usr/bin/swtpm",
        "ExecPaths=+/usr/bin/swtpm",
        f"BindPaths={tpm}",
    }


@pytest.mark.parametrize("path", ["relative", "/with space", "/a:b", "/50%", "/new\nline", '/"'])
def test_a_path_names_one_thing(path: str) -> None:
    with pytest.raises(ValueError, match="can't be written"):
        render_drop_in(replace(JAIL, read_write=(Path(path),)))


OF_ONE_RUN = {"MemoryMax", "TasksMax", "LimitNPROC", "CPUWeight", "MemoryDenyWriteExecute"}
"""What a run's drop-in sets to a value of its own; whatever else it names is added to a list."""
LISTS = {"BindPaths", "BindReadOnlyPaths", "ExecPaths", "OpenFile", "SystemCallFilter"}
WEAKER = {"", "no", "false", "off", "0", "all", "infinity"}
"""Values that take a restriction back."""


@pytest.mark.parametrize("kvm", [True, False])
@pytest.mark.parametrize("tpm", [True, False])
def test_no_run_takes_back_what_the_template_promises(kvm: bool, tpm: bool) -> None:
    """What the promises come to is seen from inside a jail, on the image (boot/test_jail.py)."""
    unit = settings((UNITS / "mica-vm@.service").read_text())
    jail = replace(JAIL, kvm=kvm, tpm=tpm)
    for name, values in settings(render_drop_in(jail)).items():
        for value in values:
            assert value.lower() not in WEAKER, f"{name}={value}"
            assert not value.startswith("~"), f"{name}={value}"
        if name not in OF_ONE_RUN | LISTS:
            assert name not in unit, f"{name} of the template is replaced"


def test_a_vm_outlives_the_vmkernel() -> None:
    unit = settings((UNITS / "mica-vm@.service").read_text())
    assert "mica-vmkernel.service" in unit["Before"], "and ends before it when the host does"
    assert not {"Requires", "BindsTo", "PartOf", "Wants"} & set(unit)


def test_what_it_sees_is_read_only_but_its_own() -> None:
    unit = settings((UNITS / "mica-vm@.service").read_text())
    assert "BindPaths" not in unit
    for path in unit["BindReadOnlyPaths"]:
        assert path.startswith("/usr/")


CODE = bytes(16)
"""Two instructions."""


def test_handover() -> None:
    data = encode_handover(Program(["/usr/bin/qemu", "-S", ""], CODE))
    magic, beside, count, length, *filters = struct.unpack_from("=IIIIII", data)
    assert (magic, beside, count, length) == (0x6D696361, 0, 3, len(data) - 24 - 16)
    assert filters == [0, 2]
    assert data[24:] == b"/usr/bin/qemu\0-S\0\0" + CODE
    both = encode_handover(
        Program(["/q", "-S"], CODE), Program(["/usr/bin/swtpm", "socket", "--tpm2"], b"narrower")
    )
    assert struct.unpack_from("=IIIIII", both)[1:] == (3, 2, len(both) - 24 - 24, 1, 2)
    assert both[24:] == b"/usr/bin/swtpm\0socket\0--tpm2\0/q\0-S\0" + b"narrower" + CODE
    with pytest.raises(ValueError, match="zero octet"):
        encode_handover(Program(["a\0b"], CODE))
    for code in (b"", b"a part", CODE + b"x"):
        with pytest.raises(ValueError, match="filter"):
            encode_handover(Program(["/q"], code))
