"""Screenshots, keys and NMIs of a VM, on a QEMU that is an object."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.framework.running import on_loop
from vmkernel.model import CONTROL, ConsoleKind, ErrorCode, MicaError, VmAction
from vmkernel.qemu import QmpCommandError
from vmkernel.vm.consoles import SCREENSHOT_MAX_BYTES
from vmkernel.vm.open_streams import EACH, TOTAL

from .fake_qemu import FakeQemu
from .test_driver import running
from .world import World


def _draws(qemu: FakeQemu, picture: bytes) -> None:
    """What QEMU does for a screenshot: writes into the descriptor that came before."""

    def dump(arguments: Mapping[str, Any]) -> dict[str, Any]:
        ((number, fd),) = qemu.fdsets.items()
        assert arguments == {"filename": f"/dev/fdset/{number}", "format": "png"}
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.read(fd, 1)  # it writes only
        os.write(fd, picture)
        return {}

    qemu.replies["screendump"] = dump


@on_loop
async def test_a_screenshot_comes_by_a_descriptor_that_is_taken_back(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        qemu, consoles = world.qemu(), world.vms.consoles
        _draws(qemu, b"PNG")
        assert await consoles.screenshot("web") == b"PNG"
        assert qemu.fdsets == {}
        qemu.replies["screendump"] = QmpCommandError("there is no console to take a screendump")
        with pytest.raises(MicaError, match="no display") as caught:
            await consoles.screenshot("web")
        assert caught.value.problem.code is ErrorCode.CONFLICT
        assert qemu.fdsets == {}


@on_loop
async def test_a_screenshot_that_no_frame_holds_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        _draws(world.qemu(), bytes(SCREENSHOT_MAX_BYTES + 1))
        with pytest.raises(MicaError, match="too large"):
            await world.vms.consoles.screenshot("web")


@on_loop
async def test_a_takeover_is_an_event(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        consoles = world.vms.consoles
        with (
            await consoles.open("web", ConsoleKind.SERIAL, actor="anna", origin="") as anna,
            await consoles.open("web", ConsoleKind.SERIAL, actor="bert", origin="") as bert,
        ):
            anna.send(CONTROL + b'{"mode":"write"}')
            await world.quiet()
            assert world.events("vm.console-taken-over") == []
            bert.send(CONTROL + b'{"mode":"takeover"}')
            await world.quiet()
            (event,) = world.events("vm.console-taken-over")
            assert (event.subject.id, event.data) == ("web", {"by": "bert", "from": "anna"})


@on_loop
async def test_keys_are_pressed_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.vms.consoles.press("web", ("ctrl-alt-delete", "f1"), "hello, World!\n")
        downs = [
            event["data"]["key"]["data"]
            for name, arguments in world.qemu().commands
            if name == "input-send-event"
            for event in arguments["events"]
            if event["data"]["down"]
        ]
        assert downs == [
            *("ctrl", "alt", "delete", "f1"),
            *("h", "e", "l", "l", "o", "comma", "spc", "shift", "w", "o", "r", "l", "d"),
            *("shift", "1", "ret"),
        ]


@on_loop
async def test_wrong_keys_are_all_named_and_nothing_is_pressed(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        consoles = world.vms.consoles
        with pytest.raises(MicaError) as caught:
            await consoles.press("web", ("f1", "any", "a-b"), "\u20ac")
        fields = caught.value.problem.fields
        assert [field.pointer for field in fields] == ["/keys/1", "/keys/2", "/text"]
        assert "modifiers are alt, " in fields[1].detail
        for key, told in (
            ("delte", "there is no key 'delte'; delete or del or enter may be meant."),
            ("ctrl-page-dwn", "'page' is not a modifier"),
            ("ctrl-entr", "there is no key 'entr'; enter or "),
            ("xyzzy" * 100, "keys are a to z, 0 to 9, f1 to f12, apostrophe, asterisk, "),
        ):
            with pytest.raises(MicaError) as caught:
                await consoles.press("web", (key,), "")
            (field,) = caught.value.problem.fields
            assert told in field.detail, field.detail
            assert len(field.detail) < 1000
        with pytest.raises(MicaError) as caught:
            await consoles.press("web", (), "")
        assert [field.pointer for field in caught.value.problem.fields] == ["/keys"]
        world.qemu().pause()
        await world.quiet()
        with pytest.raises(MicaError, match="is paused"):
            await consoles.press("web", ("f1",), "")
        assert world.qemu().commands == []


@on_loop
async def test_nmi_and_what_is_off(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        consoles = world.vms.consoles
        await consoles.inject_nmi("web")
        assert world.qemu().commands == [("inject-nmi", {})]
        await world.act(VmAction.POWER_OFF)
        for call in (
            consoles.inject_nmi("web"),
            consoles.screenshot("web"),
            consoles.press("web", ("a",), ""),
        ):
            with pytest.raises(MicaError) as caught:
                await call
            assert caught.value.problem.code is ErrorCode.CONFLICT


class _Streams:
    """VMs whose consoles are sockets, the other ends of which QEMU or a line has."""

    def __init__(self) -> None:
        self.theirs: list[socket.socket] = []
        self.fails = False

    async def opened(self, _vm: str, kind: ConsoleKind, _actor: str, _origin: str) -> socket.socket:
        if self.fails:
            raise MicaError(ErrorCode.CONFLICT, "It is off.")
        form = socket.SOCK_SEQPACKET if kind is ConsoleKind.SERIAL else socket.SOCK_STREAM
        given, theirs = socket.socketpair(socket.AF_UNIX, form)
        self.theirs.append(theirs)
        return given


@pytest.mark.parametrize("kind", list(ConsoleKind))
@on_loop
async def test_one_token_leaves_consoles_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: ConsoleKind
) -> None:
    """Whoever asks for it, and whatever of the streams has become of it."""
    vms, consoles = _Streams(), World(tmp_path).vms.consoles
    monkeypatch.setattr(consoles, "_opened", vms.opened)

    async def open_one(actor: str, vm: int = 0) -> socket.socket:
        return await consoles.open(f"vm-{vm}", kind, actor=actor, origin="192.0.2.1")

    vms.fails = True
    for _ in range(EACH + 1):
        with pytest.raises(MicaError, match="It is off"):
            await open_one("loud")
    vms.fails = False
    loud = [await open_one("loud", number) for number in range(EACH)]
    with pytest.raises(MicaError, match="32 consoles are open for the token loud") as caught:
        await open_one("loud")
    assert caught.value.problem.code is ErrorCode.RATE_LIMITED
    others = [await open_one(f"quiet-{number // EACH}") for number in range(TOTAL - EACH)]
    with pytest.raises(MicaError) as caught:
        await open_one("late")
    assert caught.value.problem.code is ErrorCode.UNAVAILABLE
    loud.pop().close()
    loud.append(await open_one("loud"))
    others.pop().close()
    others.append(await open_one("late"))
    for stream in (*loud, *others, *vms.theirs):
        stream.close()
    (await open_one("late")).close()
