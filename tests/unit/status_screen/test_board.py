"""The board: what it waits for, what it says meanwhile, when it draws."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from vmkernel.status_screen import BoardSources, StatusBoard, StatusView, Terminals
from vmkernel.status_screen import board as board_module


@dataclass
class World:
    """What the board sees."""

    answers: bool = False
    addresses: tuple[str, ...] = ()
    code: str | None = "ABCDE-FGHJK"
    overwritten: bool = False
    stages: list[str] = field(default_factory=list)
    shown: list[StatusView] = field(default_factory=list)
    refreshed: int = 0


class FakeConsole(Terminals):
    """Remembers instead of writing."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def stage(self, text: str) -> None:
        super().stage(text)
        self._world.stages.append(text)

    def show(self, view: StatusView) -> bool:
        new = not self._world.shown or self._world.shown[-1] != view
        if new:
            super().show(view)
            self._world.shown.append(view)
        return new

    def refresh(self) -> None:
        self._world.refreshed += 1


def make(world: World, console: FakeConsole | None = None) -> StatusBoard:
    """A board over the world."""

    async def answers() -> bool:
        return world.answers

    async def waiting() -> str | None:
        return "systemd-networkd.service start"

    sources = BoardSources(
        version="1.2.3",
        hostname=lambda: "mica",
        addresses=lambda: world.addresses,
        fingerprint=lambda: None,
        claim_code=lambda: world.code,
        findings=tuple,
        api_answers=answers,
        waiting_for=waiting,
        overwritten=lambda: world.overwritten,
    )
    return StatusBoard(console or FakeConsole(world), sources)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    for name in (
        "_LOOK_EVERY_S",
        "_LOOK_EVERY_AT_START_S",
        "_ADDRESS_GRACE_S",
        "_SAY_EVERY_S",
        "_GIVE_UP_STORY_S",
        "_SETTLE_S",
        "_STORY_STAYS_S",
    ):
        monkeypatch.setattr(board_module, name, getattr(board_module, name) / 100)


async def _run(world: World, *steps: tuple[float, str, object]) -> StatusBoard:
    board = make(world)
    task = asyncio.create_task(board.run())
    for delay, name, value in steps:
        await asyncio.sleep(delay)
        if name:
            setattr(world, name, value)
            board.poke()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return board


def test_nothing_is_shown_before_the_api_answers() -> None:
    world = World(addresses=("192.0.2.1/24",))
    board = asyncio.run(_run(world, (0.05, "answers", True), (0.1, "", None)))
    assert board.ready
    assert [view.api_answers for view in world.shown] == [True]


def test_a_host_without_an_address_is_shown_after_a_grace() -> None:
    world = World(answers=True)
    asyncio.run(_run(world, (0.05, "", None), (0.2, "", None)))
    assert world.stages == ["API up, waiting for an address"]
    assert world.shown[0].addresses == ()


def test_a_long_start_says_what_it_waits_for_and_then_shows_what_there_is() -> None:
    world = World()
    board = asyncio.run(_run(world, (1.3, "", None)))
    assert "still waiting for systemd-networkd.service start" in world.stages
    assert not board.ready
    assert world.shown[-1].api_answers is False


def test_changes_are_drawn_and_what_is_the_same_is_not() -> None:
    world = World(answers=True, addresses=("192.0.2.1/24",))
    asyncio.run(_run(world, (0.1, "code", None), (0.1, "code", None), (0.3, "", None)))
    assert [view.claim_code for view in world.shown] == ["ABCDE-FGHJK", None]


def test_an_overwritten_screen_is_drawn_again() -> None:
    world = World(answers=True, addresses=("192.0.2.1/24",), overwritten=True)
    asyncio.run(_run(world, (0.1, "", None)))
    assert world.refreshed


def test_a_line_told_later_is_not_drawn_over_at_once() -> None:
    async def scenario(world: World) -> tuple[int, int]:
        console = FakeConsole(world)
        board = make(world, console)
        task = asyncio.create_task(board.run())
        await asyncio.sleep(0.1)
        console.stage("shutting down")
        world.code = None
        board.poke()
        await asyncio.sleep(0.1)
        early = len(world.shown)
        await asyncio.sleep(0.4)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return early, len(world.shown)

    assert asyncio.run(scenario(World(answers=True, addresses=("192.0.2.1/24",)))) == (1, 2)
