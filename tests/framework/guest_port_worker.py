"""A virtual switch in network and mount namespaces of its own, with guests' ports that Mica's own
code makes; it sends frames as a guest would and reports where they arrive. See guest_ports.py.

Started by `unshare`; one JSON object a line on its standard input and output:

    {"do": "send", "from": "guest", "frames": [hex, …]}   -> {"arrived": [["host", "other"], …]}
    {"do": "addresses"}                                   -> {"addresses": ["10.9.0.1/24", …]}
    {"do": "add_address", "address": "fd09::1/64"}        -> {}
    {"do": "renew"}                                       -> {}
    {"do": "plug", "mac": M}                              -> {"tap": name} or {"error": text}
    {"do": "adopt", "mac": M, "tap": name}                -> {}
    {"do": "strip"}                                       -> {}   (takes the guest's filter away)
    {"do": "filtered"}                                    -> {"filtered": true}
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vmkernel.host.bridge_port import join_bridge
from vmkernel.host.port_filter import has_filter
from vmkernel.host.rtnetlink import addresses
from vmkernel.host.tap import open_tap
from vmkernel.model import MicaError, NicModel, NicSpec, NicStatus
from vmkernel.network import BridgeNetwork, PortGroup
from vmkernel.network.frame_filter import compile_filter
from vmkernel.network.host_identity import read_host_identity
from vmkernel.network.policy import PortPolicy

__all__ = ["main"]

SWITCH = "sw0"
SIOCBRADDBR, SIOCSIFHWADDR, SIOCGIFFLAGS, SIOCSIFFLAGS = 0x89A0, 0x8924, 0x8913, 0x8914
VNET_HEADER = bytes(10)
MARK = struct.Struct("!12xHI")
MARK_TYPE = 0x88B6
"""An experimental type: a frame of it, sent last, has arrived once all before it have."""


class Wire:
    """The switch and what hangs on it."""

    def __init__(self, host_mac: str, guest: str, other: str) -> None:
        make_bridge(host_mac)
        self.network = BridgeNetwork({"vm-network": PortGroup("vm-network", SWITCH)})
        self.fds: dict[str, int] = {}
        self.taps: dict[str, str] = {}
        self.macs = {"guest": guest, "other": other}
        for name, mac in self.macs.items():
            self.taps[name], self.fds[name] = self.plug(mac)
        fd, uplink = open_tap()
        join_bridge(uplink, SWITCH, learns=True)
        self.fds["uplink"], self.taps["uplink"] = fd, uplink
        self.host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self.host.bind((SWITCH, 0))
        self.host.setblocking(False)
        self.marks = 0

    def plug(self, mac: str) -> tuple[str, int]:
        nic = NicSpec(mac=mac, model=NicModel.E1000)
        (port,) = asyncio.run(self.network.open_ports("web", [nic]))
        assert port.tap is not None
        assert port.tap_fd is not None
        return port.tap, port.tap_fd

    def send(self, origin: str, frames: list[bytes]) -> list[list[str]]:
        """Where each frame arrives."""
        self._drain()
        found = []
        for frame in frames:
            os.write(self.fds[origin], VNET_HEADER + frame)
            self.marks += 1
            # Every port passes a broadcast; its own sender's address makes it an ordinary one.
            sender = bytes.fromhex(self.macs.get(origin, "020000000020").replace(":", ""))
            mark = b"\xff" * 6 + sender + struct.pack("!HI", MARK_TYPE, self.marks)
            os.write(self.fds[origin], VNET_HEADER + mark.ljust(60, b"\0"))
            found.append(self._arrived(origin, frame))
        return found

    def _arrived(self, origin: str, frame: bytes) -> list[str]:
        """Read all sides until the mark has come everywhere."""
        sides = [name for name in ("host", "other", "guest", "uplink") if name != origin]
        wanted = (frame, frame[:12] + frame[16:])  # the host's side takes a tag off
        met: set[str] = set()
        marked: set[str] = set()
        deadline = time.monotonic() + 10
        while marked != set(sides):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the mark did not arrive at {set(sides) - marked}")
            for name in sides:
                for got in self._take(name):
                    # A kernel with br_netfilter cuts the padding behind an IP packet off.
                    if any(w == got or (len(got) > 33 and w.startswith(got)) for w in wanted):
                        met.add(name)
                    if len(got) >= MARK.size and MARK.unpack_from(got) == (MARK_TYPE, self.marks):
                        marked.add(name)
            time.sleep(0)
        return sorted(met)

    def _take(self, name: str) -> list[bytes]:
        taken = []
        while True:
            try:
                if name == "host":
                    data, (_, _, kind, _, _) = self.host.recvfrom(1 << 16)
                    if kind != socket.PACKET_OUTGOING:
                        taken.append(data)
                else:
                    taken.append(os.read(self.fds[name], 1 << 16)[len(VNET_HEADER) :])
            except BlockingIOError:
                return taken

    def _drain(self) -> None:
        sides = [self.host.fileno(), *self.fds.values()]
        while select.select(sides, [], [], 0.05)[0]:
            for name in ("host", *self.fds):
                self._take(name)


def make_bridge(mac: str) -> None:
    """A bridge as networkd makes it, its address fixed, up; filtering VLANs if the kernel can."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCBRADDBR, struct.pack("16s", SWITCH.encode()))
        raw = bytes.fromhex(mac.replace(":", ""))
        fcntl.ioctl(control, SIOCSIFHWADDR, struct.pack("16sH6s16x", SWITCH.encode(), 1, raw))
        filtering = Path(f"/sys/class/net/{SWITCH}/bridge/vlan_filtering")
        if filtering.exists():
            filtering.write_text("1")
        for name, value in (("accept_ra", "1"), ("accept_dad", "1")):
            Path(f"/proc/sys/net/ipv6/conf/{SWITCH}/{name}").write_text(value)
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh22x", SWITCH.encode(), 0))
        flags = struct.unpack("16sh22x", answer)[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", SWITCH.encode(), flags | 1))


def answer(wire: Wire, request: dict[str, Any]) -> dict[str, Any]:
    match request["do"]:
        case "send":
            frames = [bytes.fromhex(text) for text in request["frames"]]
            return {"arrived": wire.send(request["from"], frames)}
        case "addresses":
            index = socket.if_nametoindex(SWITCH)
            return {"addresses": list(addresses(usable=False).get(index, ()))}
        case "add_address":
            subprocess.run(["ip", "addr", "add", request["address"], "dev", SWITCH], check=True)
            return {}
        case "renew":
            asyncio.run(wire.network.renew())
            return {}
        case "plug":
            try:
                name, fd = wire.plug(request["mac"])
            except MicaError as error:
                return {"error": str(error)}
            os.close(fd)
            return {"tap": name}
        case "adopt":
            status = NicStatus(
                key="nic0", mac=request["mac"], port_group="vm-network", tap=wire.taps["guest"]
            )
            wire.network = BridgeNetwork({"vm-network": PortGroup("vm-network", SWITCH)})
            asyncio.run(wire.network.adopt_ports("web", [status]))
            return {}
        case "strip":
            subprocess.run(["tc", "qdisc", "del", "dev", wire.taps["guest"], "clsact"], check=True)
            return {}
        case "filtered":
            policy = PortPolicy(wire.macs["guest"])
            program = compile_filter(policy, read_host_identity())
            return {"filtered": has_filter(wire.taps["guest"], program)}
    raise ValueError(request["do"])


def main() -> None:
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    wire = Wire(*sys.argv[1:4])
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(wire, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
