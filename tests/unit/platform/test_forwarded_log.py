"""The log is forwarded where the configuration says so, whenever it begins to say so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from tests.unit.state.ram_medium import RamMedium
from vmkernel.events import EventBus
from vmkernel.platform.forwarded_log import ForwardedLog
from vmkernel.state import HostConfig, StateLog, StateStore
from vmkernel.syslog import feed


def test_it_follows_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[str | None] = []

    class Fake:
        def __init__(self, *_: object) -> None:
            pass

        def retarget(self, target: str | None) -> None:
            targets.append(target)

        def findings(self) -> tuple[()]:
            return ()

        async def run(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(feed, "LogForwarding", Fake)

    def to(target: str | None) -> Callable[[HostConfig], HostConfig]:
        def change(config: HostConfig) -> HostConfig:
            network = msgspec.structs.replace(config.network, syslog=target)
            return msgspec.structs.replace(config, network=network)

        return change

    async def scenario() -> None:
        store = StateStore(StateLog(RamMedium()))
        store.open()
        log = ForwardedLog()
        task = asyncio.create_task(log.run())
        log.begin(store, EventBus())
        await asyncio.sleep(0.01)
        assert targets == []
        assert log.findings() == ()
        for target in ("udp://a", "tcp://b", None):
            await store.update(to(target))
            await asyncio.sleep(0.01)
        assert list(dict.fromkeys(targets)) == ["udp://a", "tcp://b", None]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
