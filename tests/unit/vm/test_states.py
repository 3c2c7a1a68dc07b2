"""Which request is legal where: properties of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.model import ErrorCode, MicaError, VmAction, VmState
from vmkernel.vm.states import ACTIVE, LEGAL, OFF, VmRequest, check_legal, is_legal, request_of

states = st.sampled_from(VmState)
requests = st.sampled_from(VmRequest)


def test_every_request_has_a_line() -> None:
    assert set(LEGAL) == set(VmRequest)


def test_every_action_is_a_request() -> None:
    assert {request_of(action).value for action in VmAction} == {a.value for a in VmAction}


@given(states)
def test_off_or_active(state: VmState) -> None:
    assert (state in OFF) != (state in ACTIVE)


@given(states)
def test_never_two_qemus(state: VmState) -> None:
    """Nothing that may have a QEMU can be started, deleted or get other hardware."""
    if state in ACTIVE:
        for request in (VmRequest.START, VmRequest.DELETE, VmRequest.RECONFIGURE):
            assert not is_legal(request, state)


@given(states)
def test_always_a_way_out(state: VmState) -> None:
    """Whatever has a QEMU can be powered off; whatever has none can be deleted."""
    assert is_legal(VmRequest.POWER_OFF if state in ACTIVE else VmRequest.DELETE, state)


@given(requests)
def test_unusable_can_only_be_deleted(request: VmRequest) -> None:
    assert is_legal(request, VmState.UNUSABLE) == (request is VmRequest.DELETE)


@given(requests, states)
def test_refusal_is_a_conflict_that_tells_the_way(request: VmRequest, state: VmState) -> None:
    if is_legal(request, state):
        check_legal("web", request, state)
        return
    with pytest.raises(MicaError) as caught:
        check_legal("web", request, state)
    problem = caught.value.problem
    assert problem.code in (ErrorCode.CONFLICT, ErrorCode.ALREADY_IN_STATE)
    assert "web" in problem.detail
    assert state.value in problem.detail


@pytest.mark.parametrize(
    ("request_", "state"),
    [
        (VmRequest.START, VmState.RUNNING),
        (VmRequest.START, VmState.STARTING),
        (VmRequest.PAUSE, VmState.PAUSED),
        (VmRequest.RESUME, VmState.RUNNING),
        (VmRequest.SHUTDOWN, VmState.STOPPED),
        (VmRequest.POWER_OFF, VmState.STOPPED),
        (VmRequest.POWER_OFF, VmState.CRASHED),
        (VmRequest.SUSPEND, VmState.SUSPENDED),
        (VmRequest.DISCARD_STATE, VmState.STOPPED),
    ],
)
def test_what_would_change_nothing_is_told_apart(request_: VmRequest, state: VmState) -> None:
    with pytest.raises(MicaError) as caught:
        check_legal("web", request_, state)
    assert caught.value.problem.code is ErrorCode.ALREADY_IN_STATE
    with pytest.raises(MicaError) as caught:
        check_legal("web", VmRequest.RESET, VmState.STOPPED)
    assert caught.value.problem.code is ErrorCode.CONFLICT
