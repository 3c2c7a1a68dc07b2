"""Consoles, the screen and the keyboard of a VM."""

from __future__ import annotations

from remote_api.client.sdk.base import Calls
from remote_api.schema import ConsoleBody, ConsoleFraming, ConsoleTicket, KeysBody
from vmkernel.model import ConsoleKind, ConsoleMode

__all__ = ["ConsoleCalls"]


class ConsoleCalls(Calls):
    """Consoles, the screen and the keyboard of a VM."""

    def console_ticket(
        self,
        vm_id: str,
        kind: ConsoleKind = ConsoleKind.SERIAL,
        mode: ConsoleMode = ConsoleMode.WRITE,
        framing: ConsoleFraming = ConsoleFraming.NOTICES,
    ) -> ConsoleTicket:
        """Open a console; see consoles/websocket.py for what follows."""
        return self.transport.send(
            "POST",
            f"/v1/vms/{vm_id}/console",
            body=ConsoleBody(kind=kind, mode=mode, framing=framing),
        ).read(ConsoleTicket)

    def screenshot(self, vm_id: str) -> bytes:
        """What a VM's display shows now, as PNG."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}/screenshot").body

    def send_keys(self, vm_id: str, *keys: str, text: str = "") -> None:
        """Press keys or chords such as `ctrl-alt-delete`, one after the other, then type text."""
        body = KeysBody(keys=keys, text=text)
        self.transport.send("POST", f"/v1/vms/{vm_id}/keys", body=body)

    def inject_nmi(self, vm_id: str) -> None:
        """Send a VM a non-maskable interrupt."""
        self.transport.send("POST", f"/v1/vms/{vm_id}/nmi")
