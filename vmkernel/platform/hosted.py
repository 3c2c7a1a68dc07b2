"""The platform under hosted mode: an ordinary machine that Mica doesn't own.

It reports what it sees and changes nothing: no console, no network, no power.
"""

from __future__ import annotations

import asyncio

from vmkernel.host_devices import BundleCatalogue, Inventory
from vmkernel.model import (
    Device,
    ErrorCode,
    HostMode,
    HostStatus,
    MicaError,
    Operation,
    PowerAction,
    StickInfo,
    VirtualisationInfo,
)
from vmkernel.platform.facts import boot_info, cpu_info, memory_info, virtualisation_info
from vmkernel.platform.links import link_infos
from vmkernel.platform.ports import PlatformContext
from vmkernel.platform.programs import Programs
from vmkernel.platform.security import security_info
from vmkernel.state.identity import fingerprint
from vmkernel.version import __version__

__all__ = ["HostedPlatform"]

_ON_TRIAL = "A trial guest is running to test KVM; try again shortly."


class HostedPlatform:
    """The machine below `mica serve`, which it only reads."""

    def __init__(self) -> None:
        self._surroundings: PlatformContext | None = None
        self._inventory = Inventory(BundleCatalogue(), None)
        self._cpu = cpu_info()
        self._programs = Programs()
        """What the start has found."""

    def note_programs(self, programs: Programs) -> None:
        """Show these programs, which the start has looked at."""
        self._programs = programs

    def stage(self, text: str) -> None:
        """There is no console here."""

    def bind(self, surroundings: PlatformContext) -> None:
        """Give it the rest of the vmkernel."""
        self._surroundings = surroundings

    def serving(self) -> None:
        """There is no start of a host to measure."""

    async def run(self) -> None:
        """Nothing to watch; ends when cancelled."""
        await asyncio.Event().wait()

    async def host_info(self) -> HostStatus:
        """The host as a whole."""
        rest = self._rest
        config = rest.store.config
        return HostStatus(
            hostname=config.hostname,
            uuid=config.uuid,
            version=__version__,
            mode=HostMode.HOSTED,
            cpu=self._cpu,
            memory=memory_info(),
            virtualisation=self._virtualisation(),
            boot=boot_info({}),
            security=security_info(),
            stick=StickInfo(present=False),
            links=link_infos(),
            findings=(*self._programs.findings, *rest.findings()),
            programs=self._programs.found,
            tls_fingerprint_sha256=fingerprint(config.tls.certificate_pem) if config.tls else "",
        )

    async def devices(self) -> tuple[Device, ...]:
        """The machine's devices; their drivers are its owner's business."""
        self._inventory.changed()
        return await self._inventory.devices()

    async def power(self, action: PowerAction, *, actor: str) -> Operation:  # noqa: ARG002
        """`unsupported`: Mica doesn't own the machine."""
        raise MicaError(
            ErrorCode.UNSUPPORTED,
            "This Mica runs as a program on another system; stop the program, not the machine.",
        )

    def _virtualisation(self) -> VirtualisationInfo:
        """KVM counts once a guest has shown that it works."""
        accelerator = self._rest.accelerator()
        reason = self._rest.accelerator_reason() if accelerator is not None else _ON_TRIAL
        return virtualisation_info(accelerator=accelerator or "tcg", reason=reason)

    @property
    def _rest(self) -> PlatformContext:
        assert self._surroundings is not None, "bind() comes first"
        return self._surroundings
