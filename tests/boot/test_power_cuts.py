"""Power cuts right after successful replies, at random instants: nothing acknowledged is lost.

One thread changes things through the API and notes what was acknowledged, without a pause. At
twenty random instants the test notes how far the record of the disks' writes had come. For each,
the disks as a power cut at that instant would have left them are computed (power_cut.py): what
was flushed, and of the rest nothing or a torn part. The state log of all twenty is decoded and
held against what had been acknowledged; some of them are started for real, and so is the
machine's own stick after its emulator was killed in the middle of the work.
"""

from __future__ import annotations

import base64
import hashlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.framework import inputs
from tests.framework.appliance import Appliance
from tests.framework.drives import Bus, Drive, blank_disk, copy_sparse, overlay
from tests.framework.plugged_in import Setup, plugged_in, restarted
from tests.framework.power_cut import Entry, WriteLog, apply_cut, survivors
from tests.framework.stick import partition_of, region_after
from vmkernel.state import HostConfig, StateLog
from vmkernel.state.config import decode_config
from vmkernel.state.media import SLOT_BYTES
from vmkernel.state.upgrades import SCHEMA

GIB = 1 << 30
DISK = "POWERDISK01"
CUTS = 20
STARTED = 2
LONGEST_PAUSE_S = 1.2
SEED = 20261123
PART_BYTES = 64 << 10
PARTS = 128
TUS = {"tus-resumable": "1.0.0"}


@dataclass(frozen=True)
class Known:
    """What the API had acknowledged."""

    tokens: frozenset[str]
    vms: frozenset[str]
    uploaded: int
    """How many parts of the upload."""
    pending: str
    """The name of the one change that was asked for and not answered yet."""


@dataclass(frozen=True)
class Cut:
    """One instant."""

    known: Known
    stick_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Work:
    """What the changes have left behind."""

    setup: Setup
    token: str
    upload: str
    """Where the upload is continued."""
    cuts: tuple[Cut, ...]
    at_the_end: Known


class Changes(threading.Thread):
    """Makes and deletes tokens and VMs and sends an image in parts, one after the other, and knows
    what was acknowledged."""

    def __init__(self, appliance: Appliance, upload: str) -> None:
        super().__init__(daemon=True)
        self._appliance = appliance
        self._upload = upload
        self._lock = threading.Lock()
        self._known = Known(frozenset({"admin"}), frozenset(), 0, "")
        self._ending = threading.Event()
        self.failure: Exception | None = None

    @contextmanager
    def held(self) -> Iterator[Known]:
        """What has been acknowledged by now; nothing more is acknowledged meanwhile."""
        with self._lock:
            yield self._known

    def known(self) -> Known:
        """What has been acknowledged by now."""
        with self._lock:
            return self._known

    def end(self) -> None:
        """Make no further change, and take what fails from now on as it comes."""
        self._ending.set()

    def run(self) -> None:
        """Change until told otherwise."""
        number = 0
        try:
            while not self._ending.is_set():
                number += 1
                self._one(number)
        except Exception as error:
            if not self._ending.is_set():
                self.failure = error

    def _one(self, number: int) -> None:
        name = f"c{number}"
        self._pending(name)
        if number % 4 == 0 and self._known.uploaded < PARTS - 1:
            _send_part(self._appliance, self._upload, self._known.uploaded)
            self._acknowledge(uploaded=self._known.uploaded + 1)
        elif number % 3 == 0:
            self._appliance.create_vm(name)
            self._acknowledge(vms=self._known.vms | {name})
        else:
            self._appliance.create_token(name)
            self._acknowledge(tokens=self._known.tokens | {name})
        if number % 7 == 0:
            gone = min(self._known.tokens - {"admin"})
            self._pending(gone)
            self._appliance.call("DELETE", f"/v1/tokens/{gone}", expect=204)
            self._acknowledge(tokens=self._known.tokens - {gone})

    def _pending(self, name: str) -> None:
        with self._lock:
            self._known = replace(self._known, pending=name)

    def _acknowledge(self, **changed: Any) -> None:
        with self._lock:
            self._known = replace(self._known, **changed, pending="")


class Region:
    """The state partition's bytes as a medium."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.slot_bytes = SLOT_BYTES
        self.slot_count = len(data) // SLOT_BYTES

    def read(self, slot: int, length: int) -> bytes:
        """The first bytes of a slot."""
        return self._data[slot * SLOT_BYTES : slot * SLOT_BYTES + length]

    def write(self, slot: int, data: bytes) -> None:
        """Nobody writes here."""
        raise AssertionError(
            f"slot {slot} would get {len(data)} bytes; a disk after a power cut is only read"
        )


@pytest.fixture(scope="module")
def work(folder: Path) -> Work:
    """Twenty instants of a busy machine, whose power is then really cut."""
    disk_log = folder / "main.writes"
    disk_log.unlink(missing_ok=True)
    disk = Drive(
        "main", blank_disk(folder / "main.img", 2 * GIB), Bus.VIRTIO, DISK, write_log=disk_log
    )
    setup = Setup(folder=folder, disks=(disk,), write_logs=True)
    chance = random.Random(SEED)
    cuts: list[Cut] = []
    with plugged_in(setup) as appliance:
        assert appliance.token is not None
        appliance.create_datastore("main", DISK)
        upload = _begin_upload(appliance)
        changes = Changes(appliance, upload)
        changes.start()
        stick, main = WriteLog(setup.stick_log), WriteLog(disk_log)
        while len(cuts) < CUTS:
            time.sleep(chance.uniform(0.05, LONGEST_PAUSE_S))
            assert changes.failure is None, changes.failure
            with changes.held() as known:
                cuts.append(Cut(known, stick.size(), main.size()))
        before = changes.known()
        appliance.machine.wait_for(
            "one more change is acknowledged",
            lambda: changes.known() != before,
            timeout_s=30,
            interval_s=0.01,
        )
        changes.end()
        with changes.held() as at_the_end:
            appliance.machine.cut_power()
        changes.join(timeout=60)
        return Work(setup, appliance.token, upload, tuple(cuts), at_the_end)


def _part(number: int) -> bytes:
    return random.Random(number).randbytes(PART_BYTES)


def _begin_upload(appliance: Appliance) -> str:
    digest = hashlib.sha256(b"".join(_part(number) for number in range(PARTS))).hexdigest()
    words = {"image": "sent", "datastore": "main", "format": "raw", "sha256": digest}
    pairs = [f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in words.items()]
    headers = {
        **TUS,
        "upload-length": str(PARTS * PART_BYTES),
        "upload-metadata": ",".join(pairs),
    }
    answer = appliance.call("POST", "/v1/uploads", headers=headers, expect=201)
    return urlsplit(answer.headers["location"]).path  # the machine is elsewhere after its restart


def _send_part(appliance: Appliance, upload: str, number: int) -> None:
    headers = {
        **TUS,
        "upload-offset": str(number * PART_BYTES),
        "content-type": "application/offset+octet-stream",
    }
    appliance.call("PATCH", upload, content=_part(number), headers=headers, expect=204)


def _holds(found: set[str], wanted: frozenset[str], pending: str) -> None:
    """All that was acknowledged is there, and nothing else but what was under way."""
    assert found - {pending} == set(wanted) - {pending}, f"under way was {pending or 'nothing'}"


def _config_after(base: Path, entries: Sequence[Entry]) -> HostConfig:
    start, length = partition_of(base, "mica-state")
    log = StateLog(Region(region_after(base, entries, start, length)))
    found = log.load(SCHEMA).snapshot
    assert found is not None, "no configuration is left"
    return decode_config(found.schema, found.payload)


@pytest.mark.timeout(600)
def test_enough_was_acknowledged_to_be_lost(work: Work) -> None:
    assert len(work.cuts) == CUTS
    last = work.cuts[-1].known
    assert len(last.tokens) > 5
    assert len(last.vms) > 2
    assert last.uploaded > 2
    assert len({cut.known for cut in work.cuts}) > CUTS // 2, "the instants differ"


@pytest.mark.parametrize("number", range(CUTS))
def test_the_state_log_after_a_power_cut(work: Work, number: int) -> None:
    cut = work.cuts[number]
    entries = WriteLog(work.setup.stick_log).entries(cut.stick_bytes)
    for chance in (None, random.Random(SEED + number)):
        config = _config_after(inputs.stick_image(), survivors(entries, chance))
        _holds({token.id for token in config.tokens}, cut.known.tokens, cut.known.pending)
        assert [datastore.id for datastore in config.datastores] == ["main"]


@pytest.mark.parametrize("number", random.Random(SEED).sample(range(CUTS), STARTED))
def test_a_start_after_a_power_cut(work: Work, number: int, folder: Path) -> None:
    cut = work.cuts[number]
    after = replace(work.setup, folder=folder / f"cut{number}", write_logs=False)
    after.folder.mkdir(exist_ok=True)
    chance = random.Random(SEED + number)
    stick = survivors(WriteLog(work.setup.stick_log).entries(cut.stick_bytes), chance)
    raw = after.folder / "stick.raw"
    copy_sparse(inputs.stick_image(), raw)
    apply_cut(raw, stick)
    overlay(raw, after.stick)
    (old,) = work.setup.disks
    assert old.write_log is not None
    kept = survivors(WriteLog(old.write_log).entries(cut.disk_bytes), chance)
    blank = blank_disk(after.folder / "main.img", 2 * GIB)
    apply_cut(blank, kept)
    _start_and_compare(
        replace(after, disks=(replace(old, path=blank, write_log=None),)), work, cut.known
    )


def test_a_start_after_the_power_was_really_cut(work: Work) -> None:
    drives = tuple(replace(drive, write_log=None) for drive in work.setup.disks)
    setup = replace(work.setup, disks=drives, write_logs=False)
    _start_and_compare(setup, work, work.at_the_end)


def _start_and_compare(setup: Setup, work: Work, known: Known) -> None:
    with restarted(setup, token=work.token) as appliance:
        found = {item["id"] for item in appliance.get("/v1/tokens", limit=1000)["items"]}
        _holds(found, known.tokens, known.pending)
        appliance.machine.wait_for(
            "the datastore is available",
            lambda: appliance.get("/v1/datastores/main")["status"]["state"] == "available",
            timeout_s=60,
        )
        vms = {item["id"] for item in appliance.get("/v1/vms", limit=1000)["items"]}
        _holds(vms, known.vms, known.pending)
        _finish_upload(appliance, work.upload, known)


def _finish_upload(appliance: Appliance, upload: str, known: Known) -> None:
    """Go on from where it is told to be; the image's digest proves all that came before."""
    answer = appliance.call("HEAD", upload, headers=TUS, expect=(200, 204))
    offset = int(answer.headers["upload-offset"])
    assert known.uploaded * PART_BYTES <= offset <= (known.uploaded + 1) * PART_BYTES
    rest = b"".join(_part(number) for number in range(PARTS))[offset:]
    headers = {
        **TUS,
        "upload-offset": str(offset),
        "content-type": "application/offset+octet-stream",
    }
    appliance.call("PATCH", upload, content=rest, headers=headers, expect=204)
    appliance.machine.wait_for(
        "the image is there",
        lambda: "sent" in {item["id"] for item in appliance.get("/v1/images")["items"]},
        timeout_s=90,
    )
