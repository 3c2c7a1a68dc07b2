"""Where hosted mode listens, and what it needs."""

from __future__ import annotations

import errno
import importlib
import socket
import tomllib
from contextlib import closing

import pytest

from remote_api.client.errors import ConflictError, MisuseError
from remote_api.client.hosted.listening import listening_socket, reachable_address
from tests.framework.repository import REPOSITORY

module = importlib.import_module("remote_api.client.cli.commands.serve")


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "h:70000", "::1:8443", ":-1", ":٣"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(MisuseError, match=r"use HOST:PORT, \[IPV6\]:PORT or :PORT"):
        listening_socket(text)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0", "localhost:0", "0.0.0.0:0", ":0"])
def test_what_is_one(text: str) -> None:
    with closing(listening_socket(text)) as sock:
        address = reachable_address(sock)
        assert address.startswith("https://")
        assert address.endswith(f":{sock.getsockname()[1]}")
        assert "0.0.0.0" not in address
        assert "[::]" not in address


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRINUSE, "port 443 of 127.0.0.1 is in use by another program"),
        (errno.EADDRNOTAVAIL, "127.0.0.1 is not an address of this machine"),
        (errno.EACCES, r"port 443 is reserved for root: give a port of \d+ or more"),
        (errno.ENOBUFS, "can't listen on 127.0.0.1:443"),
    ],
)
def test_why_not(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def bind(_self: socket.socket, _address: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ConflictError, match=words):
        listening_socket("127.0.0.1:443")


def test_a_client_without_the_servers_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOST_MODULES", ("websockets.no_such_module",))
    with pytest.raises(ConflictError, match="install the package mica-hypervisor"):
        module._check_extra()
    monkeypatch.setattr(module, "HOST_MODULES", ("no_such_package.module",))
    with pytest.raises(ConflictError, match="needs the Python module no_such_package"):
        module._check_extra()


def test_the_packages_are_those_of_the_extra() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["host"]
    theirs = [name for name in module.HOST_MODULES if not name.startswith("vmkernel.")]
    packages = [wish.partition(">")[0].removesuffix("-cffi") for wish in extra]
    assert sorted(packages) == sorted(theirs)
