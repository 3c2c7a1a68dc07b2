"""Claiming, tokens and roles, kept in the state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from tests.unit.state.ram_medium import RamMedium
from vmkernel.auth import AccessService, Audit, Caller, ClaimCode
from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, MicaError, Role, Subject, TokenSpec
from vmkernel.state import StateLog, StateStore

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CODE = "AAAAA-BBBBB"
ADMIN = TokenSpec(role=Role.ADMIN)


class World:
    """A service on a medium that can be opened again."""

    def __init__(self, medium: RamMedium | None = None) -> None:
        self.medium = medium or RamMedium(slots=4, slot_bytes=1 << 16)
        self.store = StateStore(StateLog(self.medium))
        self.store.open()
        self.bus = EventBus()
        self.access = AccessService(
            self.store, self.bus, claim_code=ClaimCode(CODE), utc_now=lambda: NOW
        )

    def events(self) -> list[str]:
        """The types of all events so far."""
        with self.bus.subscribe("000000000000-000000000000") as subscription:
            found = []
            while (event := subscription.poll()) is not None:
                found.append(event.type)
            return found[1:]


def _run(scenario: Callable[[World], Awaitable[None]]) -> World:
    async def main() -> World:
        world = World()
        await scenario(world)
        return world

    return asyncio.run(main())


def _code(error: pytest.ExceptionInfo[MicaError]) -> ErrorCode:
    return error.value.problem.code


def test_claiming_spends_the_code_for_good() -> None:
    async def scenario(world: World) -> None:
        assert world.access.claim_code == CODE
        issued = await world.access.claim(CODE, "admin")
        assert world.access.claimed
        assert world.access.claim_code is None
        caller = world.access.authenticate(issued.secret, "192.0.2.1")
        assert (caller.actor, caller.role, caller.origin) == ("admin", Role.ADMIN, "192.0.2.1")
        with pytest.raises(MicaError) as caught:
            await world.access.claim(CODE, "again")
        assert _code(caught) is ErrorCode.CONFLICT
        assert world.events() == ["token.created", "host.claimed"]
        after = World(world.medium).access
        assert after.claimed
        assert after.authenticate(issued.secret, "").actor == "admin"

    _run(scenario)


def test_a_claim_that_cannot_be_kept_spends_nothing() -> None:
    async def scenario(world: World) -> None:
        world.medium.failing = True
        with pytest.raises(MicaError) as caught:
            await world.access.claim(CODE, "admin")
        assert _code(caught) is ErrorCode.UNAVAILABLE
        assert world.access.claim_code == CODE
        world.medium.failing = False
        await world.access.claim(CODE, "admin")

    _run(scenario)


def test_of_two_claims_at_once_one_wins() -> None:
    async def scenario(world: World) -> None:
        outcomes = await asyncio.gather(
            world.access.claim(CODE, "one"),
            world.access.claim(CODE, "two"),
            return_exceptions=True,
        )
        assert [isinstance(outcome, MicaError) for outcome in outcomes] == [False, True]

    _run(scenario)


def test_tokens_are_made_shown_once_and_revoked_at_once() -> None:
    async def scenario(world: World) -> None:
        await world.access.claim(CODE, "admin")
        spec = TokenSpec(role=Role.OPERATOR, expires_at="2026-11-23T13:00:00Z")
        issued = await world.access.create("ci", spec, actor="admin")
        assert world.access.get("ci") == issued.token
        assert [token.id for token in world.access.list()] == ["admin", "ci"]
        assert issued.secret not in repr(world.store.config)
        assert world.access.authenticate(issued.secret, "").role is Role.OPERATOR
        with pytest.raises(MicaError) as caught:
            await world.access.create("ci", spec, actor="admin")
        assert _code(caught) is ErrorCode.ALREADY_EXISTS
        await world.access.delete("ci", actor="admin")
        with pytest.raises(MicaError) as caught:
            world.access.authenticate(issued.secret, "")
        assert _code(caught) is ErrorCode.UNAUTHENTICATED
        with pytest.raises(MicaError) as caught:
            world.access.get("ci")
        assert _code(caught) is ErrorCode.NOT_FOUND

    _run(scenario)


@pytest.mark.parametrize("expires_at", ["soon", "2026-11-23T11:59:59Z", "2026-11-23"])
def test_an_expiry_must_be_a_time_to_come(expires_at: str) -> None:
    async def scenario(world: World) -> None:
        spec = TokenSpec(role=Role.VIEWER, expires_at=expires_at)
        with pytest.raises(MicaError) as caught:
            await world.access.create("x", spec, actor="admin")
        assert caught.value.problem.fields[0].pointer == "/spec/expires_at"

    _run(scenario)


def test_nobody_is_locked_out() -> None:
    async def scenario(world: World) -> None:
        await world.access.claim(CODE, "first")
        with pytest.raises(MicaError) as caught:
            await world.access.delete("first", actor="first")
        assert _code(caught) is ErrorCode.CONFLICT
        await world.access.create("second", ADMIN, actor="first")
        outcomes = await asyncio.gather(
            world.access.delete("first", actor="first"),
            world.access.delete("second", actor="first"),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, MicaError) for outcome in outcomes) == 1
        assert len(world.access.list()) == 1

    _run(scenario)


@pytest.mark.parametrize(
    ("has", "needs", "allowed"),
    [
        (Role.ADMIN, Role.ADMIN, True),
        (Role.ADMIN, Role.VIEWER, True),
        (Role.OPERATOR, Role.OPERATOR, True),
        (Role.OPERATOR, Role.ADMIN, False),
        (Role.VIEWER, Role.OPERATOR, False),
        (None, Role.VIEWER, False),
    ],
)
def test_roles(has: Role | None, needs: Role, allowed: bool) -> None:
    caller = Caller(actor="x", role=has)
    if allowed:
        AccessService.authorise(caller, needs)
        return
    with pytest.raises(MicaError) as caught:
        AccessService.authorise(caller, needs)
    assert _code(caught) is ErrorCode.FORBIDDEN


def test_a_flood_of_refusals_is_counted_not_told() -> None:
    seconds = [0.0]
    bus = EventBus()
    audit = Audit(bus, monotonic=lambda: seconds[0])

    def refuse() -> None:
        audit.denied("vm.get", actor="?", origin="?", code=ErrorCode.UNAUTHENTICATED, reason="No.")

    async def scenario() -> list[object]:
        with bus.subscribe() as subscription:
            for _ in range(1000):
                refuse()
            seconds[0] = 5.0
            refuse()
            found: list[object] = []
            while (event := subscription.poll()) is not None:
                found.append(event.data["suppressed"])
            return found

    suppressed = asyncio.run(scenario())
    assert suppressed == [0] * 20 + [980]


def test_a_download_by_ranges_is_told_once_and_counted() -> None:
    seconds = [0.0]
    bus = EventBus()
    audit = Audit(bus, monotonic=lambda: seconds[0])

    def read(volume: str, actor: str = "op") -> None:
        subject = Subject(kind="volume", id=volume)
        audit.done(
            "audit.read", "storage.read-volume", subject, actor=actor, origin="", in_parts=True
        )

    async def scenario() -> list[tuple[str, str | None, object]]:
        with bus.subscribe() as subscription:
            for _ in range(100):
                read("a")
            read("b")
            read("a", "other")
            seconds[0] = 301.0
            read("a")
            found: list[tuple[str, str | None, object]] = []
            while (event := subscription.poll()) is not None:
                assert event.type == "audit.read"
                found.append((event.subject.id, event.actor, event.data["repeated"]))
            return found

    told = asyncio.run(scenario())
    assert told == [("a", "op", 0), ("b", "op", 0), ("a", "other", 0), ("a", "op", 99)]
