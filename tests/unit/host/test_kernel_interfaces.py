"""What the kernel says, byte by byte: uevents, addresses, the power button's events."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from vmkernel.host.power_button import PowerButton, power_buttons
from vmkernel.host.rtnetlink import addresses, decode_addresses
from vmkernel.host.uevents import decode_uevent


def test_uevents() -> None:
    event = decode_uevent(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sda\0")
    assert event is not None
    assert (event.action, event.path, event.subsystem) == ("add", "/devices/x", "block")
    assert decode_uevent(b"libudev\0...") is None


def _address(index: int, address: str, flags: int = 0x80) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(family, address)
    body = struct.pack("=BBBBI", family, 24, flags & 0xFF, 0, index)
    for kind, value in ((1, raw), (8, struct.pack("=I", flags))):
        body += struct.pack("=HH", 4 + len(value), kind) + value
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body


def test_addresses_are_those_that_can_be_used() -> None:
    data = _address(2, "192.0.2.7") + _address(3, "fe80::1") + _address(3, "fe80::2", 0xC0)
    assert list(decode_addresses(data)) == [(2, "192.0.2.7/24"), (3, "fe80::1/24")]


def test_a_torn_reply_ends_quietly() -> None:
    data = _address(2, "192.0.2.7")
    for length in range(len(data)):
        assert list(decode_addresses(data[:length])) == []


def test_the_loopback_has_its_address() -> None:
    assert any("127.0.0.1/8" in found for found in addresses().values())


def test_the_power_button_among_other_input_devices(tmp_path: Path) -> None:
    for name, phys in (("event0", "LNXPWRBN/button/input0"), ("event1", "usb-1/input0")):
        folder = tmp_path / "class/input" / name / "device"
        folder.mkdir(parents=True)
        (folder / "phys").write_text(phys + "\n")
    assert list(power_buttons(tmp_path, Path("/dev"))) == [Path("/dev/input/event0")]


def test_only_a_press_counts(tmp_path: Path) -> None:
    def event(kind: int, code: int, value: int) -> bytes:
        return struct.pack("llHHi", 0, 0, kind, code, value)

    fifo = tmp_path / "event0"
    os.mkfifo(fifo)
    button = PowerButton(fifo)
    writer = os.open(fifo, os.O_WRONLY)
    assert not button.pressed()
    os.write(writer, event(1, 116, 0) + event(0, 0, 0) + event(1, 30, 1))
    assert not button.pressed()
    os.write(writer, event(1, 116, 1) + event(0, 0, 0))
    assert button.pressed()
    os.close(writer)
    button.close()
