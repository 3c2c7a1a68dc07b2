"""Everything that outsiders feed the API with, fed for a minute: memory stays flat, others go on.

Strangers come from many loopback addresses; a user is one operator's token. The administrator, who
comes from the address that strangers use too, asks all the time, by a new connection each time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote_api.client.errors import ClientError
from remote_api.client.sdk import Mica
from tests.framework.control_process import ControlProcess
from tests.framework.ending import started
from tests.framework.hosted import HostedMica, hosted_mica
from tests.framework.repository import REPOSITORY
from tests.framework.seen_guest import seen_guest
from tests.hosted.flooding import STRANGERS, USERS, VM
from vmkernel.model import ConsoleKind, DatastoreKind, DatastoreSpec, Role, SourceFormat, TokenSpec

pytestmark = pytest.mark.alone

MIB = 1 << 20
FLOOD_S = 8
"""For each group of three kinds; a minute in all."""
GROWTH_MIB = {"remote_api": 64.0, "vmkernel": 32.0}
"""What is held at the limits; before there were any, a minute took gigabytes."""
WORST_S = 1.0


@dataclass
class Watch:
    """What the administrator sees of a host while others flood it."""

    host: HostedMica
    asked: list[tuple[float, float]] = field(default_factory=list)
    """When each request was sent and answered."""
    failures: list[str] = field(default_factory=list)
    peaks_mib: dict[str, float] = field(default_factory=dict)
    _end: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until told to end."""
        pids = {name: self.host.pid(name) for name in GROWTH_MIB}
        while not self._end.is_set():
            began = time.monotonic()
            try:
                with self.host.client() as mica:
                    began = time.monotonic()
                    mica.vm(VM)
                self.asked.append((began, time.monotonic()))
            except ClientError as error:
                self.failures.append(str(error))
            for name, pid in pids.items():
                self.peaks_mib[name] = max(self.peaks_mib.get(name, 0.0), _rss_mib(pid))
            self._end.wait(0.05)

    def __enter__(self) -> Watch:
        """Begin."""
        self._thread = threading.Thread(target=self.run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._end.set()
        self._thread.join()


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedMica]:
    """A host with a running VM and an image, for these tests alone."""
    folder = tmp_path_factory.mktemp("f")
    with hosted_mica(folder) as host:
        with host.client() as mica:
            spec = DatastoreSpec(
                kind=DatastoreKind.DIRECTORY, path=str(host.datastore_folder("main"))
            )
            mica.wait(mica.create_datastore("main", spec))
            data = folder / "image"
            data.write_bytes(b"x" * (8 * MIB))
            mica.upload_image(VM, data, datastore="main", image_format=SourceFormat.RAW)
        with seen_guest(host, VM):
            yield host


def _flood(host: HostedMica, kinds: Sequence[str], *token: str) -> list[str]:
    """Run a flooder for each kind at once; what each says of itself."""
    flooders = [
        started(
            [
                *(sys.executable, "-m", "tests.hosted.flooding"),
                *(host.address, kind, str(FLOOD_S), *token),
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for kind in kinds
    ]
    return [flooder.communicate(timeout=FLOOD_S * 6)[0].strip() for flooder in flooders]


def _groups(kinds: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(kinds), 3):
        yield kinds[at : at + 3]


def _judge(host: HostedMica, kinds: Sequence[str], *token: str) -> list[str]:
    pids = {name: host.pid(name) for name in GROWTH_MIB}
    before = {name: _rss_mib(pid) for name, pid in pids.items()}
    said: list[str] = []
    for group in _groups(kinds):
        with ControlProcess() as control:
            with Watch(host) as watch:
                said += _flood(host, group, *token)
            took_s, own_s = control.own_s(watch.asked)
        print(
            f"{', '.join(group)}: GET median {statistics.median(took_s):.3f} s, worst"
            f" {max(took_s):.3f} s of {len(took_s)}, without what any process lost to the machine"
            f" {max(own_s):.3f} s; RSS "
            + ", ".join(f"{n} {before[n]:.0f} -> {p:.0f} MiB" for n, p in watch.peaks_mib.items())
        )
        assert watch.failures == [], host.logs()
        assert len(took_s) >= 10
        assert max(own_s) < WORST_S, (group, sorted(zip(own_s, took_s, strict=True))[-5:])
        for name, peak in watch.peaks_mib.items():
            assert peak - before[name] < GROWTH_MIB[name], (group, name, before[name], peak)
    assert {name: host.pid(name) for name in GROWTH_MIB} == pids, "one was started anew"
    for line in said:
        print(line)
    return said


def test_strangers(flooded: HostedMica) -> None:
    said = [json.loads(line) for line in _judge(flooded, list(STRANGERS))]
    assert all(outcome["tried"] > 5 for outcome in said), said
    with flooded.client() as mica:
        assert mica.vm(VM).status.state == "running"


def test_one_user(flooded: HostedMica) -> None:
    with flooded.client() as mica:
        token = mica.create_token("loud", TokenSpec(role=Role.OPERATOR)).secret
        said = {
            outcome["kind"]: outcome
            for line in _judge(flooded, list(USERS), token)
            for outcome in [json.loads(line)]
        }
        assert said["tickets"]["201"] >= 16, said["tickets"]
        for kind in ("tickets", "pulls", "consoles"):
            assert said[kind]["429"] > 0, said[kind]
        _others_have_their_places(mica)


def _others_have_their_places(mica: Mica) -> None:
    """What the flooder left takes no place of the administrator's."""
    assert mica.console_ticket(VM, ConsoleKind.SERIAL).ticket
    for image in list(mica.images()):
        if image.id != VM and image.id.startswith(("left-", "pulled-", "tus-")):
            mica.delete_image(image.id)
