"""Places of which each actor may take a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.model import ErrorCode, MicaError
from vmkernel.operations.places import Places


def _code(places: Places, actor: str) -> ErrorCode | None:
    try:
        places.check(actor)
    except MicaError as error:
        return error.problem.code if error.problem.retry_after_s else ErrorCode.INTERNAL
    return None


def test_who_has_a_part_waits_and_others_are_served() -> None:
    places = Places("things are open", total=4, each=2)
    mine = [places.take("loud") for _ in range(2)]
    with pytest.raises(MicaError, match="2 things are open for the token loud already"):
        places.take("loud")
    assert _code(places, "loud") is ErrorCode.RATE_LIMITED
    places.take("quiet")
    places.take("other")
    assert _code(places, "late") is ErrorCode.UNAVAILABLE
    assert _code(places, "loud") is ErrorCode.RATE_LIMITED, "the nearer reason"
    mine[0]()
    mine[0]()
    assert _code(places, "late") is None
    assert _code(places, "loud") is None
    places.take("late")
    assert _code(places, "loud") is ErrorCode.UNAVAILABLE, "given back once only"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_no_order_of_events_exceeds_a_part(steps: list[tuple[str, bool]]) -> None:
    places = Places("things are open", total=5, each=2)
    held: dict[str, list[Callable[[], None]]] = {actor: [] for actor in "abcd"}
    for actor, take in steps:
        if not take:
            if held[actor]:
                held[actor].pop()()
            continue
        has = Counter({name: len(each) for name, each in held.items()})
        try:
            held[actor].append(places.take(actor))
        except MicaError:
            assert has[actor] == 2 or has.total() == 5
        else:
            assert has[actor] < 2
            assert has.total() < 5
    for each in held.values():
        while each:
            each.pop()()
    assert not places._taken
