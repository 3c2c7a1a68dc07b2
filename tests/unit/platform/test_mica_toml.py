"""mica.toml: what is taken, and that every mistake is named by its key."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.auth import hash_secret, parse_bearer
from vmkernel.platform.mica_toml import ClaimPolicy, MicaToml, MicaTomlError, parse

HASH = "0123456789abcdef" * 4
EXAMPLE = Path(__file__).parents[3] / "firmware/boot_chain/mica.toml.example"

WHOLE = f"""
hostname = "mica1.example"
[network]
addresses = ["192.0.2.10/24", "2001:db8::10/64"]
gateways = ["192.0.2.1", "fe80::1"]
nameservers = ["192.0.2.53"]
vlan = 20
[time]
servers = ["ntp.example.org", "2001:db8::123"]
[log]
syslog = "udp://[2001:db8::5]:514"
[access]
admin_token_id = "fleet"
admin_token_sha256 = "{HASH}"
claim = "off"
"""


def test_a_whole_file() -> None:
    settings = parse(WHOLE.encode())
    assert settings.hostname == "mica1.example"
    assert settings.network.vlan == 20
    assert settings.access.claim is ClaimPolicy.OFF
    assert not settings.says_nothing


def test_files_from_other_systems_are_read() -> None:
    assert parse(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode()) == parse(WHOLE.encode())


def _example_settings() -> list[tuple[str, str]]:
    """Section line ("" for none) and line of each setting of the example."""
    found, section = [], ""
    for line in re.findall(r"(?m)^# (\[.+|[a-z_0-9]+ = .+)$", EXAMPLE.read_text()):
        if line.startswith("["):
            section = line
        else:
            found.append((section, line))
    return found


def _fields(record: type[msgspec.Struct], section: str = "") -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for field in msgspec.structs.fields(record):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= _fields(field.type, f"[{field.name}]")
        else:
            found.add((section, field.name))
    return found


def test_the_example_says_nothing_and_is_valid_when_every_setting_is_switched_on() -> None:
    text = EXAMPLE.read_text()
    assert parse(text.encode()).says_nothing
    settings = parse(re.sub(r"(?m)^# (?=(\[|[a-z_0-9]+ = ))", "", text).encode())
    assert settings.network.addresses
    assert settings.access.admin_token_sha256
    assert settings.time.servers
    assert settings.log.syslog
    assert settings.hostname


def test_the_example_has_every_setting() -> None:
    shown = {(section, line.partition(" = ")[0]) for section, line in _example_settings()}
    assert shown == _fields(MicaToml)


@pytest.mark.parametrize(("section", "line"), _example_settings())
def test_each_setting_of_the_example_is_valid_by_itself(section: str, line: str) -> None:
    needed = [f'admin_token_sha256 = "{HASH}"'] if line.startswith("claim = ") else []
    needed += ['addresses = ["192.0.2.10/24", "2001:db8::10/64"]'] if "gateways" in line else []
    assert not parse("\n".join([section, *needed, line]).encode()).says_nothing or (
        line == 'admin_token_id = "admin"'
    )


def test_the_values_that_the_example_allows_for_claim_are_those_there_are() -> None:
    allowed = EXAMPLE.read_text().partition("# claim: ")[2].partition("\n# [access]")[0]
    assert set(re.findall(r'"(\w+)"', allowed)) == set(ClaimPolicy)


def test_the_example_s_command_makes_a_token_and_its_hash() -> None:
    (code,) = re.findall(r'(?m)^#     python3 -c "(.+)"$', EXAMPLE.read_text())
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    token, sha256 = printed.split()
    parsed = parse_bearer(token)
    assert parsed is not None
    assert parsed[0] == "admin"
    assert hash_secret(parsed[1]) == sha256
    access = f'[access]\nadmin_token_id = "{parsed[0]}"\nadmin_token_sha256 = "{sha256}"\n'
    assert parse(access.encode()).access.admin_token_sha256 == sha256


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('hostnam = "x"', ["hostnam"]),
        ('hostname = "UPPER"', ["hostname"]),
        ("hostname = 3", ["hostname", "str"]),
        ("[network]\nvlan = 4095", ["network.vlan", "4094"]),
        ('[network]\naddresses = ["192.0.2.1"]', ["network.addresses[0]", "prefix"]),
        ('[network]\naddresses = ["300.0.2.1/24"]', ["network.addresses[0]"]),
        ('[network]\naddresses = ["127.0.0.1/8"]', ["network.addresses[0]"]),
        (
            '[network]\naddresses = ["192.0.2.1/24"]\ngateways = ["198.51.100.1"]',
            ["network.gateways[0]"],
        ),
        ('[network]\ngateways = ["192.0.2.1"]', ["network.gateways[0]"]),
        ('[network]\nnameservers = ["dns.example"]', ["network.nameservers[0]"]),
        ('[time]\nservers = ["no good"]', ["time.servers[0]"]),
        ('[log]\nsyslog = "http://x"', ["log.syslog"]),
        ('[log]\nsyslog = "udp://x:70000"', ["log.syslog"]),
        ('[access]\nadmin_token_sha256 = "abc"', ["access.admin_token_sha256"]),
        ('[access]\nclaim = "off"', ["access.claim", "admin_token_sha256"]),
        ('[access]\nclaim = "maybe"', ["access.claim"]),
        ('[access]\ncalim = "off"', ["access", "calim"]),
        ("hostname =", ["TOML"]),
    ],
)
def test_mistakes_are_named(text: str, words: list[str]) -> None:
    with pytest.raises(MicaTomlError) as caught:
        parse(text.encode())
    for word in words:
        assert word in str(caught.value)


def test_what_is_no_text_or_too_much_of_it_is_refused() -> None:
    with pytest.raises(MicaTomlError, match="UTF-8"):
        parse(b"\xff\xfe")
    with pytest.raises(MicaTomlError, match="larger"):
        parse(b"#" * 70000)


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_a_mistake(data: bytes) -> None:
    with contextlib.suppress(MicaTomlError):
        assert isinstance(parse(data), MicaToml)
