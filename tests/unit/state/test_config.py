"""The host configuration, its schema and the way up from older ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from vmkernel.state.config import (
    HostConfig,
    TlsMaterial,
    decode_config,
    encode_config,
    new_config,
)
from vmkernel.state.errors import StateError
from vmkernel.state.upgrades import SCHEMA, UPGRADES, upgrade

SAMPLES = Path(__file__).parents[1] / "samples"


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_every_schema_that_ever_was_can_still_be_read(schema: int) -> None:
    config = decode_config(schema, (SAMPLES / f"state-{schema}.json").read_bytes())
    assert config.hostname == "mica-3f0f6c1e"
    assert [token.id for token in config.tokens] == ["admin"]
    assert config.datastores[0].backing == "a1b2c3d4-0000-4000-8000-000000000001"
    assert config.autostart == ("web-1",)


def test_a_configuration_survives_the_way_there_and_back() -> None:
    config = new_config()
    assert decode_config(SCHEMA, encode_config(config)) == config


def test_upgrades_are_applied_in_order_from_the_schema_on() -> None:
    steps = [
        lambda document: {**document, "b": document["a"] + 1},
        lambda document: {**document, "c": document["b"] + 1},
    ]
    assert upgrade(1, {"a": 1}, steps) == {"a": 1, "b": 2, "c": 3}
    assert upgrade(2, {"a": 1, "b": 5}, steps) == {"a": 1, "b": 5, "c": 6}
    assert upgrade(3, {"a": 1}, steps) == {"a": 1}
    with pytest.raises(ValueError, match="not known"):
        upgrade(4, {}, steps)
    assert len(UPGRADES) + 1 == SCHEMA


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"{}", b'{"uuid": 1}'])
def test_what_cannot_be_read_is_a_typed_error(payload: bytes) -> None:
    with pytest.raises(StateError):
        decode_config(SCHEMA, payload)


def test_unknown_fields_are_refused() -> None:
    document = msgspec.json.decode(encode_config(new_config()))
    document["surprise"] = 1
    with pytest.raises(StateError, match="surprise"):
        decode_config(SCHEMA, msgspec.json.encode(document))


def test_secrets_are_not_shown() -> None:
    config = msgspec.structs.replace(
        new_config(), tls=TlsMaterial(certificate_pem="c", private_key_pem="PRIVATE")
    )
    shown = repr(config)
    assert "PRIVATE" not in shown
    sample = decode_config(1, (SAMPLES / "state-1.json").read_bytes())
    assert "0f0f" not in repr(sample)


def test_each_new_host_is_another_one() -> None:
    first, second = new_config(), new_config()
    assert isinstance(first, HostConfig)
    assert first.uuid != second.uuid
    assert first.hostname != second.hostname
