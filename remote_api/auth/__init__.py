"""What authenticates a request: bearer tokens as they arrive, console tickets; it judges no token.

Who is trusted with what: this package only reads the token's form. Whether it is valid, and what it
may do, the vmkernel decides at every request. A console ticket is made after the vmkernel has
opened the stream for the asking token, holds that stream, and is worth that one stream for 30 s.
A ticket for event streams keeps its token and is good for one stream after another for 12 hours;
an open console keeps its own, to ask again and again whether it is good.
"""

from remote_api.auth.bearer import bearer_token
from remote_api.auth.event_tickets import EventTickets
from remote_api.auth.tickets import TICKET_LIFE_S, Opened, TicketBox

__all__ = ["EventTickets", "Opened", "TICKET_LIFE_S", "TicketBox", "bearer_token"]
