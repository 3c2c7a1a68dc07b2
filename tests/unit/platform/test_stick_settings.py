"""Taking mica.toml: once, whole, and told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.state.ram_medium import RamMedium
from vmkernel.events import EventBus
from vmkernel.model import Role
from vmkernel.platform.stick_settings import StickSettings
from vmkernel.state import StateLog, StateStore

HASH = "0123456789abcdef" * 4
GOOD = f"""
hostname = "mica1"
[network]
addresses = ["192.0.2.10/24"]
[time]
servers = ["ntp.example"]
[access]
admin_token_id = "fleet"
admin_token_sha256 = "{HASH}"
""".encode()


class Stick:
    """A stick whose mica.toml holds `data`."""

    def __init__(self, data: bytes | OSError | None) -> None:
        self.data = data

    def read(self, esp: Path, place: Path) -> bytes | None:
        """In the place of the real reader."""
        assert esp == Path("/dev/sda1")
        assert place.name == "esp"
        if isinstance(self.data, OSError):
            raise self.data
        return self.data


def store(*, durable: bool = True) -> StateStore:
    """A store that was opened for the first time."""
    made = StateStore(StateLog(RamMedium()) if durable else None)
    made.open("there is none")
    return made


def take(kept: StateStore, data: bytes | OSError | None) -> tuple[bool, list[str], list[str]]:
    """Whether it was taken, the findings' codes, the events' types."""

    async def scenario() -> tuple[bool, list[str], list[str]]:
        bus = EventBus()
        with bus.subscribe() as events:
            settings = StickSettings(kept, bus, Path("/run/nowhere/esp"), Stick(data).read)
            taken = await settings.take(Path("/dev/sda1"))
            types = []
            while (event := events.poll()) is not None:
                types.append(event.type)
        return taken, [finding.code for finding in settings.findings()], types

    return asyncio.run(scenario())


def test_a_new_file_is_taken_and_told() -> None:
    kept = store()
    assert take(kept, GOOD) == (
        True,
        ["mica-toml-taken"],
        ["host.mica-toml-taken"],
    )
    config = kept.config
    assert (config.hostname, config.network.addresses) == ("mica1", ("192.0.2.10/24",))
    assert config.network.ntp_servers == ("ntp.example",)
    (token,) = config.tokens
    assert (token.id, token.secret_sha256, token.spec.role) == ("fleet", HASH, Role.ADMIN)


def test_the_same_file_is_not_taken_again() -> None:
    kept = store()
    take(kept, GOOD)
    assert take(kept, GOOD) == (False, [], [])
    assert take(kept, GOOD + b"# changed\n")[0]
    assert len(kept.config.tokens) == 1


@pytest.mark.parametrize("data", [None, b"", b"# only a comment\n"])
def test_nothing_said_is_nothing_taken(data: bytes | None) -> None:
    assert take(store(), data) == (False, [], [])


def test_a_mistake_leaves_everything_as_it_was() -> None:
    kept = store()
    before = kept.config
    taken, codes, events = take(kept, GOOD + b'calim = "x"\n')
    assert (taken, codes, events) == (False, ["mica-toml-invalid"], ["host.mica-toml-invalid"])
    assert kept.config == before


def test_what_can_not_be_kept_is_not_applied() -> None:
    kept = store(durable=False)
    before = kept.config
    taken, codes, _ = take(kept, GOOD)
    assert (taken, codes) == (False, ["mica-toml-not-kept"])
    assert kept.config == before


def test_a_stick_that_can_not_be_read_is_a_finding() -> None:
    taken, codes, _ = take(store(), OSError(5, "Input/output error"))
    assert (taken, codes) == (False, ["mica-toml-unreadable"])
