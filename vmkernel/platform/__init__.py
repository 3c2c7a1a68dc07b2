"""The machine under the vmkernel: facts, stick, settings, network, power; it must not touch VMs."""

from vmkernel.platform.ports import PlatformContext

__all__ = ["PlatformContext"]
