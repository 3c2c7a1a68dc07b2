"""The claim code, its file, and what wrong ones cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmkernel.auth.claim import ClaimCode
from vmkernel.auth.claim_file import ClaimFile
from vmkernel.model import ErrorCode, MicaError


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """The present time."""
        return self.seconds


def _code_of(code: ClaimCode, text: str, origin: str = "192.0.2.1") -> ErrorCode | None:
    try:
        code.check(text, origin)
    except MicaError as error:
        return error.problem.code
    return None


def test_a_code_has_fifty_bits_of_an_alphabet_without_lookalikes() -> None:
    codes = {ClaimCode().text for _ in range(200)}
    assert len(codes) == 200
    assert all(len(code) == 11 and code[5] == "-" for code in codes)
    assert not set("".join(codes)) & set("ILOU")


@pytest.mark.parametrize("typed", ["10ABC-2DEF0", "10abc2def0", " ioabc 2defo ", "L0ABC-2DEFO"])
def test_a_code_is_taken_as_people_type_it(typed: str) -> None:
    assert _code_of(ClaimCode("10ABC2DEF0"), typed) is None


def test_wrong_codes_cost_their_origin_more_and_more_time() -> None:
    clock = Clock()
    code = ClaimCode("AAAAABBBBB", monotonic=clock)
    for _ in range(5):
        assert _code_of(code, "wrong", "192.0.2.1") is ErrorCode.UNAUTHENTICATED
    waits = []
    for _ in range(12):
        with pytest.raises(MicaError) as caught:
            code.check("wrong", "192.0.2.1")
        assert caught.value.problem.code is ErrorCode.RATE_LIMITED
        wait = caught.value.problem.retry_after_s
        assert wait is not None
        waits.append(wait)
        fresh = f"198.51.100.{len(waits)}"
        assert _code_of(code, "wrong", fresh) is ErrorCode.UNAUTHENTICATED
        clock.seconds += wait
        assert _code_of(code, "wrong", "192.0.2.1") is ErrorCode.UNAUTHENTICATED
    assert waits == sorted(waits)
    assert waits[-1] in (60, 61)


@pytest.mark.parametrize("origin", ["192.0.2.1", "198.51.100.7", ""])
def test_the_right_code_is_taken_whatever_was_tried(origin: str) -> None:
    code = ClaimCode("AAAAABBBBB", monotonic=Clock())
    for _ in range(100):
        _code_of(code, "wrong", "192.0.2.1")
    assert _code_of(code, "wrong", "192.0.2.1") is ErrorCode.RATE_LIMITED
    assert _code_of(code, "AAAAA-BBBBB", origin) is None


def test_an_ipv6_network_is_one_origin_and_tries_are_forgotten_in_the_end() -> None:
    code = ClaimCode("AAAAABBBBB", monotonic=Clock())
    answers = [_code_of(code, "wrong", f"2001:db8::{n:x}") for n in range(10)]
    assert answers[-1] is ErrorCode.RATE_LIMITED
    for number in range(5000):
        _code_of(code, "wrong", f"2001:db8:0:{number:x}::1")
    assert len(code._tries) <= 1024


def test_the_file_is_for_its_owner_alone_and_goes_with_the_code(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    file = ClaimFile(path)
    code = file.previous()
    file.show(code.text, "ab" * 32)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ClaimFile(path).previous().text == code.text
    file.show(None, "ab" * 32)
    file.show(None, "ab" * 32)
    assert not path.exists()
    assert file.previous().text != code.text


def test_a_broken_file_is_a_new_code(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text("{")
    assert len(ClaimFile(tmp_path / "claim.json").previous().text) == 11
