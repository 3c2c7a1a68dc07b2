"""The SDK's and the command's ways to ask for a part of a list."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.sdk import queries
from remote_api.client.sdk.queries import ListQueryBase, parameters_of
from vmkernel.control.lists import wrong_with
from vmkernel.control.requests import REQUESTS, ListRequest
from vmkernel.model import VM_LISTING, Listing, ListQuery

LISTINGS = [kind.LISTING for kind in REQUESTS if issubclass(kind, ListRequest)]


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda each: each.item.__name__)
def test_the_sdk_has_the_columns_of_each_noun(listing: Listing) -> None:
    noun = listing.item.__name__.removesuffix("Record")
    query = getattr(queries, f"{noun}ListQuery")
    own = set(query.__annotations__) - set(ListQueryBase.__annotations__)
    labels = {"label"} if listing.labels else set()
    assert own == {*listing.filters} - {"id"} | labels


def test_what_is_given_becomes_parameters() -> None:
    asked: dict[str, object] = {
        "state": "running,paused",
        "name": ["a,b", "c*", "d\\e"],
        "template": True,
        "datastore": None,
        "label": "env=prod",
        "sort": ["-name", "id"],
    }
    assert parameters_of(asked) == {
        "state": "running,paused",
        "name": "a\\,b,c\\*,d\\\\e",
        "template": "true",
        "datastore": None,
        "label": ["env=prod"],
        "sort": "-name,id",
    }


@given(st.lists(st.text(alphabet="ab,*\\é", max_size=8), min_size=1, max_size=5))
def test_several_texts_are_taken_as_they_are(names: list[str]) -> None:
    text = parameters_of({"name": names})["name"]
    assert isinstance(text, str)
    assert wrong_with(VM_LISTING, ListQuery(filters={"name": text})) == []


def _options(listing: Listing) -> tuple[click.Command, list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []

    def run(**given: Any) -> None:
        found.append(given_query(given))

    for option in reversed(list_options(listing)):
        run = option(run)
    return click.command("list")(run), found


def test_the_command_has_an_option_for_each_column() -> None:
    command, found = _options(VM_LISTING)
    words = ["-l", "env=prod", "--label", "!old", "--state", "running,paused", "--port-group", "a*"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert found == [{"label": ("env=prod", "!old"), "state": "running,paused", "port_group": "a*"}]


def test_the_command_names_the_values_that_are_allowed() -> None:
    command, found = _options(VM_LISTING)
    done = CliRunner().invoke(command, ["--state", "on"])
    assert done.exit_code == 2
    assert "'on' is none of stopped, starting, running" in done.output
    assert found == []


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda each: each.item.__name__)
def test_every_noun_s_options_can_be_made(listing: Listing) -> None:
    command, _ = _options(listing)
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0
