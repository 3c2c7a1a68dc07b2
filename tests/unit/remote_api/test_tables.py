"""Tables of the command: aligned, whole ids, in terminals and pipes; sorting; YAML."""

from __future__ import annotations

import importlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_api.client.cli.output import ordered
from remote_api.client.cli.tables import fitted, sort_key, table_lines, width_of
from remote_api.client.cli.yaml_text import yaml_text

yaml = importlib.import_module("yaml")
TITLES = ("ID", "STATE", "REASON")
ID = "01a208ac3fc4-000000000001"


def test_columns_are_aligned_and_a_pipe_gets_everything() -> None:
    words = ("STATE", "failed", "running")
    rows = [(ID, "failed", "x" * 300), ("web", "running", "-")]
    lines = table_lines(TITLES, rows, headers=True, most=None)
    assert len({line.index(word) for line, word in zip(lines, words, strict=True)}) == 1
    assert lines[1].endswith("x" * 300)
    assert table_lines(TITLES, rows, headers=False, most=None) == lines[1:]


@pytest.mark.parametrize("columns", [20, 40, 60, 80])
def test_a_narrow_terminal_cuts_free_text_and_never_an_id(columns: int) -> None:
    rows = [(ID, "failed", "the disk is full " * 9)]
    (line,) = table_lines(TITLES, rows, headers=False, most=columns)
    assert line.startswith(ID)
    if columns >= len(ID) + 2 * 2 + 2 * 8:
        assert width_of(line) <= columns
        assert line.endswith("...")


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=9), st.integers(1, 300), st.integers(0, 20)
)
def test_widths_fit_or_are_at_their_least(widths: list[int], most: int, title: int) -> None:
    least = [min(title, width) for width in widths]
    found = fitted(widths, least, most)
    assert found[0] == widths[0]
    assert all(now <= before for now, before in zip(found, widths, strict=True))
    assert all(
        now >= min(before, max(8, floor))
        for now, before, floor in zip(found, widths, least, strict=True)
    )
    if sum(found) + 2 * (len(found) - 1) > most:
        assert all(now <= max(8, floor) for now, floor in zip(found[1:], least[1:], strict=True))


@given(st.text(max_size=30), st.integers(1, 12))
def test_wide_characters_keep_the_columns_aligned(text: str, columns: int) -> None:
    text = "".join(re.findall(r"[^\W_]", text))
    lines = table_lines(("A", "B"), [("x", text + "z"), ("y", "b")], headers=True, most=columns)
    assert len({width_of(line[:3]) for line in lines}) == 1


def test_sorting_is_by_value_and_nothing_comes_last() -> None:
    sizes = ["1.5 GiB", "768 MiB", "-", "2 TiB", "9 B"]
    ascending = ["9 B", "768 MiB", "1.5 GiB", "2 TiB", "-"]
    assert ordered(sizes, str, reverse=False) == ascending
    assert ordered(sizes, str, reverse=True) == [*reversed(ascending[:-1]), "-"]
    assert ordered(["10", "9", "x"], str, reverse=False) == ["9", "10", "x"]
    assert sort_key("b") > sort_key("A")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
WORDS = (
    "yes",
    "No",
    "on",
    "null",
    "~",
    "1",
    "1.0",
    "0x1f",
    "1e3",
    "2026-01-01",
    "a: b",
    "- a",
    "#",
)


@given(JSON | st.dictionaries(st.sampled_from(WORDS), st.sampled_from(WORDS)))
def test_yaml_says_what_json_says(value: object) -> None:
    assert yaml.safe_load(yaml_text(value)) == json.loads(json.dumps(value))


def test_yaml_is_readable() -> None:
    value = {"id": "web", "spec": {"disks": [{"key": "disk0"}], "labels": {}, "tpm": True}}
    assert yaml_text(value).splitlines() == [
        "id: web",
        "spec:",
        "  disks:",
        "  - key: disk0",
        "  labels: {}",
        "  tpm: true",
    ]
