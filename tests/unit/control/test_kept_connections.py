"""Connections to the vmkernel carry one request after the other; none is lost or done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.control.test_server import HOST, World, _refusal, _run
from vmkernel.control import client as client_module
from vmkernel.control import requests, server
from vmkernel.model import ErrorCode, Role, TokenSpec


def _connections(world: World) -> int:
    return len(world.server._tasks)


async def _until_none_is_left(world: World) -> None:
    async with asyncio.timeout(5):
        await asyncio.gather(*world.server._tasks, return_exceptions=True)


def test_requests_follow_each_other_on_one_connection(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for _ in range(20):
            assert (await world.client.call(requests.WhoAmI(), token=world.admin)).id == "admin"
            code = await _refusal(world.client.call(requests.WhoAmI(), token="mica_no_x"))
            assert code is ErrorCode.UNAUTHENTICATED
        assert _connections(world) == 1
        world.client.close()
        await _until_none_is_left(world)

    _run(tmp_path, scenario)


def test_each_request_is_judged_by_its_own_token(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        viewer = await world.token("viewer", Role.VIEWER)
        assert (await world.client.call(requests.WhoAmI(), token=world.admin)).id == "admin"
        assert (await world.client.call(requests.WhoAmI(), token=viewer)).id == "viewer"
        code = await _refusal(world.client.call(requests.ListTokens(), token=viewer))
        assert code is ErrorCode.FORBIDDEN
        code = await _refusal(world.client.call(requests.WhoAmI()))
        assert code is ErrorCode.UNAUTHENTICATED
        assert _connections(world) == 1

    _run(tmp_path, scenario)


def test_so_many_are_kept_and_no_more(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        calls = (world.client.call(requests.WhoAmI(), token=world.admin) for _ in range(60))
        assert {token.id for token in await asyncio.gather(*calls)} == {"admin"}
        await asyncio.sleep(0.1)
        assert 1 <= _connections(world) <= client_module._IDLE_CONNECTIONS

    _run(tmp_path, scenario)


def test_a_connection_that_the_server_has_closed_is_not_used(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.client.call(requests.WhoAmI(), token=world.admin)
        for task in tuple(world.server._idle):
            task.cancel()
        await asyncio.sleep(0.05)
        made = requests.CreateToken(id="new", spec=TokenSpec(role=Role.VIEWER))
        assert (await world.client.call(made, token=world.admin)).token.id == "new"

    _run(tmp_path, scenario)


def test_what_only_reads_is_asked_again_and_a_change_is_not(tmp_path: Path) -> None:
    """The server ends between a look at the connection and the request."""

    async def scenario(world: World) -> None:
        def lost() -> None:
            _, kept = world.client._idle[-1]
            quiet = kept.is_quiet
            kept.is_quiet = lambda: True  # type: ignore[method-assign]
            assert quiet()
            for task in tuple(world.server._idle):
                task.cancel()

        await world.client.call(requests.WhoAmI(), token=world.admin)
        lost()
        assert (await world.client.call(requests.WhoAmI(), token=world.admin)).id == "admin"
        lost()
        made = requests.CreateToken(id="new", spec=TokenSpec(role=Role.VIEWER))
        code = await _refusal(world.client.call(made, token=world.admin))
        assert code is ErrorCode.UNAVAILABLE
        found = await _refusal(world.client.call(requests.GetToken(id="new"), token=world.admin))
        assert found is ErrorCode.NOT_FOUND

    _run(tmp_path, scenario)


def test_a_cancelled_request_leaves_no_answer_for_the_next(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        go = asyncio.Event()

        async def work(_: object) -> None:
            await go.wait()

        begun = world.operations.begin("k", HOST, work, actor="admin")
        waits = requests.GetOperation(id=begun.id, wait_s=30)
        waiting = asyncio.ensure_future(world.client.call(waits, token=world.admin))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await world.client.call(requests.WhoAmI(), token=world.admin)).id == "admin"
        go.set()

    _run(tmp_path, scenario)


def test_an_idle_connection_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IDLE_S", 0.05)

    async def scenario(world: World) -> None:
        await world.client.call(requests.WhoAmI(), token=world.admin)
        await _until_none_is_left(world)
        assert (await world.client.call(requests.WhoAmI(), token=world.admin)).id == "admin"

    _run(tmp_path, scenario)


def test_the_server_ends_at_once_if_no_request_is_under_way(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.client.call(requests.WhoAmI(), token=world.admin)
        began = asyncio.get_running_loop().time()
        await world.server._drain()
        assert asyncio.get_running_loop().time() - began < 1.0

    _run(tmp_path, scenario)
