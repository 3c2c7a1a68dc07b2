"""Long work on a VM that other requests must not cross, such as a backup or a move."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from vmkernel.model import ErrorCode, MicaError
from vmkernel.vm.states import VmRequest

__all__ = ["OperationLocks"]


@dataclass(frozen=True, eq=False)
class _Hold:
    reason: str
    blocks: frozenset[VmRequest]


class OperationLocks:
    """The holds of one VM."""

    def __init__(self, vm_id: str) -> None:
        self._vm_id = vm_id
        self._held: list[_Hold] = []

    def check(self, request: VmRequest) -> None:
        """Raise `conflict`, with the reason, if the request is blocked."""
        for hold in self._held:
            if request in hold.blocks:
                raise MicaError(
                    ErrorCode.CONFLICT,
                    f"VM {self._vm_id} is busy: {hold.reason}. Wait for that, or cancel it.",
                )

    @contextlib.contextmanager
    def hold(self, reason: str, blocks: frozenset[VmRequest]) -> Iterator[None]:
        """Block requests until the block is left; `conflict` if another hold blocks
        `VmRequest.HOLD`, which every hold that changes the VM's disks should.
        """
        self.check(VmRequest.HOLD)
        mine = _Hold(reason, blocks)
        self._held.append(mine)
        try:
            yield
        finally:
            self._held.remove(mine)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The work in progress."""
        return tuple(hold.reason for hold in self._held)
