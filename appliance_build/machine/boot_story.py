"""Read the serial line of a starting appliance: its story line by line, then its status."""

import re
from dataclasses import dataclass

__all__ = ["BootStory", "Status"]

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][0-9A-B]|[=>cNODMEH78])")
READY = re.compile(r"\bMica \S+ is ready\b")
ADDRESS = re.compile(r"\bAPI: (https://\S+)")
FINGERPRINT = re.compile(r"\bTLS fingerprint \(SHA-256\): ([0-9A-Fa-f: ]+)")
CLAIM = re.compile(r"\bClaim code: (\S+)")
CLAIMED = re.compile(r"\bClaimed: yes\b")
FAILED = re.compile(r"START FAILED|Kernel panic|Boot Device Not Found|No bootable")
LOADER = re.compile(r"BdsDxe|SYSLINUX")


@dataclass
class Status:
    """What the status screen has said so far."""

    ready: bool = False
    address: str | None = None
    fingerprint: str | None = None
    claim_code: str | None = None
    claimed: bool = False
    failure: str | None = None

    def complete(self) -> bool:
        """Return whether everything that the user needs is known."""
        told = self.claimed or self.claim_code is not None
        return self.ready and self.fingerprint is not None and told


class BootStory:
    """Takes the serial line's bytes as they come."""

    def __init__(self) -> None:
        self.status = Status()
        self.stage = "the firmware"
        self.tail: list[str] = []
        self._partial = b""

    def feed(self, data: bytes) -> list[str]:
        """Take bytes; return the whole lines in them, without escape sequences."""
        *whole, self._partial = (self._partial + data).split(b"\n")
        lines = []
        for raw in whole:
            line = ESCAPES.sub("", raw.decode("utf-8", "replace")).rstrip()
            if line:
                self._take(line)
                lines.append(line)
        return lines

    def _take(self, line: str) -> None:
        self.tail = [*self.tail[-40:], line]
        status = self.status
        if LOADER.search(line):
            self.stage = "the loader and the kernel"
        elif line.startswith("mica: kernel up"):
            self.stage = "the system image"
        elif line.startswith("mica: system image in place"):
            self.stage = "the system's services"
        if FAILED.search(line):
            status.failure = line
        status.ready = status.ready or bool(READY.search(line))
        status.claimed = status.claimed or bool(CLAIMED.search(line))
        if found := ADDRESS.search(line):
            status.address = found[1]
        if found := FINGERPRINT.search(line):
            status.fingerprint = found[1].strip()
        if found := CLAIM.search(line):
            status.claim_code = found[1]
