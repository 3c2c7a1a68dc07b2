"""What the image's settings must say for the host's hardening to hold, read from their files."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from firmware.boot_chain.command_line import kernel_command_line
from firmware.device_bundles import load_bundles
from tests.framework.repository import REPOSITORY

ROOT = REPOSITORY / "appliance_build/image/rootfs/usr/lib"
USB_ADAPTERS = {
    *("aqc111", "asix", "ax88179_178a", "dm9601", "lan78xx", "mcs7830", "pegasus", "r8152"),
    *("r8153_ecm", "rtl8150", "smsc75xx", "smsc95xx", "sr9700"),
}
"""Drivers of USB network adapters: what they drive may be an uplink."""
UNIT = ROOT / "systemd/system/mica-vmkernel.service"
OWN_MOUNTS = re.compile(
    r"(Private(Mounts|Tmp|Devices|Network|IPC|Users|PIDs)|Protect(System|Home|Proc|Kernel\w+|"
    r"ControlGroups|Hostname)|ProcSubset|RootDirectory|RootImage|MountFlags|"
    r"(ReadWrite|ReadOnly|Inaccessible|Exec|NoExec|Bind|BindReadOnly)Paths|TemporaryFileSystem|"
    r"(Runtime|State|Cache)Directory)$"
)


def _settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name] += value.split()
    return found


def test_the_vmkernel_s_unit_has_no_namespace_that_hides_its_mounts() -> None:
    """With one, every datastore would be seen by the vmkernel alone, and no VM could start."""
    assert [name for name in _settings() if OWN_MOUNTS.match(name)] == []


def test_the_vmkernel_keeps_no_capability_that_units_of_their_own_have() -> None:
    """Modules, clock, power and tracing are others' work."""
    kept = set(_settings()["CapabilityBoundingSet"])
    assert all(name.startswith("CAP_") for name in kept)
    assert not kept & {
        *("CAP_SYS_MODULE", "CAP_SYS_TIME", "CAP_SYS_BOOT", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT"),
        *("CAP_BPF", "CAP_PERFMON", "CAP_NET_RAW", "CAP_SETPCAP", "CAP_SETFCAP", "CAP_WAKE_ALARM"),
    }


def test_no_start_of_a_service_is_given_up_because_the_machine_is_slow() -> None:
    """Each is given three minutes at least, as by systemd's own watchdogs; what only says why
    another failed may give up, and so may what systemd itself would wait for no longer."""
    units = ROOT / "systemd/system"
    manager = (ROOT.parents[1] / "etc/systemd/system.conf").read_text()
    found = {"the default": _limit_s(manager, "DefaultTimeoutStartSec")}
    for path in sorted({*units.glob("*.service"), *units.glob("*.d/*.conf")}):
        if "TimeoutStartSec=" in path.read_text() and "trouble" not in path.name:
            name = path.parent.stem if path.parent != units else path.name
            found[name] = _limit_s(path.read_text(), "TimeoutStartSec")
    assert {"mica-vmkernel.service", "mica-api.service", "systemd-udevd.service"} <= set(found)
    assert {name: limit_s for name, limit_s in found.items() if limit_s < 180} == {}


def _limit_s(text: str, name: str) -> int:
    (match,) = re.findall(rf"^{name}=(\d+)(s|min)$", text, re.MULTILINE)
    return int(match[0]) * (60 if match[1] == "min" else 1)


@pytest.mark.parametrize(
    "parameter",
    [
        *("lockdown=confidentiality", "module.sig_enforce=1", "debugfs=off", "ia32_emulation=0"),
        *("slab_nomerge", "vsyscall=none", "usbcore.authorized_default=0"),
    ],
)
def test_the_kernel_is_told_to_defend_itself(parameter: str) -> None:
    """GET /v1/host has a finding for those that it can see; the others show nowhere."""
    assert parameter in kernel_command_line().split()


def test_lockdown_is_among_the_security_modules() -> None:
    (modules,) = (w for w in kernel_command_line().split() if w.startswith("lsm="))
    assert {"lockdown", "yama", "landlock"} <= set(modules.removeprefix("lsm=").split(","))


def test_no_bundle_brings_drivers_for_what_the_usb_rules_keep_out() -> None:
    """A driver in the image adds its devices to the rules that let USB devices in."""
    drivers = {
        name.replace("-", "_")
        for bundle in load_bundles(REPOSITORY / "firmware/device_bundles")
        for name in bundle.manifest.drivers
    }
    kept_out = re.compile(
        r"(hid_(?!hyperv)|usbhid|usbserial|cdc_acm|ftdi_sio|pl2303|cp210x|ch341|usblp|uvc)"
    )
    assert sorted(filter(kept_out.match, drivers)) == []


def test_usb_links_that_lead_to_no_switch_are_no_uplinks() -> None:
    """Each driver of USB links is of adapters, or of whole classes, as controllers and phones have:
    those stay out of the bond. Those of cables between two computers are in no bundle."""
    by_bundle = {
        bundle.name: {name.replace("-", "_") for name in bundle.manifest.drivers}
        for bundle in load_bundles(REPOSITORY / "firmware/device_bundles")
    }
    uplinks = (ROOT / "systemd/network/20-uplinks.network").read_text()
    (line,) = (w for w in uplinks.splitlines() if w.startswith("Driver=!"))
    left_out = set(line.removeprefix("Driver=!").split())
    assert by_bundle["usb_ethernet"] == USB_ADAPTERS | left_out
    assert left_out == {"cdc_eem", "cdc_ether", "cdc_ncm", "rndis_host"}
    cables = {"cdc_subset", "gl620a", "net1080", "plusb", "zaurus"}
    assert cables.isdisjoint(set().union(*by_bundle.values()))
