"""Problems: each leads to a page that explains it, and each field's fault has a code."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta

from remote_api.schema import PROBLEM_CODES, PROBLEM_KINDS
from remote_api.schema.violations import examined
from tests.framework.asgi import request
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import served
from vmkernel.model import ErrorCode, FieldCode, FieldError, MicaError, Record

STRANGER = None
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_each_kind_is_explained_in_sentences() -> None:
    assert set(PROBLEM_KINDS) == {code.value for code in PROBLEM_CODES}
    for kind in PROBLEM_KINDS.values():
        for text in (kind.meaning, kind.advice):
            assert text[0].isupper(), text
            assert text.endswith("."), text
            assert len(text.split()) >= 3, text


@on_loop
async def test_the_type_of_a_problem_leads_to_its_page(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, application):
        refused = await request(application, "GET", "/v1/nothing", token=STRANGER)
        assert refused.status == 404
        kind = refused.json["type"]
        page = await request(application, "GET", kind, token=STRANGER, headers={"accept": BROWSER})
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        told = PROBLEM_KINDS["not-found"]
        assert f"<h1>{told.title}</h1>" in page.body.decode()
        for accept in ({}, {"accept": "application/json"}, {"accept": "*/*"}):
            answer = await request(application, "GET", kind, token=STRANGER, headers=accept)
            assert answer.headers["content-type"] == "application/json"
            assert (answer.json["code"], answer.json["advice"]) == ("not-found", told.advice)
        listed = await request(application, "GET", "/v1/problems", token=STRANGER)
        assert {each["code"] for each in listed.json["items"]} == set(PROBLEM_KINDS)
        unknown = await request(application, "GET", "/v1/problems/sunny", token=STRANGER)
        assert (unknown.status, unknown.problem) == (404, "not-found")


class Sort(StrEnum):
    """Values to choose from."""

    PLAIN = "plain"
    FANCY = "fancy"


class Wire(Record, frozen=True, kw_only=True):
    """One field of each kind."""

    needed: int
    small: Annotated[int, Meta(ge=1, le=4)] = 1
    steps: Annotated[int, Meta(multiple_of=512)] = 512
    text: Annotated[str, Meta(min_length=2, max_length=4)] = "ab"
    form: Annotated[str, Meta(pattern=r"^[a-z]*$")] = ""
    items: Annotated[tuple[int, ...], Meta(max_length=2)] = ()
    sort: Sort = Sort.PLAIN


@pytest.mark.parametrize(
    ("field", "value", "code", "parameters"),
    [
        ("small", 0, FieldCode.TOO_SMALL, {"limit": 1}),
        ("small", 5, FieldCode.TOO_LARGE, {"limit": 4}),
        ("small", "5", FieldCode.WRONG_TYPE, {"expected": "int", "found": "str"}),
        ("steps", 513, FieldCode.NOT_A_MULTIPLE, {"limit": 512}),
        ("text", "a", FieldCode.TOO_SHORT, {"limit": 2}),
        ("text", "abcde", FieldCode.TOO_LONG, {"limit": 4}),
        ("form", "A", FieldCode.WRONG_FORM, {}),
        ("items", [1, 2, 3], FieldCode.TOO_LONG, {"limit": 2}),
        ("sort", "odd", FieldCode.NOT_ALLOWED, {"allowed": "plain, fancy"}),
        ("item", 1, FieldCode.UNKNOWN, {"similar": "items"}),
    ],
)
def test_a_fault_has_a_code_and_its_values(
    field: str, value: Any, code: FieldCode, parameters: dict[str, Any]
) -> None:
    _, found = examined({"needed": 1, field: value}, Wire)
    assert [(each.pointer, each.code, each.parameters) for each in found] == [
        (f"/{field}", code, parameters)
    ]
    if "limit" in parameters:
        assert str(parameters["limit"]) in found[0].detail


def test_a_missing_field_is_required() -> None:
    _, found = examined({}, Wire)
    assert [(each.pointer, each.code) for each in found] == [("/needed", FieldCode.REQUIRED)]


def test_the_vmkernels_faults_have_the_code_of_the_failure() -> None:
    in_use = MicaError.field("/spec/disks/0", "Disk a is used by VM b.", ErrorCode.IN_USE)
    other = MicaError.field("/spec/name", "Wrong.")
    assert [each.problem.fields[0].code for each in (in_use, other)] == [
        FieldCode.IN_USE,
        FieldCode.INVALID,
    ]
    assert FieldError(pointer="/a", detail="b").parameters == {}
