"""What a bare host must have, and how it is asked for."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from appliance_build.bootstrap import host
from appliance_build.bootstrap.host import HostError, become_root, missing_packages, prepare_host
from appliance_build.inputs.errors import CommandError
from appliance_build.inputs.run import clean_environment


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Debian host that has nothing of what is needed; its packages make files in the folder."""
    needed = {name: tmp_path / name for name in host.NEEDED}
    monkeypatch.setattr(host, "NEEDED", needed)
    monkeypatch.setattr(host, "_has_venv", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return tmp_path


def test_what_is_missing_is_named_by_its_package(bare: Path) -> None:
    assert missing_packages() == [
        "apt",
        "ca-certificates",
        "curl",
        "debian-archive-keyring",
        "mmdebstrap",
        "openssl",
        "python3-venv",
    ]
    (bare / "mmdebstrap").touch()
    assert "mmdebstrap" not in missing_packages()


class Apt:
    """apt-get with or without lists; what it installs appears."""

    def __init__(self, folder: Path, *, listed: bool, works: bool = True) -> None:
        self.folder = folder
        self.listed = listed
        self.works = works
        self.calls: list[str] = []

    def __call__(self, argv: Sequence[str], **options: object) -> str:
        assert options["env"] == {"DEBIAN_FRONTEND": "noninteractive"}
        self.calls.append(argv[1])
        if argv[1] == "update":
            self.listed = True
        elif not self.listed:
            raise CommandError(list(argv), 100, "E: Unable to locate package mmdebstrap")
        elif self.works:
            for name in argv[4:]:
                (self.folder / name).touch()
        return ""


@pytest.mark.parametrize(
    ("listed", "calls"), [(True, ["install"]), (False, ["install", "update", "install"])]
)
def test_packages_are_installed_and_lists_fetched_where_there_are_none(
    bare: Path, monkeypatch: pytest.MonkeyPatch, listed: bool, calls: list[str]
) -> None:
    apt = Apt(bare, listed=listed)
    monkeypatch.setattr(host, "run", apt)
    prepare_host(bare)
    assert apt.calls == calls


def test_what_apt_did_not_bring_is_named(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "run", Apt(bare, listed=True, works=False))
    with pytest.raises(HostError, match=r"still missing after installing: .*/mmdebstrap"):
        prepare_host(bare)


def test_a_host_without_apt_is_told_so(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(HostError, match="no apt"):
        prepare_host(bare)


def test_an_old_python_is_told_so(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "OLDEST_PYTHON", (99, 0))
    with pytest.raises(HostError, match="is too old"):
        prepare_host(bare)


def test_sudo_gets_what_it_would_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def execv(_: str, argv: list[str]) -> None:
        started.extend(argv)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "argv", ["x", "run", "PORT=1"])
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/sudo")
    monkeypatch.setattr(
        os, "environ", {"HTTPS_PROXY": "p", "no_proxy": "n", "MICA_CACHE": "c", "SECRET": "s"}
    )
    become_root()
    assert started[:2] == ["/usr/bin/sudo", "env"]
    assert started[-4:] == ["-m", "appliance_build", "run", "PORT=1"]
    assert {"HTTPS_PROXY=p", "no_proxy=n", "MICA_CACHE=c"} <= set(started)
    assert "SECRET=s" not in started


def test_without_root_and_sudo_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(HostError, match="run this as root"):
        become_root()


def test_programs_get_proxies_and_a_plain_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "environ", {"HTTPS_PROXY": "p", "LC_ALL": "de_DE.UTF-8", "PYTHONPATH": "x"}
    )
    environment = clean_environment()
    assert (environment["HTTPS_PROXY"], environment["LC_ALL"]) == ("p", "C.UTF-8")
    assert environment["HOME"] == "/root"
    assert "PYTHONPATH" not in environment
