"""A wait for a VM's console that runs out says what the host knows of the VM."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.console import Console, ConsoleTimeoutError, SocketWire
from tests.framework.vm_story import EVENTS, vm_story
from tests.unit.remote_api.samples import NOW, vm
from vmkernel.model import Event, Subject, Vm


class FakeHost:
    """A host with events of two VMs; what `broken` names fails."""

    def __init__(self, count: int, broken: str = "") -> None:
        self._count = count
        self._broken = broken

    def _check(self, name: str) -> None:
        if name == self._broken:
            raise TimeoutError(name)

    def vm(self, vm_id: str, /) -> Vm:
        self._check("state")
        return vm(vm_id)

    def event_position(self) -> str:
        self._check("events")
        return self._id(self._count)

    def events(self, after: str, /, *, reconnect: bool) -> Iterator[Event]:
        assert not reconnect
        for number in range(int(after.rpartition("-")[2], 16) + 1, self._count + 1):
            name = ("web", "other")[number % 2]
            yield Event(
                id=self._id(number),
                time=NOW,
                type="vm.state",
                subject=Subject(kind="vm", id=name),
                message=f"{name} {number}.",
            )
        raise AssertionError("the stream stays open: nobody reads on")

    def screenshot(self, vm_id: str, /) -> bytes:
        self._check("screen")
        return b"PNG of " + vm_id.encode()

    @staticmethod
    def _id(number: int) -> str:
        return f"01a2-{number:012x}"


def test_state_events_and_screen_are_told(tmp_path: Path) -> None:
    told = vm_story(FakeHost(1000), "web", tmp_path)
    picture = tmp_path / "web-screen.png"
    assert picture.read_bytes() == b"PNG of web"
    assert f"screen: saved as {picture}" in told
    assert f"state: {vm('web').status.state.value}" in told
    events = [line for line in told.splitlines() if "vm.state" in line]
    assert len(events) == EVENTS
    assert events[-1].endswith("web 1000.")
    assert "other" not in told


@pytest.mark.parametrize("broken", ["state", "events", "screen"])
def test_what_cannot_be_had_hides_nothing_else(tmp_path: Path, broken: str) -> None:
    told = vm_story(FakeHost(4, broken), "web", tmp_path)
    lines = [line for line in told.splitlines() if "can't be had" in line]
    assert [line.partition(":")[0] for line in lines] == [broken]
    assert len([name for name in ("state:", "events:", "screen:") if name in told]) == 3


def test_a_host_without_events_is_not_waited_for(tmp_path: Path) -> None:
    assert "events: none" in vm_story(FakeHost(0), "web", tmp_path)


@pytest.mark.parametrize("closed", [False, True])
def test_a_wait_that_runs_out_has_the_story(tmp_path: Path, closed: bool) -> None:
    machine, ours = socket.socketpair()
    with machine, ours:
        story = lambda: vm_story(FakeHost(4), "web", tmp_path)  # noqa: E731
        console = Console(SocketWire(ours), tmp_path / "log", story=story)
        machine.sendall(b"last words\n")
        console.expect("last", timeout_s=5, what="words")
        if closed:
            machine.close()
        with pytest.raises(ConsoleTimeoutError) as caught:
            console.expect("never", timeout_s=0.2, what="more")
        console.close()
    for part in ("last words", "state: ", "web 4.", "web-screen.png"):
        assert part in str(caught.value)
