"""Hosted mode for tests: `mica serve` in a folder of its own, with the tools tree's QEMU on TCG."""

from __future__ import annotations

import json
import os
import selectors
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import IO

from appliance_build.tools.sandbox import loader_argv, qemu_environment
from remote_api.client.sdk import Mica
from tests.framework import inputs
from tests.framework.api import checked_mica
from tests.framework.calls import ROLES
from tests.framework.ending import started
from tests.framework.repository import REPOSITORY
from vmkernel.host.seccomp import compile_filter
from vmkernel.jail.calls import CallFilter, one_of

__all__ = ["HostedMica", "hosted_mica", "qemu_programs", "unclaimed_mica"]

FILTERED = Path(__file__).with_name("filtered.py")
_START_S = 60.0
_STOP_S = 90.0


@dataclass
class HostedMica:
    """One `mica serve` that runs."""

    folder: Path
    address: str
    fingerprint: str
    claim_code: str
    process: subprocess.Popen[bytes]
    token: str | None = None

    def client(self, token: str | None = None) -> Mica:
        """A client; by the administrator's token if none is given."""
        return checked_mica(
            self.address, token=token or self.token, fingerprint=self.fingerprint, timeout_s=60.0
        )

    def anonymous(self) -> Mica:
        """A client without a token."""
        return checked_mica(self.address, fingerprint=self.fingerprint)

    def pid(self, name: str) -> int:
        """The process id of `vmkernel` or `remote_api`."""
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(status.read_text().rpartition(")")[2].split()[1])
                words = (status.parent / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == self.process.pid and name.encode() in words:
                return int(status.parent.name)
        raise AssertionError(f"{name} does not run\n{self.logs()}")

    def logs(self) -> str:
        """The ends of the logs."""
        parts = []
        for log in sorted((self.folder / "state/run").glob("*.log")):
            parts.append(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
        return "\n".join(parts)

    def datastore_folder(self, name: str) -> Path:
        """A fresh directory for a datastore."""
        folder = self.folder / "datastores" / name
        folder.mkdir(parents=True)
        return folder


@contextmanager
def unclaimed_mica(
    folder: Path, *arguments: str, source: Path = REPOSITORY
) -> Iterator[HostedMica]:
    """A fresh host in `folder` that is not claimed, of the checkout `source`."""
    argv = [
        *(sys.executable, "-m", "remote_api.client", "-o", "json", "serve"),
        *("--dir", str(folder / "state"), "--listen", "127.0.0.1:0"),
        *("--accelerator", "tcg"),
        *_qemu(folder),
        *arguments,
    ]
    with (folder / "serve.log").open("wb") as log:
        process = started(
            argv,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=source,
            env={**os.environ, "HOME": str(folder)},
            ends_by=signal.SIGTERM,
        )
    try:
        assert process.stdout is not None
        ready = json.loads(_line(process.stdout, folder))
        host = HostedMica(
            folder=folder,
            address=ready["address"],
            fingerprint=ready["fingerprint_sha256"],
            claim_code=ready["claim_code"],
            process=process,
        )
        yield host
        for name in ("remote_api", "vmkernel"):
            text = (folder / "state/run" / f"{name}.log").read_text(errors="replace")
            assert "Traceback" not in text, f"{name} logged a defect:\n{text[-6000:]}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def hosted_mica(folder: Path, *arguments: str, source: Path = REPOSITORY) -> Iterator[HostedMica]:
    """A fresh host in `folder`, claimed."""
    with unclaimed_mica(folder, *arguments) as host:
        with host.anonymous() as mica:
            host.token = mica.claim(host.claim_code).secret
        yield host


def _qemu(folder: Path) -> list[str]:
    """Scripts that start the tools tree's QEMU, as options of `mica serve`."""
    scripts = qemu_programs(folder)
    return [
        *("--qemu", str(scripts["qemu-system-x86_64"])),
        *("--qemu-img", str(scripts["qemu-img"])),
        *("--swtpm", str(scripts["swtpm"])),
        *("--qemu-dir", str(inputs.tools() / "usr/share")),
    ]


def qemu_programs(folder: Path) -> dict[str, Path]:
    """Scripts in `folder` that start the tools tree's programs, by the programs' names."""
    tree = inputs.tools()
    variables = " ".join(
        f"{name}={shlex.quote(value)}" for name, value in qemu_environment(tree).items()
    )
    scripts = {}
    for program in ("qemu-system-x86_64", "qemu-img", "swtpm"):
        script = folder / program
        words = shlex.join(loader_argv(tree, program))
        if program in ROLES:
            words = f"{_watched(folder, program)} {words}"
        script.write_text(f'#!/bin/sh\nexport {variables}\nexec {words} "$@"\n')
        script.chmod(0o755)
        scripts[program] = script
    return scripts


def _watched(folder: Path, program: str) -> str:
    """What a program of the jail is started by: the jail's list of system calls, or a recorder of
    what it calls (`tests.framework.calls`)."""
    if trace := os.environ.get("MICA_TRACE_CALLS"):
        return f"strace -D -f -qq -o {shlex.quote(trace)}/{program}.$$"
    code = folder / f"{program}.filter"
    code.write_bytes(compile_filter(_hosted(ROLES[program])))
    return shlex.join([sys.executable, "-I", "-S", str(FILTERED), str(code)])


def _hosted(calls: CallFilter) -> CallFilter:
    """A list and what user networking adds, which no jailed QEMU has."""
    names = ("bind", "connect")
    return CallFilter(
        calls.allowed.union(names), {**calls.limited, "socket": one_of(0, AF_INET, AF_INET6)}
    )


def _line(stream: IO[bytes], folder: Path) -> bytes:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        if selector.select(_START_S) and (line := stream.readline()):
            return line
    raise AssertionError(f"mica serve did not start:\n{(folder / 'serve.log').read_text()}")
