"""The process behind outside.py: a network namespace with a tap, a DHCP server and a scanner.

It is started with one end of a Unix socket as its standard input, and with the number of a VLAN if
everything is to be tagged. It sends the descriptor of the machine's end of the wire (the tap, or a
datagram socket that takes tagged frames), then answers requests, one JSON object a line:

    {"do": "lease"}                                  -> {"address": "10.77.0.2" or null}
    {"do": "neighbours"}                             -> {"addresses": ["fe80::…"]}
    {"do": "get", "address": A, "path": P}           -> {"line": "HTTP/1.1 200 OK"}
    {"do": "syslog"}                                 -> {"text": the next that comes by UDP}
    {"do": "scan", "address": A, "ports": [1, 65535]} -> {"open": [443]}

The namespace has no other way out: nothing that the machine does there reaches any other host.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import socket
import ssl
import struct
import sys
import threading
from typing import Any

__all__ = ["main"]

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8913, 0x8914
IFF_UP = 1
TAP = "mica0"
SERVER, LEASE, MASK = "10.77.0.1", "10.77.0.2", "255.255.255.0"
TPID = 0x8100
MAGIC_COOKIE = 0x63825363
CONCURRENT = 512
CONNECT_TIMEOUT_S = 3.0
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5


class DhcpServer(threading.Thread):
    """Gives one address to every client."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.leased: str | None = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, TAP.encode())
        self._socket.bind(("0.0.0.0", 67))

    def run(self) -> None:
        """Answer until the process ends."""
        while True:
            packet = self._socket.recv(2048)
            if len(packet) < 241 or packet[0] != 1:
                continue
            kind = _options(packet[240:]).get(53, b"\0")[0]
            answer = {DISCOVER: OFFER, REQUEST: ACK}.get(kind)
            if answer is None:
                continue
            self._socket.sendto(_reply(packet, answer), ("255.255.255.255", 68))
            if answer == ACK:
                self.leased = LEASE


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    position = 0
    while position + 1 < len(data) and data[position] != 255:
        if data[position] == 0:
            position += 1
            continue
        length = data[position + 1]
        found[data[position]] = data[position + 2 : position + 2 + length]
        position += 2 + length
    return found


def _reply(packet: bytes, kind: int) -> bytes:
    server = socket.inet_aton(SERVER)
    header = struct.pack("!BBBBI", 2, 1, 6, 0, struct.unpack_from("!I", packet, 4)[0])
    header += struct.pack("!HH", 0, 0x8000) + bytes(4) + socket.inet_aton(LEASE) + server
    header += bytes(4) + packet[28:44] + bytes(192) + struct.pack("!I", MAGIC_COOKIE)
    options = [(53, bytes([kind])), (54, server), (51, struct.pack("!I", 86400))]
    options += [(1, socket.inet_aton(MASK)), (3, server)]
    body = b"".join(bytes([code, len(value)]) + value for code, value in options)
    return header + body + b"\xff"


def _make_tap() -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", TAP.encode(), IFF_TAP | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for what, address in ((SIOCSIFADDR, SERVER), (SIOCSIFNETMASK, MASK)):
            inet = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, what, struct.pack("16s16s8x", TAP.encode(), inet))
        flags = struct.pack("16sH22x", TAP.encode(), IFF_UP)
        fcntl.ioctl(control, SIOCSIFFLAGS, flags)
    return tap


async def _is_open(address: str, port: int, slots: asyncio.Semaphore) -> bool:
    async with slots:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(address, port)
        except TimeoutError:
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.EADDRNOTAVAIL):
                raise
            return False
        writer.close()
        return True


async def _scan(address: str, first: int, last: int) -> list[int]:
    slots = asyncio.Semaphore(CONCURRENT)
    ports = range(first, last + 1)
    answers = await asyncio.gather(*(_is_open(address, port, slots) for port in ports))
    return [port for port, answer in zip(ports, answers, strict=True) if answer]


def _neighbours() -> list[str]:
    """Link-local addresses that answer to a multicast echo request."""
    request = struct.pack("!BBHHH", 128, 0, 0, 0x4D49, 1) + b"mica"
    index = socket.if_nametoindex(TAP)
    found: set[str] = set()
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as channel:
        channel.settimeout(2)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        channel.sendto(request, ("ff02::1", 0, 0, index))
        try:
            while True:
                packet, sender = channel.recvfrom(2048)
                if packet[0] == 129:
                    found.add(f"{sender[0].partition('%')[0]}%{TAP}")
        except TimeoutError:
            pass
    return sorted(found)


class Tagger(threading.Thread):
    """Carries frames between the tap and the machine, tagged on the machine's side."""

    def __init__(self, tap: int, number: int) -> None:
        super().__init__(daemon=True)
        self._tap = tap
        self._tag = struct.pack("!HH", TPID, number)
        self._ours, self.machines = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def run(self) -> None:
        """Carry until the process ends; what bears no tag, or another one, is dropped."""
        ours = self._ours.fileno()
        while True:
            ready, _, _ = select.select([self._tap, ours], [], [])
            if self._tap in ready:
                frame = os.read(self._tap, 1 << 16)
                with contextlib.suppress(OSError):
                    self._ours.send(frame[:12] + self._tag + frame[12:])
            if ours in ready:
                frame = self._ours.recv(1 << 16)
                if frame[12:16] == self._tag:
                    os.write(self._tap, frame[:12] + frame[16:])


def _status_line(address: str, path: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((address, 443), timeout=5) as plain:
            with context.wrap_socket(plain) as channel:
                request = f"GET {path} HTTP/1.1\r\nHost: mica\r\nConnection: close\r\n\r\n"
                channel.sendall(request.encode())
                return channel.recv(256).decode(errors="replace").partition("\r\n")[0]
    except OSError:
        return ""


def _answer(
    request: dict[str, Any], server: DhcpServer, collector: socket.socket
) -> dict[str, Any]:
    if request["do"] == "get":
        return {"line": _status_line(request["address"], request["path"])}
    if request["do"] == "syslog":
        return {"text": collector.recv(4096).decode()}
    if request["do"] == "lease":
        return {"address": server.leased}
    if request["do"] == "neighbours":
        return {"addresses": _neighbours()}
    if request["do"] == "scan":
        first, last = request["ports"]
        return {"open": asyncio.run(_scan(request["address"], first, last))}
    raise ValueError(f"unknown request {request}")


def main() -> None:
    """Serve the requests on standard input until it closes."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace of our own")
    wire = tap = _make_tap()
    if sys.argv[1:] and sys.argv[1]:
        tagger = Tagger(tap, int(sys.argv[1]))
        tagger.start()
        wire = tagger.machines.fileno()
    collector = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    collector.bind((SERVER, 514))
    collector.settimeout(45)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as channel:
        server = DhcpServer()
        server.start()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [wire]))
        channel.sendmsg([b"\n"], [rights])
        with channel.makefile("rw", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                lines.write(json.dumps(_answer(json.loads(line), server, collector)) + "\n")
                lines.flush()


if __name__ == "__main__":
    main()
