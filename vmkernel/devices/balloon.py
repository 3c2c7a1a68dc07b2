"""The balloon: takes memory from the guest when asked, tells the host which pages the guest has
freed, and reports the guest's own figures."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.slots import Slots

__all__ = ["BALLOON", "STATS_INTERVAL_S", "add_balloon"]

BALLOON = "balloon"
"""The device's id; its QOM path is `/machine/peripheral/balloon`."""
STATS_INTERVAL_S = 10
"""How often the guest is asked for its figures."""


def add_balloon(args: Arguments, slots: Slots, *, gives_back: bool) -> None:
    """The virtio balloon. A guest that runs out of memory gets it back before it kills anything.

    What it `gives_back` by itself must be there again when the guest wants it: ordinary memory is;
    a huge page may not be, and its guest would be killed.
    """
    args.device(
        "virtio-balloon-pci",
        id=BALLOON,
        **slots.fixed(BALLOON),
        free_page_reporting=gives_back,
        deflate_on_oom=True,
        guest_stats_polling_interval=STATS_INTERVAL_S,
    )
