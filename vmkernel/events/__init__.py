"""What happened, in order: the bus and its ring buffer; it acts on nothing."""

from vmkernel.events.bus import EventBus, Subscription

__all__ = ["EventBus", "Subscription"]
