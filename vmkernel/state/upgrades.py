"""The schema of the host configuration and the way from each older one.

Append only: element `n` of UPGRADES turns schema `n + 1` into schema `n + 2`, and is tested on a
stored sample of the former (tests/unit/samples/). Functions work on plain JSON values and may not
use the present types. A field that is added is a new schema too, once a version without it has been
released: unknown fields are refused, and the number lets an older version say why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["SCHEMA", "UPGRADES", "Upgrade", "upgrade"]

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def _one_backing(document: dict[str, Any]) -> dict[str, Any]:
    """2: `partition_uuid` and `group` of a datastore became `backing`, which is its driver's."""
    datastores = []
    for old in document.get("datastores", ()):
        new = {key: old[key] for key in old if key not in {"partition_uuid", "group"}}
        if (backing := old.get("partition_uuid") or old.get("group")) is not None:
            new["backing"] = backing
        datastores.append(new)
    return {**document, "datastores": datastores}


UPGRADES: Sequence[Upgrade] = (_one_backing,)

SCHEMA = len(UPGRADES) + 1


def upgrade(
    schema: int, document: dict[str, Any], upgrades: Sequence[Upgrade] = UPGRADES
) -> dict[str, Any]:
    """Bring a document of an older schema to the present one."""
    if not 1 <= schema <= len(upgrades) + 1:
        raise ValueError(f"schema {schema} is not known")
    for step in upgrades[schema - 1 :]:
        document = step(document)
    return document
