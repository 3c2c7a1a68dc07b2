"""Long work of QEMU's on block nodes: a disk mirrored to another file while the guest writes.

  begin    mirror -> copying ... -> ready         both files get what the guest writes
  switch   complete -> pending                    equal and flushed; the guest's requests wait
           (the caller's commit)                  durable: from now on the new file counts
           finalize -> concluded                  the guest's requests go to the new file
  give_up  cancel -> concluded                    before the commit: the old file as before

The job doesn't end by itself (`auto-finalize`, `auto-dismiss`), so that there is an instant at
which neither file is written, and so that the vmkernel finds what is left after a restart. Source:
docs/interop/live-block-operations.rst and qapi/job.json of QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vmkernel.qemu import answers
from vmkernel.qemu.errors import QemuError, QmpCommandError
from vmkernel.qemu.session import Qmp
from vmkernel.text import clean

__all__ = [
    "Job",
    "begin_mirror",
    "finalize",
    "find_job",
    "give_up",
    "grow",
    "jobs",
    "switch",
]

_SETTLE_S = 60.0
_POLL_S = 0.02
_ENDED = frozenset({"concluded", "null", "aborting"})


@dataclass(frozen=True)
class Job:
    """A job as reported by QEMU (`JobInfo` of qapi/job.json)."""

    name: str
    status: str
    done: int
    total: int
    error: str | None

    @property
    def ended(self) -> bool:
        """True if nothing more will happen."""
        return self.status in _ENDED


async def grow(qmp: Qmp, node: str, size_bytes: int) -> None:
    """Grow a node; whatever the guest has on top of it is notified."""
    await qmp.execute("block_resize", {"node-name": node, "size": size_bytes}, timeout_s=_SETTLE_S)


async def jobs(qmp: Qmp) -> list[Job]:
    return [
        Job(
            name=found.id,
            status=found.status,
            done=found.current_progress,
            total=found.total_progress,
            error=None if found.error is None else clean(found.error),
        )
        for found in await qmp.ask("query-jobs", tuple[answers.Job, ...])
    ]


async def find_job(qmp: Qmp, name: str) -> Job | None:
    return next((job for job in await jobs(qmp) if job.name == name), None)


async def begin_mirror(qmp: Qmp, name: str, *, root: str, source: str, target: str) -> None:
    """Begin to copy the node `source`, which is below the device's own node `root`, to `target`;
    what the guest writes goes to both, so that the two always converge.

    The copy is read through `root`, so the disk's limits apply to it, too.
    """
    await qmp.execute(
        "blockdev-mirror",
        {
            "job-id": name,
            "device": root,
            "replaces": source,
            "target": target,
            "sync": "full",
            "copy-mode": "write-blocking",
            "auto-finalize": False,
            "auto-dismiss": False,
        },
    )


async def switch(qmp: Qmp, name: str, commit: Callable[[], Awaitable[None]]) -> None:
    """Replace the source by a ready mirror's target. If `commit` raises, the mirror is cancelled
    and the error raised; QmpCommandError if QEMU refuses after it.
    """
    await qmp.execute("job-complete", {"id": name})
    await _reach(qmp, name, "pending")
    try:
        await commit()
    except BaseException:
        await give_up(qmp, name)
        raise
    await finalize(qmp, name)


async def finalize(qmp: Qmp, name: str) -> None:
    """The last step of a pending mirror."""
    await qmp.execute("job-finalize", {"id": name})
    job = await _reach(qmp, name, "concluded")
    await _dismiss(qmp, name)
    if job is not None and job.error:
        raise QmpCommandError(job.error)


async def give_up(qmp: Qmp, name: str) -> None:
    """Cancel a job; does nothing if there is none."""
    job = await find_job(qmp, name)
    if job is None:
        return
    if not job.ended:
        await qmp.execute("job-cancel", {"id": name})
        await _reach(qmp, name, "concluded")
    await _dismiss(qmp, name)


async def _reach(qmp: Qmp, name: str, status: str) -> Job | None:
    """Wait for a status, or for the job's end; None if it vanished."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SETTLE_S
    while True:
        job = await find_job(qmp, name)
        if job is None or job.status == status:
            return job
        if job.status == "concluded":
            raise QmpCommandError(job.error or f"the job {name} ended early")
        if loop.time() > deadline:
            raise QmpCommandError(f"the job {name} is {job.status} after {_SETTLE_S:g} s")
        await asyncio.sleep(_POLL_S)


async def _dismiss(qmp: Qmp, name: str) -> None:
    with contextlib.suppress(QemuError):
        await qmp.execute("job-dismiss", {"id": name})
