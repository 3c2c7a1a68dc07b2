"""The guest agent's client, against one that speaks the protocol and against a hostile guest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from vmkernel.model import AgentInterface
from vmkernel.qemu import QmpMessage
from vmkernel.qemu.domain_events import AgentChannel, translate
from vmkernel.qemu.guest_agent import AgentError, AgentRefusedError, Patience
from vmkernel.text import clean
from vmkernel.vm.guest.agent import GuestAgent

from .fake_agent import FakeAgent

PATIENT = Patience(sync_s=30.0, answer_s=30.0, shutdown_s=30.0, freeze_s=30.0, thaw_again_s=0.001)
"""For what will come, on a machine that is busy."""
QUICK = replace(PATIENT, answer_s=0.05, shutdown_s=0.3, freeze_s=0.3)
"""For what won't."""


@contextlib.asynccontextmanager
async def talking(
    folder: Path, patience: Patience = PATIENT
) -> AsyncIterator[tuple[FakeAgent, GuestAgent]]:
    fake = FakeAgent(folder / "agent.sock")
    async with fake.serving():
        agent = GuestAgent(lambda: fake.path, "VM web", patience)
        agent.note_channel(True)
        yield fake, agent


def test_facts_are_asked_and_kept(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path) as (fake, agent):
            assert agent.status().checked_at is None
            status = await agent.refresh()
            assert (status.hostname, status.version, status.reason) == ("web-1", "10.0.2", None)
            assert status.system is not None
            assert status.system.name == "Debian GNU/Linux 13 (trixie)"
            assert status.interfaces == (
                AgentInterface(
                    name="eth0",
                    mac="52:54:00:00:00:01",
                    addresses=("192.0.2.7/24", "fe80::1/64"),
                ),
            )
            assert agent.status() == status
            agent.note_channel(False)
            assert not agent.status().connected
            assert agent.status().hostname is None
            del fake

    asyncio.run(story())


def test_absence_is_normal(tmp_path: Path) -> None:
    async def story() -> None:
        agent = GuestAgent(lambda: tmp_path / "none.sock", "VM web")
        assert not agent.status().connected
        with pytest.raises(AgentError, match="none running"):
            await agent.shut_down()
        async with agent.frozen() as report:
            assert not report.quiet
            assert report.reason == "No agent is running in the guest."
        agent.note_channel(True)
        assert "can't be opened" in str((await agent.refresh()).reason)

    asyncio.run(story())


def test_a_refused_fact_hides_no_other(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path) as (fake, agent):
            fake.answers["guest-get-osinfo"] = ValueError("The command is disabled")
            status = await agent.refresh()
            assert status.system is None
            assert status.interfaces
            assert status.reason is None

    asyncio.run(story())


def test_what_was_left_in_the_channel_is_thrown_away(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path) as (fake, agent):
            fake.greeting = b'{"return": {}}\n\x00\x80\xff{"return": 12}\n' + b"x" * 100_000
            assert (await agent.refresh()).hostname == "web-1"

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b'"text"\n',
        b'{"return": 5}\n',
        b'{"return": [1, {"name": 7}, {"name": "x", "ip-addresses": {"a": 1}}]}\n',
        b'{"error": "no"}\n',
        b'{"error": {"desc": {"deep": 1}}}\n',
        b"\xff\xfe\xfd\n",
        b"[" * 200_000 + b"\n",
        b'{"return": ' + b"9" * 5000 + b"}\n",
        b"A" * 600_000,
        b"",
    ],
    ids=range(13),
)
def test_a_hostile_guest_gets_nowhere(tmp_path: Path, answer: bytes) -> None:
    async def story() -> None:
        async with talking(tmp_path, QUICK) as (fake, agent):
            fake.raw = lambda command: None if command == "guest-sync-delimited" else answer
            status = await agent.refresh()
            assert status.connected
            assert not status.hostname
            assert all(not i.addresses for i in status.interfaces)
            with contextlib.suppress(AgentError):
                await agent.shut_down()
            async with agent.frozen() as report:
                assert report.quiet is (answer == b'{"return": 5}\n')

    asyncio.run(story())


def test_endless_noise_ends_the_session(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path) as (fake, agent):
            fake.raw = lambda _: b"\xff{}\n" * 100_000
            assert "more than an answer" in str((await agent.refresh()).reason)

    asyncio.run(story())


def test_text_is_cleaned() -> None:
    assert clean("a\x1b[31mb\n\u202ec\ud800") == "a[31mb c"
    assert clean("x" * 10_000) == "x" * 256
    assert clean({"no": "text"}) == ""


def test_frozen_is_let_go(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path) as (fake, agent):
            async with agent.frozen() as report:
                assert report.filesystems == 2
                assert agent.status().frozen
                assert fake.asked[-1] == "guest-fsfreeze-freeze"
            assert fake.asked[-1] == "guest-fsfreeze-thaw"
            assert not agent.status().frozen

            with pytest.raises(RuntimeError):
                async with agent.frozen():
                    raise RuntimeError("the snapshot failed")
            assert fake.asked[-1] == "guest-fsfreeze-thaw"

    asyncio.run(story())


def test_frozen_is_let_go_by_who_is_cancelled(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path) as (fake, agent):
            inside = asyncio.Event()

            async def work() -> None:
                async with agent.frozen():
                    inside.set()
                    await asyncio.sleep(60)

            task = asyncio.create_task(work())
            await inside.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            assert fake.asked[-1] == "guest-fsfreeze-thaw"

    asyncio.run(story())


def test_a_freeze_that_fails_is_thawed_and_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path, replace(PATIENT, freeze_s=0.3)) as (fake, agent):
            fake.answers["guest-fsfreeze-freeze"] = ValueError("failed to freeze /")
            async with agent.frozen() as report:
                assert "failed to freeze /" in str(report.reason)
            assert "guest-fsfreeze-thaw" in fake.asked
            fake.answers["guest-fsfreeze-freeze"] = None
            async with agent.frozen() as report:
                assert "did not answer" in str(report.reason)
            assert fake.asked[-1] == "guest-fsfreeze-thaw"

    asyncio.run(story())


def test_who_was_never_asked_to_freeze_is_not_thawed(tmp_path: Path) -> None:
    """An agent that hangs costs a snapshot one time-out, not one for each thaw."""

    async def story() -> None:
        async with talking(tmp_path, replace(PATIENT, sync_s=0.05)) as (fake, agent):
            fake.raw = lambda _: b""
            async with agent.frozen() as report:
                assert report.reason == "The guest agent: it does not answer."
                assert not agent.status().frozen
            assert set(fake.asked) == {"guest-sync-delimited"}

    asyncio.run(story())


def test_a_guest_that_was_left_frozen_is_let_go_at_first_contact(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path) as (fake, agent):
            fake.answers["guest-fsfreeze-status"] = "frozen"
            await agent.refresh()
            assert "guest-fsfreeze-thaw" in fake.asked
            fake.asked.clear()
            await agent.refresh()
            assert "guest-fsfreeze-status" not in fake.asked

    asyncio.run(story())


def test_shutdown_is_not_answered_where_it_works(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path, QUICK) as (fake, agent):
            await agent.shut_down()
            assert fake.asked[-1] == "guest-shutdown"
            fake.answers["guest-shutdown"] = ValueError("The command is disabled")
            with pytest.raises(AgentRefusedError, match="disabled"):
                await agent.shut_down()

    asyncio.run(story())


def test_qemu_tells_of_the_agents_port_alone() -> None:
    def changed(data: bytes) -> QmpMessage:
        return QmpMessage("VSERPORT_CHANGE", msgspec.Raw(data))

    assert translate(changed(b'{"open": true, "id": "agent0"}')) == AgentChannel(True)
    assert translate(changed(b'{"open": true, "id": "x"}')) is None


def test_a_guest_of_the_past_gets_the_time_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with talking(tmp_path) as (fake, agent):
            agent.note_resumed()
            assert agent.checked_at_s == 0
            for _ in range(2):
                await agent.refresh()
            assert fake.asked.count("guest-set-time") == 1

    asyncio.run(story())
