"""What one token may have under way at once on the control socket, and what others still get."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.unit.control.test_server import World, _run
from vmkernel.auth import Caller
from vmkernel.control import requests
from vmkernel.control import server as server_module
from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, MicaError, Role, Subject, Token


def _replace(world: World, kind: type[requests.Request[Any]], handle: Any) -> None:
    world.dispatcher._handlers[kind] = handle


class _Slow:
    """A request that goes on until it is let go."""

    def __init__(self, world: World) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self.one_began = asyncio.Event()
        self._world = world
        _replace(world, requests.GetToken, self._answer)

    async def _answer(self, request: requests.GetToken, _: Caller) -> Token:
        self.begun += 1
        self.one_began.set()
        await self.gate.wait()
        return self._world.access.get(request.id)

    async def hold(self, token: str, count: int) -> list[asyncio.Task[Token]]:
        """So many of them, which are under way on return."""
        before = self.begun
        call = requests.GetToken(id="admin")
        tasks = [
            asyncio.create_task(self._world.client.call(call, token=token)) for _ in range(count)
        ]
        async with asyncio.timeout(5):
            while self.begun < before + count:
                self.one_began.clear()
                await self.one_began.wait()
        return tasks


async def _refused(world: World, token: str | None, origin: str = "") -> MicaError:
    with pytest.raises(MicaError) as caught:
        await world.client.call(requests.WhoAmI(), token=token, origin=origin)
    return caught.value


def test_a_token_has_so_many_requests_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_REQUESTS_EACH", 3)

    async def scenario(world: World) -> None:
        slow = _Slow(world)
        loud, quiet = [await world.token(name, Role.ADMIN) for name in ("loud", "quiet")]
        held = await slow.hold(loud, 3)
        refused = (await _refused(world, loud)).problem
        assert (refused.code, refused.retry_after_s) == (ErrorCode.RATE_LIMITED, 5)
        assert "3 requests are under way for the token loud already" in refused.detail
        for _ in range(9):
            assert (await world.client.call(requests.WhoAmI(), token=quiet)).id == "quiet"
        # What is freed comes back, however it ends: by an answer, or because its client left.
        held[0].cancel()
        await asyncio.gather(held[0], return_exceptions=True)
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await world.client.call(requests.WhoAmI(), token=loud)).id == "loud"
                    break
                except MicaError:
                    await asyncio.sleep(0.01)
        slow.gate.set()
        assert [token.id for token in await asyncio.gather(*held[1:])] == ["admin", "admin"]
        await asyncio.gather(*await slow.hold(loud, 3))

    _run(tmp_path, scenario)


def test_strangers_have_shares_by_their_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_REQUESTS_EACH", 1)

    async def scenario(world: World) -> None:
        gate, begun = asyncio.Event(), asyncio.Event()

        async def slow(_: requests.Claim, __: Caller) -> None:
            begun.set()
            await gate.wait()
            raise MicaError(ErrorCode.UNAVAILABLE, "No.")

        _replace(world, requests.Claim, slow)
        claim = requests.Claim(code="x")
        held = asyncio.create_task(world.client.call(claim, origin="192.0.2.1"))
        await asyncio.wait_for(begun.wait(), 5)
        for origin, code in (
            ("192.0.2.1", ErrorCode.RATE_LIMITED),
            ("192.0.2.2", ErrorCode.UNAVAILABLE),
        ):
            gate.set() if code is ErrorCode.UNAVAILABLE else None
            with pytest.raises(MicaError) as caught:
                await world.client.call(claim, origin=origin)
            assert caught.value.problem.code is code
        await asyncio.gather(held, return_exceptions=True)
        with pytest.raises(MicaError) as caught:
            await world.client.call(claim, origin="192.0.2.1")
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE, "its place came back"

    _run(tmp_path, scenario)


def test_a_token_has_so_many_streams_of_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_SUBSCRIBERS_EACH", 2)

    async def scenario(world: World) -> None:
        loud, quiet = [await world.token(name, Role.VIEWER) for name in ("loud", "quiet")]

        async def follow(token: str, stack: AsyncExitStack) -> None:
            events = await stack.enter_async_context(
                world.client.events(requests.SubscribeEvents(), token=token)
            )
            _say(world.bus)
            assert (await asyncio.wait_for(anext(events), 5)).type == "vm.state"

        async with AsyncExitStack() as stack:
            async with AsyncExitStack() as first:
                await follow(loud, first)
                await follow(loud, stack)
                with pytest.raises(MicaError) as caught:
                    await follow(loud, stack)
                assert caught.value.problem.code is ErrorCode.RATE_LIMITED
                assert "2 streams of events are open for the token loud" in str(caught.value)
                await follow(quiet, stack)
                # Streams are no reason to refuse the same token's requests.
                assert (await world.client.call(requests.WhoAmI(), token=loud)).id == "loud"
            async with asyncio.timeout(5):
                while True:
                    try:
                        await follow(loud, stack)
                        break
                    except MicaError:
                        await asyncio.sleep(0.01)

    _run(tmp_path, scenario)


def _say(bus: EventBus) -> None:
    bus.publish("vm.state", Subject(kind="vm", id="web"))
