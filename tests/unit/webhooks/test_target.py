"""One webhook's deliveries: repeated, given up, kept over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.framework.running import on_loop
from vmkernel.model import WebhookState
from vmkernel.webhooks.signing import headers_for, secret_key
from vmkernel.webhooks.spool import MAX_WAITING, MAX_WAITING_BYTES, Spool
from vmkernel.webhooks.target import Limits, Message, Receipt, Target

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TAKEN = Receipt(status=200)
QUICK = Limits(first_pause_s=0.01, longest_pause_s=0.05, attempts=3)


def test_signature_is_that_of_the_specification() -> None:
    body = b'{"test": 2432232314}'
    headers = headers_for(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@pytest.mark.parametrize("secret", ["whsec_", "whsec_AAAA", "whsec_" + "A" * 100, "whsec_=A" * 9])
def test_secret_of_another_length_or_form_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="it "):
        secret_key(secret)


class World:
    """A target whose receiver answers what the test says."""

    def __init__(self, folder: Path, limits: Limits = QUICK) -> None:
        self.sent: list[list[str]] = []
        self.answer: Callable[[str], Receipt] = lambda _: TAKEN
        self.failing: list[str] = []
        self.disabled: list[str] = []
        self.folder = folder
        self.now_s = 1_000_000.0
        self.target = Target(
            "hook",
            secret=lambda: SECRET,
            send=self._send,
            spool=Spool(folder),
            on_failing=self.failing.append,
            on_disable=self._disable,
            limits=limits,
            spread=lambda: 1.0,
        )
        self.target.spool.load()

    async def _disable(self, reason: str) -> None:
        self.disabled.append(reason)

    async def _send(self, messages: Sequence[Message]) -> Sequence[Receipt]:
        await asyncio.sleep(0)
        receipts: list[Receipt] = []
        self.sent.append([])
        for message in messages:
            self.sent[-1].append(message.headers["webhook-id"])
            receipts.append(self.answer(message.headers["webhook-id"]))
            if not receipts[-1].delivered:
                break
        return receipts

    @property
    def attempts(self) -> list[str]:
        return [each for batch in self.sent for each in batch]

    async def until(self, condition: Callable[[], bool]) -> None:
        task = asyncio.create_task(self.target.run())
        try:
            async with asyncio.timeout(5):
                while not condition() and not task.done():  # noqa: ASYNC110 - of any kind
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def status(self) -> tuple[WebhookState, int, int, int]:
        status = self.target.status(enabled=not self.disabled, disabled_reason=None)
        return status.state, status.waiting, status.delivered, status.dropped


def _files(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in folder.iterdir())


@on_loop
async def test_events_are_sent_in_batches_and_leave_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "hook")
    for number in range(40):
        world.target.add(f"m{number:02}", b"{}")
    assert len(_files(world.folder)) == 40
    await world.until(lambda: len(world.target.spool) == 0)
    assert [len(batch) for batch in world.sent] == [16, 16, 8]
    assert world.attempts == [f"m{number:02}" for number in range(40)]
    assert (world.status(), _files(world.folder)) == ((WebhookState.OK, 0, 40, 0), [])


@on_loop
async def test_one_that_is_refused_does_not_hold_the_others_up_and_is_given_up(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "hook")
    world.answer = lambda name: Receipt(status=500) if name == "bad" else TAKEN
    for name in ("bad", "m1", "m2"):
        world.target.add(name, b"{}")
    await world.until(lambda: len(world.target.spool) == 0)
    assert world.attempts.count("bad") == QUICK.attempts
    assert world.attempts.index("m1") < 3
    _, waiting, delivered, dropped = world.status()
    assert (waiting, delivered, dropped) == (0, 2, 1)
    assert world.failing[0] == "The receiver answered 500."


@on_loop
async def test_pauses_grow_and_heed_the_receiver(tmp_path: Path) -> None:
    limits = Limits(first_pause_s=5, longest_pause_s=100, attempts=100)
    world = World(tmp_path / "hook", limits)
    world.target = replace(world.target, now_s=lambda: world.now_s)
    pauses = []
    for retry in (None, None, None, None, None, 60, 5, 9999):
        world.answer = lambda _, retry=retry: Receipt(  # type: ignore[misc]
            status=503, retry_after_s=retry
        )
        if not len(world.target.spool):
            world.target.add("m", b"{}")
        await world.target._deliver()
        pauses.append(world.target._wait_s())
    assert pauses == [5, 15, 45, 100, 100, 100, 100, 100]
    world.answer = lambda _: TAKEN
    await world.target._deliver()
    world.answer = lambda _: Receipt(status=429, retry_after_s=60)
    world.target.add("n", b"{}")
    await world.target._deliver()
    assert world.target._wait_s() == 60


@on_loop
async def test_a_receiver_that_is_gone_disables_it(tmp_path: Path) -> None:
    world = World(tmp_path / "hook")
    world.answer = lambda _: Receipt(status=410)
    world.target.add("m", b"{}")
    await world.until(lambda: bool(world.disabled))
    assert "410" in world.disabled[0]
    assert len(world.attempts) == 1


@on_loop
async def test_days_of_failures_disable_it_but_not_a_few_failures(tmp_path: Path) -> None:
    limits = Limits(attempts=1000, disable_after_s=100, disable_after_failures=10)
    world = World(tmp_path / "hook", limits)
    world.target = replace(world.target, now_s=lambda: world.now_s)
    world.answer = lambda _: Receipt(error="The receiver can't be reached.")
    world.target.add("m", b"{}")
    for number in range(10):
        assert world.disabled == []
        world.now_s = 1_000_000.0 + number * 12
        await world.target._deliver()
    assert "can't be reached" in world.disabled[0]
    assert len(world.failing) == 1, "told once"


@on_loop
async def test_what_waits_outlasts_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path / "hook")
    world.answer = lambda _: Receipt(error="no")
    for number in range(5):
        world.target.add(f"m{number}", b"{}")
    await world.until(lambda: len(world.attempts) >= 2)
    (tmp_path / "hook" / "000000000009-x.new").write_bytes(b"{")
    again = World(tmp_path / "hook")
    await again.until(lambda: len(again.target.spool) == 0)
    assert sorted(again.attempts) == [f"m{number}" for number in range(5)]
    assert _files(again.folder) == []


@on_loop
async def test_old_events_are_given_up(tmp_path: Path) -> None:
    world = World(tmp_path / "hook", Limits(age_s=100))
    world.target = replace(world.target, now_s=lambda: world.now_s)
    world.target.add("old", b"{}")
    world.now_s += 101
    world.target.add("new", b"{}")
    await world.until(lambda: len(world.target.spool) == 0)
    assert (world.attempts, world.target.spool.dropped) == (["new"], 1)


def test_too_many_and_too_large_ones_push_out_the_oldest(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "hook")
    spool.load()
    for number in range(MAX_WAITING + 10):
        spool.add(f"m{number:04}", b"{}", 0.0)
    assert (len(spool), spool.dropped) == (MAX_WAITING, 10)
    assert _files(tmp_path / "hook")[0] == "m0010"
    for number in range(100):
        spool.add(f"n{number}", bytes(20_000), 0.0)
    sizes = [path.stat().st_size for path in (tmp_path / "hook").iterdir()]
    assert sum(sizes) <= MAX_WAITING_BYTES
    spool.remove()
    assert not (tmp_path / "hook").exists()


def test_a_folder_that_can_not_be_written_costs_only_the_restart(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("no folder")
    spool = Spool(tmp_path / "hook")
    spool.load()
    spool.add("m", b"{}", 0.0)
    delivery = spool.oldest()
    assert delivery is not None
    spool.done(delivery)
    assert len(spool) == 0
