"""The holder of the configuration: durable before answered, nothing half-done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from tests.unit.state.ram_medium import RamMedium
from vmkernel.model import ErrorCode
from vmkernel.state import HostConfig, StateLog, StateStore, TlsMaterial
from vmkernel.state.errors import StateError


def _medium() -> RamMedium:
    return RamMedium(slots=4, slot_bytes=1 << 16)


def _opened(medium: RamMedium, shadow: Path | None = None) -> StateStore:
    store = StateStore(StateLog(medium), shadow=shadow)
    store.open()
    return store


def _named(name: str) -> object:
    def change(config: HostConfig) -> HostConfig:
        return msgspec.structs.replace(config, hostname=name)

    return change


async def _name(store: StateStore, name: str) -> None:
    await store.update(_named(name))  # type: ignore[arg-type]


def test_what_was_answered_is_there_after_a_restart() -> None:
    medium = _medium()
    store = _opened(medium)
    assert store.first_boot
    for number in range(10):
        asyncio.run(_name(_opened(medium) if number else store, f"host-{number}"))
        assert _opened(medium).config.hostname == f"host-{number}"
    assert not _opened(medium).first_boot


def test_concurrent_changes_are_all_kept() -> None:
    medium = _medium()

    async def scenario() -> None:
        store = _opened(medium)

        def add(number: int) -> object:
            def change(config: HostConfig) -> HostConfig:
                return msgspec.structs.replace(
                    config, autostart=(*config.autostart, f"vm-{number}")
                )

            return change

        await asyncio.gather(*(store.update(add(number)) for number in range(20)))  # type: ignore[arg-type]

    asyncio.run(scenario())
    assert len(_opened(medium).config.autostart) == 20


def test_a_change_that_changes_nothing_writes_nothing() -> None:
    medium = _medium()

    async def scenario() -> None:
        store = _opened(medium)
        await _name(store, "one")
        writes = len(medium.writes)
        await _name(store, "one")
        assert len(medium.writes) == writes

    asyncio.run(scenario())


def test_a_failing_medium_changes_nothing_in_memory() -> None:
    medium = _medium()

    async def scenario() -> None:
        store = _opened(medium)
        seen: list[str] = []
        await _name(store, "before")
        store.on_change(lambda config: seen.append(config.hostname))
        medium.failing = True
        with pytest.raises(StateError) as caught:
            await _name(store, "after")
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE
        assert store.config.hostname == "before"
        assert not store.durable
        assert [finding.code for finding in store.findings()] == ["state-not-durable"]
        assert seen == []
        medium.failing = False
        await _name(store, "again")
        assert store.durable
        assert seen == ["again"]

    asyncio.run(scenario())
    assert _opened(medium).config.hostname == "again"


def test_what_a_change_refuses_goes_through_and_nothing_happens() -> None:
    medium = _medium()

    async def scenario() -> None:
        store = _opened(medium)

        def refuse(_: HostConfig) -> HostConfig:
            raise KeyError("refused")

        with pytest.raises(KeyError, match="refused"):
            await store.update(refuse)
        assert medium.writes == []
        await _name(store, "next")

    asyncio.run(scenario())


def test_a_cancelled_caller_leaves_memory_and_medium_the_same() -> None:
    medium = _medium()

    async def scenario() -> StateStore:
        store = _opened(medium)
        task = asyncio.create_task(_name(store, "cancelled"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _name(store, store.config.hostname)  # waits for its turn
        return store

    store = asyncio.run(scenario())
    assert _opened(medium).config == store.config


def test_without_a_medium_the_host_runs_and_keeps_nothing() -> None:
    async def scenario() -> None:
        store = StateStore(None)
        store.open("no state partition was found")
        with pytest.raises(StateError, match="no state partition"):
            await _name(store, "x")
        made = 0

        async def make(hostname: str, uuid: str) -> TlsMaterial:
            nonlocal made
            made += 1
            return TlsMaterial(certificate_pem=hostname, private_key_pem=uuid)

        material = await store.ensure_identity(make)
        assert await store.ensure_identity(make) == material
        assert made == 1

    asyncio.run(scenario())


def test_a_restart_after_the_stick_was_pulled_knows_everything(tmp_path: Path) -> None:
    shadow = tmp_path / "state-copy"

    async def scenario() -> None:
        store = _opened(_medium(), shadow)
        await _name(store, "kept")
        again = StateStore(None, shadow=shadow)
        assert again.open("gone").hostname == "kept"
        assert shadow.stat().st_mode & 0o777 == 0o600
        with pytest.raises(StateError):
            await _name(again, "x")

    asyncio.run(scenario())


def test_a_damaged_log_is_left_alone() -> None:
    """An attacker who damages the stick must not get an unclaimed host that keeps its changes."""
    medium = _medium()
    medium.data[1 << 16 : (1 << 16) + 8] = b"MICASTAT"
    store = _opened(medium)
    assert not store.first_boot
    with pytest.raises(StateError, match="damaged"):
        asyncio.run(_name(store, "x"))
    assert medium.writes == []


def test_an_unreadable_payload_does_not_end_the_start() -> None:
    medium = _medium()
    StateLog(medium).append(1, b"{}")
    store = _opened(medium)
    assert not store.durable
    assert not store.first_boot
