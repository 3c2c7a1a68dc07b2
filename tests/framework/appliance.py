"""An appliance as its administrator sees it: HTTPS calls, operations, consoles, and nothing else.

While anything is waited for, the machine is watched: when it dies or its console shows that all
is lost, the wait ends at once with that reason.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from remote_api.client.sdk import Mica
from tests.framework.api import check_response
from tests.framework.console import Console
from tests.framework.machine import Machine
from tests.framework.vm_story import vm_story

__all__ = ["Appliance", "MERGE_PATCH", "UnexpectedAnswerError", "sha256_of"]

CLAIM_CODE = r"^Claim code: ([0-9A-Z]{5}-[0-9A-Z]{5})$"
FINGERPRINT = r"^TLS fingerprint \(SHA-256\): ([0-9a-f]{64})$"
MERGE_PATCH = "application/merge-patch+json"
MIB = 1 << 20
PART_BYTES = 1 << 20
WAIT_S = 20.0
STORY_S = 20.0
"""For each answer about a VM after a wait that ran out."""
"""How long one request asks the server to wait; longer waits ask again."""


class UnexpectedAnswerError(AssertionError):
    """The API answered with another status than the test expects."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Appliance:
    """The API of one machine that is on."""

    def __init__(self, machine: Machine, *, token: str | None = None) -> None:
        self.machine = machine
        self.token = token
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._http = httpx.Client(
            base_url=f"https://127.0.0.1:{machine.port}",
            verify=self._context,
            timeout=120,
            trust_env=False,
            event_hooks={"response": [check_response]},
        )

    def close(self) -> None:
        self._http.close()

    # --- calls ----------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        *,
        expect: int | tuple[int, ...] = (200, 201, 202, 204),
        json: Any = None,
        content: Iterator[bytes] | bytes | None = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        authorised: bool = True,
    ) -> httpx.Response:
        """One request; raises if the answer has another status than expected."""
        sent = dict(headers or {})
        if authorised and self.token is not None:
            sent["authorization"] = f"Bearer {self.token}"
        try:
            answer = self._http.request(
                method, path, json=json, content=content, params=params, headers=sent
            )
        except httpx.HTTPError as error:
            self.machine.check()
            tail = self.machine.console.tail()
            raise UnexpectedAnswerError(f"{method} {path}: {error!r}\n{tail}") from error
        wanted = (expect,) if isinstance(expect, int) else expect
        if answer.status_code not in wanted:
            raise UnexpectedAnswerError(
                f"{method} {path}: {answer.status_code} instead of {wanted}: {answer.text}\n"
                f"{self.machine.console.tail()}"
            )
        return answer

    def get(self, path: str, **params: Any) -> Any:
        """The body of a GET."""
        return self.call("GET", path, expect=200, params=params).json()

    def create(self, path: str, body: Any, *, works: bool = False) -> Any:
        """PUT something that must not be there yet; if that `works`, its operation succeeds."""
        params = {"wait": WAIT_S} if works else None
        answer = self.call(
            "PUT", path, json=body, params=params, headers={"if-none-match": "*"}
        ).json()
        return self.settle(answer) if works else answer

    def host(self) -> dict[str, Any]:
        """The host's status."""
        status: dict[str, Any] = self.get("/v1/host")["status"]
        return status

    def create_token(self, name: str, role: str = "viewer") -> str:
        """Make a token; its secret."""
        answer = self.create(f"/v1/tokens/{name}", {"spec": {"role": role}})
        return str(answer["secret"])

    def act(self, path: str, body: Any = None, *, timeout_s: float = 120.0) -> Any:
        """POST an action and wait for its operation."""
        answer = self.call("POST", path, json=body, params={"wait": WAIT_S}).json()
        return self.settle(answer, timeout_s=timeout_s)

    def settle(self, operation: dict[str, Any], *, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait for an operation; raises if it did not succeed."""
        deadline = time.monotonic() + timeout_s
        while operation["state"] == "running":
            if time.monotonic() > deadline:
                raise UnexpectedAnswerError(f"not finished after {timeout_s:g} s: {operation}")
            operation = self.get(f"/v1/operations/{operation['id']}", wait=WAIT_S)
        if operation["state"] != "succeeded":
            tail = self.machine.console.tail()
            raise UnexpectedAnswerError(f"{operation['kind']} failed: {operation}\n{tail}")
        return operation

    # --- first contact --------------------------------------------------------------------

    def claim_code(self, *, timeout_s: float = 60.0) -> str:
        """The claim code that the console shows."""
        match, _ = self.machine.console.expect(
            CLAIM_CODE, timeout_s=timeout_s, what="the console shows a claim code"
        )
        return match.group(1)

    def shown_fingerprint(self, *, timeout_s: float = 60.0) -> str:
        """The TLS fingerprint that the console shows."""
        match, _ = self.machine.console.expect(
            FINGERPRINT, timeout_s=timeout_s, what="the console shows the TLS fingerprint"
        )
        return match.group(1)

    def claim(self, code: str | None = None) -> str:
        """Claim the appliance; its admin token is used from here on."""
        body = {"code": code or self.claim_code()}
        answer = self.call("POST", "/v1/claim", json=body, expect=201).json()
        self.token = str(answer["secret"])
        return self.token

    # --- storage --------------------------------------------------------------------------

    def disk(self, serial: str) -> dict[str, Any]:
        """The host's disk with a serial number."""
        for disk in self.get("/v1/host/disks")["items"]:
            if disk["serial"] == serial:
                found: dict[str, Any] = disk
                return found
        raise UnexpectedAnswerError(f"the appliance lists no disk {serial}")

    def create_datastore(self, name: str, serial: str, *, filesystem: str = "xfs") -> Any:
        """Make a datastore on the disk with a serial number, wiping it."""
        disk = self.disk(serial)["id"]
        spec = {"kind": "local", "disk": disk, "filesystem": filesystem}
        self.create(f"/v1/datastores/{name}", {"spec": spec, "wipe_serials": [disk]}, works=True)
        return self.get(f"/v1/datastores/{name}")

    def upload(self, name: str, path: Path, kind: str, *, datastore: str = "main") -> Any:
        """Upload an image in one request."""
        params = {
            "datastore": datastore,
            "format": kind,
            "sha256": sha256_of(path),
            "wait": 120,
        }
        headers = {"if-none-match": "*", "content-length": str(path.stat().st_size)}
        headers["content-type"] = "application/octet-stream"
        return self.call(
            "PUT",
            f"/v1/images/{name}",
            content=_parts(path),
            params=params,
            headers=headers,
            expect=201,
        ).json()

    def create_volume(
        self,
        name: str,
        size_bytes: int,
        *,
        source_image: str | None = None,
        datastore: str = "main",
        kind: str = "qcow2",
    ) -> Any:
        """Make a volume, blank or filled from an image."""
        spec: dict[str, Any] = {"datastore": datastore, "size_bytes": size_bytes, "format": kind}
        if source_image is not None:
            spec["source_image"] = source_image
        self.create(f"/v1/volumes/{name}", {"spec": spec}, works=True)
        return self.get(f"/v1/volumes/{name}")

    # --- virtual machines -----------------------------------------------------------------

    def create_vm(self, name: str, *, datastore: str = "main", **spec: Any) -> Any:
        """Define a virtual machine; 256 MiB if nothing else is said."""
        spec.setdefault("memory_bytes", 256 * MIB)
        return self.create(f"/v1/vms/{name}", {"spec": {"datastore": datastore, **spec}})

    def start(self, name: str) -> Any:
        return self.act(f"/v1/vms/{name}/start")

    def power_off(self, name: str) -> Any:
        """End a virtual machine at once."""
        return self.act(f"/v1/vms/{name}/power-off")

    def vm_state(self, name: str) -> str:
        """The state of a virtual machine."""
        return str(self.get(f"/v1/vms/{name}")["status"]["state"])

    def wait_vm_state(self, name: str, state: str, *, timeout_s: float) -> None:
        """Wait until a virtual machine has this state."""
        self.machine.wait_for(
            f"VM {name} is {state}",
            lambda: self.vm_state(name) == state,
            timeout_s=timeout_s,
            interval_s=1.0,
        )

    @contextmanager
    def console(self, name: str, *, tolerate: tuple[str, ...] = ()) -> Iterator[Console]:
        """A virtual machine's serial console, from its scrollback on."""
        wire = self.open_console(name, "serial")
        log = self.machine.folder / f"guest-{name}.log"
        console = Console(
            wire,
            log,
            tolerate=tolerate,
            watch=self.machine.check,
            story=lambda: self._vm_story(name),
        )
        try:
            yield console
        finally:
            console.close()

    def _vm_story(self, name: str) -> str:
        address = f"127.0.0.1:{self.machine.port}"
        fingerprint = self.machine.certificate_sha256()
        with Mica(address, token=self.token, fingerprint=fingerprint, timeout_s=STORY_S) as mica:
            story = vm_story(mica, name, self.machine.folder)
        return "\n".join([story, "the machine's processors:", *self.machine.processors()])

    def open_console(self, name: str, kind: str) -> WebSocketWire:
        """A console's raw bytes, both ways."""
        ticket = self.call(
            "POST", f"/v1/vms/{name}/console", json={"kind": kind}, expect=201
        ).json()
        uri = f"wss://127.0.0.1:{self.machine.port}{ticket['websocket']}"
        return WebSocketWire(uri, self._context)


class WebSocketWire:
    """A console over the API's WebSocket; a wire for Console."""

    def __init__(self, uri: str, context: ssl.SSLContext) -> None:
        self._stack = ExitStack()
        self._connection: ClientConnection = self._stack.enter_context(
            connect(uri, ssl=context, server_hostname="mica", max_size=None, proxy=None)
        )
        self._sending = threading.Lock()

    def receive(self) -> bytes:
        """The next bytes; nothing at the end. Who writes (text) is left out."""
        while True:
            try:
                data = self._connection.recv()
            except (ConnectionClosed, OSError):
                return b""
            if isinstance(data, bytes):
                return data

    def send(self, data: bytes) -> None:
        with self._sending:
            self._connection.send(data)

    def close(self) -> None:
        with suppress(ConnectionClosed, OSError):
            self._stack.close()


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            yield part
