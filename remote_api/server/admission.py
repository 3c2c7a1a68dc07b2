"""Who may hold a connection, and who loses one when there are too many; it opens none.

accepted -> WAITING    a socket, nothing read yet
              |        its first bytes have arrived and a place is free
              v
         HANDSHAKE     TLS has begun
              |
              v
            OPEN unauthenticated: counts for its source, with the handshakes
              |        a request's token was valid
              v
            OPEN       of a user: counts for the token alone, since many share one address (NAT)
The size of each stage is in `Limits`. A source is an address, of IPv6 its /64. A new connection in
a full stage replaces one of the source (of users: the user) that has most there, oldest and idle
first, but never one of a source with fewer than its own: one source can fill a stage, but keeps no
one out of it. Sources that had a valid token before have additional places, so that strangers can't
keep them out.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice

from remote_api.http.sources import source_of
from remote_api.schema import ApiError
from vmkernel.model import ErrorCode

__all__ = ["Admission", "Limits", "Peer", "Stage"]

_KNOWN_SOURCES = 1024
"""How many sources are remembered for a good token; some 100 bytes each."""
_PATIENCE_S = 1.0
"""A handshake takes three round trips at most; after so long others may have its place."""
_CROWDED_PATIENCE_S = 0.2
_LOOKED_AT, _TRIED = 32, 4
"""How many sources are compared and tried for one free place: a flood may not cost more time."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many connections there may be. Together with two descriptors for each open one (a
    request has a connection to the vmkernel besides) they stay below LimitNOFILE."""

    waiting: int = 1536
    """The more are waiting, the shorter the time to speak must be in a flood: 1 s at 1,500 a
    second."""
    waiting_per_source: int = 384
    handshakes: int = 64
    handshakes_per_second: float = 150.0
    """Of sources that are not known: each costs about a millisecond of a processor."""
    strangers: int = 128
    per_source: int = 16
    per_known_source: int = 64
    """Many users may share one address (NAT)."""
    known_reserve: int = 64
    users: int = 256
    per_user: int = 64


class Stage(IntEnum):
    """How far a connection is."""

    WAITING = 0
    HANDSHAKE = 1
    OPEN = 2
    GONE = 3


@dataclass(eq=False, kw_only=True)
class Peer:
    """One connection."""

    source: str
    admission: Admission
    begin: Callable[[], None]
    """Starts its handshake."""
    end: Callable[[], None]
    """Closes it at once."""
    stage: Stage = Stage.WAITING
    spoke: bool = False
    """Its first bytes have arrived."""
    since_s: float = 0.0
    """When it reached its stage."""
    user: str | None = None
    idle: Callable[[], bool] = field(default=lambda: True)
    """Whether no request of it is under way."""
    trusted: Callable[[], None] = field(default=lambda: None)
    """Called once its first token was good."""

    def proven(self, user: str) -> None:
        """A request on it carried a good token of `user`. Raises ApiError (429, 503)."""
        self.admission.proven(self, user)


class Admission:
    """Counts the connections of one process; owned by the event loop's thread."""

    def __init__(
        self, limits: Limits | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits or Limits()
        self.counters: Counter[str] = Counter()
        """Refused connections, by reason; for the metrics."""
        self.ended = 0
        """How many have gone that had begun TLS."""
        self._monotonic = monotonic
        self._rooms: dict[Stage, dict[Peer, None]] = {stage: {} for stage in Stage}
        self._waiting: dict[str, dict[Peer, None]] = {}
        """Those of the first room by source: there may be many, and new ones every millisecond."""
        self._ready: dict[bool, dict[str, dict[Peer, None]]] = {True: {}, False: {}}
        """Those that can begin, by whether their source is known, and by source."""
        self._credit = float(self.limits.handshakes)
        self._credited_s = monotonic()
        self._known: OrderedDict[str, None] = OrderedDict()

    # --- what happens to connections ----------------------------------------------------------

    def arrive(self, address: str, *, begin: Callable[[], None], end: Callable[[], None]) -> Peer:
        """A connection was accepted; another one may have to go for it."""
        peer = Peer(source=source_of(address), admission=self, begin=begin, end=end)
        self._enter(peer, Stage.WAITING)
        own = self._waiting.setdefault(peer.source, {})
        own[peer] = None
        if len(own) > self.limits.waiting_per_source:
            self._evict(next(iter(own)), "waiting-source")
        elif len(self._rooms[Stage.WAITING]) > self.limits.waiting:
            biggest = max(
                self._waiting.items(), key=lambda item: (len(item[1]), item[0] not in self._known)
            )
            self._evict(next(iter(biggest[1])), "waiting")
        return peer

    def end_late(self, silent_s: float, waiting_s: float) -> None:
        """End those that have been silent, or have waited for a place, for too long."""
        now_s = self._monotonic()
        for peer in list(self._rooms[Stage.WAITING]):
            age_s = now_s - peer.since_s
            if age_s < silent_s:
                return  # they are in the order of their arrival
            if age_s >= waiting_s or not peer.spoke:
                self._evict(peer, "silent")

    def spoke(self, peer: Peer) -> None:
        """Its first bytes have arrived: it can begin."""
        peer.spoke = True
        known = peer.source in self._known
        self._ready[known].setdefault(peer.source, {})[peer] = None

    def next_ready(self) -> Peer | None:
        """Whose handshake may begin now: known sources first, of these the least served."""
        served: Counter[str] | None = None
        for known in (True, False):
            ready = self._ready[known]
            if not ready or not (known or self._earn() >= 1):
                continue
            served = served or Counter(map(_source, self._strangers()))
            some = list(islice(ready, _LOOKED_AT))
            for source in heapq.nsmallest(_TRIED, some, key=served.__getitem__):
                peer = next(iter(ready[source]))
                if self._make_room(peer):
                    self._credit -= not known
                    self._enter(peer, Stage.HANDSHAKE)
                    return peer
        return None

    @property
    def anyone_ready(self) -> bool:
        """Whether there are some that could begin and wait for a place."""
        return any(self._ready.values())

    def opened(self, peer: Peer) -> bool:
        """Its handshake is done; False if it was evicted meanwhile."""
        if peer.stage is Stage.GONE:
            return False
        self._enter(peer, Stage.OPEN)
        return True

    def proven(self, peer: Peer, user: str) -> None:
        self._known[peer.source] = None
        self._known.move_to_end(peer.source)
        if len(self._known) > _KNOWN_SOURCES:
            self._known.popitem(last=False)
        if peer.user == user or peer.stage is not Stage.OPEN:
            return
        users = [p for p in self._rooms[Stage.OPEN] if p.user is not None and p is not peer]
        own = [p for p in users if p.user == user]
        if len(own) >= self.limits.per_user and not self._evict_idle(own, "user"):
            raise ApiError(
                ErrorCode.RATE_LIMITED,
                f"{self.limits.per_user} connections of the token {user} are open; close some.",
                retry_after_s=1,
            )
        if len(users) >= self.limits.users:
            biggest = _of_biggest(users, lambda p: p.user or "")
            if len(biggest) <= len(own) or not self._evict_idle(biggest, "users"):
                raise ApiError(
                    ErrorCode.UNAVAILABLE,
                    f"{self.limits.users} connections are open already; try again in a moment.",
                    retry_after_s=1,
                )
        peer.user = user
        peer.trusted()

    def gone(self, peer: Peer) -> None:
        """It is closed."""
        if peer.stage is not Stage.GONE:
            self.ended += peer.stage is not Stage.WAITING
            self._leave(peer)
            peer.stage = Stage.GONE

    # --- what is known ------------------------------------------------------------------------

    def count(self, stage: Stage, *, users: bool | None = None) -> int:
        """The number in a stage; only of users or of strangers if requested."""
        room = self._rooms[stage]
        if users is None:
            return len(room)
        return sum((peer.user is not None) is users for peer in room)

    def everyone(self) -> list[Peer]:
        """Every connection that there is."""
        return [peer for room in self._rooms.values() for peer in room]

    # --- rooms --------------------------------------------------------------------------------

    def _enter(self, peer: Peer, stage: Stage) -> None:
        self._leave(peer)
        peer.stage = stage
        peer.since_s = self._monotonic()
        self._rooms[stage][peer] = None

    def _earn(self) -> float:
        """What of the rate of handshakes is left."""
        moment_s = self._monotonic()
        earned = (moment_s - self._credited_s) * self.limits.handshakes_per_second
        self._credit = min(float(self.limits.handshakes), self._credit + earned)
        self._credited_s = moment_s
        return self._credit

    def _leave(self, peer: Peer) -> None:
        self._rooms[peer.stage].pop(peer, None)
        for room in (self._waiting, *self._ready.values()):
            own = room.get(peer.source)
            if own is not None:
                own.pop(peer, None)
                if not own:
                    del room[peer.source]

    def _strangers(self) -> list[Peer]:
        """Those that count for their source, oldest first."""
        opened = [peer for peer in self._rooms[Stage.OPEN] if peer.user is None]
        return [*opened, *self._rooms[Stage.HANDSHAKE]]

    def _make_room(self, peer: Peer) -> bool:
        limits, known = self.limits, peer.source in self._known
        strangers = self._strangers()
        own = [other for other in strangers if other.source == peer.source]
        most = limits.per_known_source if known else limits.per_source
        if len(own) >= most and not self._evict_tired(own, self._patience_s(peer.source), "source"):
            return False
        reserve = limits.known_reserve if known else 0
        if len(strangers) >= limits.strangers + reserve and not self._evict_fairly(
            peer, [other for other in strangers if other.stage is Stage.OPEN], "strangers"
        ):
            return False
        handshakes = self._rooms[Stage.HANDSHAKE]
        if len(handshakes) < limits.handshakes + reserve // 2:
            return True
        return self._evict_fairly(peer, handshakes, "handshakes")

    def _patience_s(self, source: str | None = None) -> float:
        """How long another one keeps its place while many wait, of the source or at all."""
        if source is None:
            crowded = len(self._rooms[Stage.WAITING]) * 2 > self.limits.waiting
        else:
            crowded = len(self._waiting.get(source, ())) * 2 > self.limits.waiting_per_source
        return _CROWDED_PATIENCE_S if crowded else _PATIENCE_S

    def _evict_fairly(self, peer: Peer, room: Iterable[Peer], reason: str) -> bool:
        """Evict one connection for `peer`, of the source that has most; False if that isn't
        possible.
        """
        others = [other for other in room if other.source not in self._known]
        if peer.source in self._known:
            others = others or list(room)
        own = sum(other.source == peer.source for other in others)
        biggest = _of_biggest(others, _source)
        if len(biggest) > own + 1:
            idle = [other for other in biggest if other.idle()]
            return self._evict((idle or biggest)[0], reason)
        # All hold the same: the one that has had the most time goes, if it has had enough.
        return self._evict_tired(others, self._patience_s(), reason)

    def _evict_tired(self, peers: Iterable[Peer], patience_s: float, reason: str) -> bool:
        """Let the idle one go that has been there longest, if that is long enough."""
        over_s = self._monotonic() - patience_s
        tired = [peer for peer in peers if peer.since_s <= over_s and peer.idle()]
        return bool(tired) and self._evict(min(tired, key=lambda peer: peer.since_s), reason)

    def _evict_idle(self, peers: Iterable[Peer], reason: str) -> bool:
        for peer in peers:
            if peer.idle():
                return self._evict(peer, reason)
        return False

    def _evict(self, peer: Peer, reason: str) -> bool:
        self.counters[reason] += 1
        self.gone(peer)
        peer.end()
        return True


def _source(peer: Peer) -> str:
    return peer.source


def _of_biggest(peers: Iterable[Peer], key: Callable[[Peer], str]) -> list[Peer]:
    """Those with the key that most of `peers` share; empty if there are none."""
    groups: dict[str, list[Peer]] = {}
    for peer in peers:
        groups.setdefault(key(peer), []).append(peer)
    return max(groups.values(), key=len, default=[])
