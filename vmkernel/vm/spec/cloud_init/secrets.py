"""The parts of a VM's cloud-init that are concealed, and kept if the concealed
value is sent back.
"""

from __future__ import annotations

from msgspec.structs import replace

from vmkernel.model import CONCEALED, CloudInitSpec, MicaError, Vm, VmSpec

__all__ = ["concealed", "revealed"]


def concealed(vm: Vm, *, user_data: bool) -> Vm:
    """The VM without the password's hash; without its user data unless `user_data`."""
    known = vm.spec.cloud_init
    if known is None:
        return vm
    names = ("password_hash", "user_data") if user_data else ("password_hash",)
    hidden = {name: CONCEALED for name in names if getattr(known, name) is not None}
    return replace(vm, spec=replace(vm.spec, cloud_init=replace(known, **hidden)))


def revealed(spec: VmSpec, previous: VmSpec | None) -> VmSpec:
    """The spec with the secrets that a client sends back as it saw them; MicaError if there were
    none.
    """
    wanted = spec.cloud_init
    if wanted is None:
        return spec
    known = (previous.cloud_init if previous is not None else None) or CloudInitSpec()
    kept = {}
    for name in ("password_hash", "user_data"):
        if getattr(wanted, name) == CONCEALED:
            kept[name] = getattr(known, name)
            if kept[name] is None:
                raise MicaError.field(
                    f"/spec/cloud_init/{name}",
                    f"`{CONCEALED}` keeps the stored value, but there is none: give the value.",
                )
    return replace(spec, cloud_init=replace(wanted, **kept))
