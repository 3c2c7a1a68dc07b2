"""Who gets a place when connections are many."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_api.http.sources import source_of
from remote_api.schema import ApiError
from remote_api.server.admission import Admission, Limits, Peer, Stage

SMALL = Limits(
    waiting=12,
    waiting_per_source=6,
    handshakes=4,
    strangers=8,
    per_source=3,
    per_known_source=5,
    known_reserve=2,
    users=6,
    per_user=3,
)


class World:
    """An admission with a clock, and what became of its connections."""

    def __init__(self, limits: Limits = SMALL) -> None:
        self.now_s = 0.0
        self.admission = Admission(limits, monotonic=lambda: self.now_s)
        self.ended: list[Peer] = []
        self.begun: list[Peer] = []

    def arrive(self, address: str, *, ready: bool = True) -> Peer:
        """A connection, whose first bytes are here."""
        peer = self.admission.arrive(
            address, begin=lambda: self.begun.append(peer), end=lambda: self.ended.append(peer)
        )
        if ready and peer.stage is Stage.WAITING:
            self.admission.spoke(peer)
        return peer

    def promote(self) -> list[Peer]:
        """All that may begin now."""
        begun = []
        while (peer := self.admission.next_ready()) is not None:
            begun.append(peer)
        return begun

    def open(self, address: str, *, user: str | None = None, busy: bool = False) -> Peer:
        """A connection that is through its handshake."""
        peer = self.arrive(address)
        assert peer in self.promote()
        assert self.admission.opened(peer)
        peer.idle = lambda: not busy
        if user is not None:
            peer.proven(user)
        return peer

    def check(self) -> None:
        """No room holds more than its limit."""
        limits, admission = self.admission.limits, self.admission
        assert admission.count(Stage.WAITING) <= limits.waiting
        assert admission.count(Stage.HANDSHAKE) <= limits.handshakes + limits.known_reserve // 2
        strangers = admission.count(Stage.OPEN, users=False) + admission.count(Stage.HANDSHAKE)
        assert strangers <= limits.strangers + limits.known_reserve
        assert admission.count(Stage.OPEN, users=True) <= limits.users
        assert not set(admission.everyone()) & set(self.ended)


def test_one_source_holds_what_it_may_and_no_more() -> None:
    world = World()
    for _ in range(50):
        world.arrive("192.0.2.1")
        world.promote()
        world.check()
    assert world.admission.count(Stage.HANDSHAKE) == SMALL.per_source
    assert world.admission.count(Stage.WAITING) == SMALL.waiting_per_source


def test_a_source_that_fills_a_room_keeps_nobody_out() -> None:
    world = World()
    for source in range(4):
        for _ in range(40):
            world.arrive(f"192.0.2.{source}")
            world.promote()
    world.now_s += 0.25
    late = world.arrive("198.51.100.7")
    assert late in world.promote()
    assert world.admission.opened(late)
    for source in range(4):
        for _ in range(40):
            world.arrive(f"192.0.2.{source}")
            world.promote()
            world.check()
    assert late not in world.ended


def test_many_sources_with_one_each_give_way_to_a_known_one_at_once() -> None:
    world = World()
    user = world.open("198.51.100.7", user="root")
    world.admission.gone(user)
    for source in range(100):
        world.arrive(f"203.0.113.{source}")
        world.promote()
        world.check()
    back = world.arrive("198.51.100.7")
    assert back in world.promote()


def test_users_behind_one_address_do_not_count_for_it() -> None:
    world = World()
    users = [world.open("192.0.2.1", user=f"user-{n % 3}", busy=True) for n in range(6)]
    assert world.admission.count(Stage.OPEN, users=True) == 6
    assert world.open("192.0.2.1") not in world.ended
    assert not set(users) & set(world.ended)


def test_a_user_loses_idle_connections_to_new_ones_and_busy_ones_never() -> None:
    world = World()
    first = world.open("192.0.2.1", user="root")
    busy = [world.open("192.0.2.1", user="root", busy=True) for _ in range(2)]
    new = world.open("192.0.2.1", user="root", busy=True)
    assert world.ended == [first]
    with pytest.raises(ApiError, match="token root") as refusal:
        world.open("192.0.2.1", user="root")
    assert refusal.value.status == 429
    assert not {*busy, new} & set(world.ended)
    assert world.open("192.0.2.1", user="other").user == "other"


def test_one_user_cannot_take_all_places_of_users() -> None:
    world = World()
    for n in range(6):
        world.open("192.0.2.1", user=f"greedy-{n // 3}")
    late = world.open("192.0.2.9", user="late")
    assert late.user == "late"
    assert len(world.ended) == 1
    assert world.ended[0].user in ("greedy-0", "greedy-1")


def test_an_idle_stranger_goes_before_a_busy_one() -> None:
    world = World()
    busy = world.open("192.0.2.1", busy=True)
    idle = [world.open("192.0.2.1") for _ in range(2)]
    world.now_s += 2
    assert world.arrive("192.0.2.1") in world.promote()
    assert world.ended == [idle[0]]
    assert busy not in world.ended


def test_a_burst_from_one_source_is_served_in_turn() -> None:
    world = World()
    burst = [world.arrive("192.0.2.1") for _ in range(6)]
    served: list[Peer] = []
    while begun := world.promote():
        for peer in begun:
            world.now_s += 0.05
            assert world.admission.opened(peer)
            peer.proven(f"user-{len(served) // 3}")
            served.append(peer)
    assert served == burst
    assert world.ended == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arrive", "silent", "promote", "open", "prove", "leave", "wait"]),
            st.integers(0, 30),
        ),
        max_size=120,
    )
)
def test_no_room_ever_holds_more_than_its_limit(steps: list[tuple[str, int]]) -> None:
    world = World()
    for step, number in steps:
        everyone = world.admission.everyone()
        chosen = everyone[number % len(everyone)] if everyone else None
        if step in ("arrive", "silent"):
            world.arrive(f"192.0.2.{number % 7}", ready=step == "arrive")
        elif step == "promote":
            world.promote()
        elif step == "wait":
            world.now_s += number / 10
        elif chosen is not None and step == "leave":
            world.admission.gone(chosen)
        elif chosen is not None and step == "open" and chosen.stage is Stage.HANDSHAKE:
            world.admission.opened(chosen)
        elif chosen is not None and step == "prove":
            with contextlib.suppress(ApiError):
                chosen.proven(f"user-{number % 4}")
        world.check()


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_sources(address: str, source: str) -> None:
    assert source_of(address) == source
