"""A scrollback that is shown again makes no terminal answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.vm.guest.replay import Replay

QUESTIONS = [
    b"\x1b[6n",
    b"\x1b[5n",
    b"\x1b[?6n",
    b"\x1b[?15n",
    b"\x1b[?996n",
    b"\x1b[c",
    b"\x1b[0c",
    b"\x1b[>c",
    b"\x1b[>0;95c",
    b"\x1b[=c",
    b"\x1b[x",
    b"\x1b[1x",
    b"\x1b[?25$p",
    b"\x1b[4$p",
    b"\x1b[>q",
    b"\x1b[>0q",
    b"\x1b[?u",
    b"\x1b[?4m",
    b"\x1b[14t",
    b"\x1b[18t",
    b"\x1b[21t",
    b"\x1b[1$w",
    b"\x1b[1$u",
    b"\x1b[1;1;1;1;1;1*y",
    b"\x1b['|",
    b"\x1b[&u",
    b"\x1b[#|",
    b"\x1b[#R",
    b'\x1b["v',
    b"\x1b[?1;1;0S",
    b"\x1b[?1004h",
    b"\x1b[?2048h",
    b"\x1bZ",
    b"\x05",
    b"\x9b6n",
    b"\xc2\x9b6n",
    b"\x9a",
    b"\xc2\x9a",
    b"\x1b]10;?\x07",
    b"\x1b]11;?\x1b\\",
    b"\x1b]4;1;?\x07",
    b"\x1b]52;c;?\x07",
    b"\x1b]1337;ReportCellSize\x07",
    b"\x9d11;?\x9c",
    b"\xc2\x9d11;?\xc2\x9c",
    b"\x1bP$qm\x1b\\",
    b"\x1bP+q544e\x1b\\",
    b"\x90$qm\x9c",
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\",
    b"\x1b^x\x1b\\",
    b"\x1bXx\x1b\\",
]
DISPLAY = [
    b"plain text, \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 too\r\n\t\x07\x08",
    b"\x1b[1;31mred\x1b[0m",
    b"\x1b[2J\x1b[H",
    b"\x1b[10;20H\x1b[K",
    b"\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[?1000;1006h",
    b"\x1b[5;20r\x1b[4h\x1b[s\x1b[u",
    b"\x1b7\x1b8\x1bc\x1b(B\x1b)0\x1b#8\x1b=\x1b>",
    b"\x1b[2 q\x1b[!p",
    b"\x1b]0;a title\x1b\\",
    b"\x1b]8;;https://example.org/a\x1b\\link\x1b]8;;\x1b\\",
]


def _pieces(data: bytes, size: int) -> bytes:
    replay = Replay()
    return b"".join(replay.feed(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 16])
@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_are_left_out(question: bytes, size: int) -> None:
    assert _pieces(b"before" + question + b"after", size) == b"beforeafter"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 16])
@pytest.mark.parametrize("shown", DISPLAY)
def test_the_display_s_controls_stay(shown: bytes, size: int) -> None:
    assert _pieces(shown, size) == shown


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"\x1b[6\r\nnx", b"\r\nx"),  # a control inside acts, and the sequence goes on
        (b"\x1b[6\x7fnx", b"x"),
        (b"\x1b[\x1b[6nx", b"x"),
        (b"\x1b[6\x18nx", b"nx"),
        (b"\x1b]0;t\x1b[6nx", b"x"),
        (b"\x1bP\x1b[cx", b"x"),
        (b"\x1b[?1004;2004hx", b"\x1b[?2004hx"),
        (b"\x1b]0;a\x07b", b"\x1b]0;a\x1b\\b"),
        (b"\x1b]2;\xe2\x9c\x9c ok\x07b", b"\x1b]2;\xe2\x9c\x9c ok\x1b\\b"),
        (b"\xff\x80x", b"x"),
    ],
)
def test_odd_forms(data: bytes, left: bytes) -> None:
    assert _pieces(data, 1 << 16) == left
    assert _pieces(data, 1) == left


def test_it_is_idle_between_sequences_only() -> None:
    replay = Replay()
    assert (replay.feed(b"login: \x1b[6"), replay.idle) == (b"login: ", False)
    assert (replay.feed(b"n"), replay.idle) == (b"", True)


def test_a_string_without_an_end_is_left_out_and_held_nowhere() -> None:
    replay = Replay()
    for _ in range(64):
        assert replay.feed(b"\x1bPq" + b"x" * 8192 if replay.idle else b"y" * 8192) == b""
    assert len(replay._held) <= 4096
    assert not replay.idle
    assert replay.feed(b"\x1b\\after") == b"after"


def _feed_s(octets: bytes, length: int) -> float:
    """The processor's seconds that so many bytes take."""
    began = time.process_time()
    Replay().feed(octets * (length // len(octets)))
    return time.process_time() - began


def test_the_work_grows_with_the_scrollback_and_no_faster() -> None:
    """Four times the bytes take about four times as long; by a quadratic rule they'd take 16."""
    for octets in (
        b"a",
        b"\x1b",
        b"\x1b[m",
        b"\x1b[6n",
        b"\xc2\x9b",
        b"\x1b]",
        b"\xe2\x82",
        b"\x9b;",
    ):
        short = min(_feed_s(octets, 64 << 10) for _ in range(3))
        assert min(_feed_s(octets, 256 << 10) for _ in range(3)) < 10 * short + 0.05, octets


@given(
    st.lists(st.sampled_from([*QUESTIONS, *DISPLAY, b"\x1b", b"[", b"6", b"n", b"\xc2", b"\x18"]))
)
def test_pieces_make_no_difference_and_nothing_is_left_to_ask(parts: list[bytes]) -> None:
    data = b"".join(parts)
    whole = _pieces(data, 1 << 16)
    assert _pieces(data, 1) == whole
    assert Replay().feed(whole) in (whole, whole[:-1]), "what was kept is kept again"
