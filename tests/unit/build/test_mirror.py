"""The mirror is the host's own, or the one that is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_build.inputs.errors import MirrorError
from appliance_build.inputs.mirror import find_mirrors

DEB822 = """\
Types: deb
# where it came from
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_deb822_sources(apt: Path) -> None:
    (apt / "sources.list.d/debian.sources").write_text(DEB822)
    found = find_mirrors(apt, {})
    assert found.debian == "http://mirror.example/debian"
    assert found.security == "http://mirror.example/debian-security"


def test_one_line_sources_with_options_and_other_archives(apt: Path) -> None:
    (apt / "sources.list").write_text(
        "# deb http://old.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] https://other.example/apt stable main\n"
        "deb [arch=amd64] https://m.example/debian bookworm main # here\n"
    )
    found = find_mirrors(apt, {})
    assert found.debian == "https://m.example/debian"
    assert found.security == "https://m.example/debian-security"


def test_disabled_sources_do_not_count(apt: Path) -> None:
    (apt / "sources.list.d/debian.sources").write_text("Enabled: no\n" + DEB822)
    with pytest.raises(MirrorError):
        find_mirrors(apt, {})


def test_a_mirror_list_is_followed(apt: Path) -> None:
    (apt / "mirrors").write_text("https://cloud.example/debian/\n")
    (apt / "sources.list").write_text(f"deb mirror+file:{apt}/mirrors trixie main\n")
    assert find_mirrors(apt, {}).debian == "https://cloud.example/debian"


def test_the_environment_decides(apt: Path) -> None:
    (apt / "sources.list.d/debian.sources").write_text(DEB822)
    found = find_mirrors(apt, {"MICA_DEBIAN_MIRROR": "http://near.example/debian/"})
    assert found.debian == "http://near.example/debian"
    assert found.security == "http://near.example/debian-security"


def test_no_debian_mirror_says_what_to_set(apt: Path) -> None:
    (apt / "sources.list").write_text("deb http://archive.example/ubuntu noble main\n")
    with pytest.raises(MirrorError, match="MICA_DEBIAN_MIRROR"):
        find_mirrors(apt, {})


def test_addresses_are_told_apart(apt: Path) -> None:
    (apt / "sources.list.d/debian.sources").write_text(DEB822)
    found = find_mirrors(apt, {})
    assert found.split("http://mirror.example/debian/pool/a.deb") == ("debian", "pool/a.deb")
    security = "http://mirror.example/debian-security/pool/b.deb"
    assert found.split(security) == ("debian-security", "pool/b.deb")
    with pytest.raises(MirrorError):
        found.split("http://elsewhere.example/c.deb")
