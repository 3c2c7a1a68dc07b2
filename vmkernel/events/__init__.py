"""What happened, in order: the bus and its ring buffer; it acts on nothing."""

from vmkernel.events.bus import EventBus, Subscription
from vmkernel.events.filter import EventFilter, make_filter

__all__ = ["EventBus", "EventFilter", "Subscription", "make_filter"]
