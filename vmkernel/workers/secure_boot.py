"""Look at the Secure Boot keys in a guest's firmware variables, and add those that are missing.

JOB: source (descriptor), target (descriptor or None), keys: a list of {variable, replaces_sha256,
certificate}. Outcome: missing (numbers of the keys), revoked (entries of dbx; None if there is no
dbx). A key is missing if the variable has the one that it replaces and not itself. With a target,
the flash file with the missing ones goes there.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vmkernel.workers.report import Refusal, run
from vmkernel.workers.varstore import (
    Store,
    StoreError,
    certificates,
    count_signatures,
    with_certificate,
)

__all__ = ["Key", "add_keys", "main", "missing_keys"]

FLASH_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Key:
    """A certificate, and the one whose place it takes."""

    variable: str
    replaces_sha256: str
    certificate: bytes

    @classmethod
    def of(cls, given: Any) -> Key:
        """From its form in a job, or in firmware.guest_firmware."""
        return cls(
            given["variable"], given["replaces_sha256"], base64.b64decode(given["certificate"])
        )


def missing_keys(store: Store, keys: Sequence[Key]) -> list[int]:
    """The numbers of those that are missing. Raises StoreError."""
    there = {key.variable: certificates(store.find(key.variable)) for key in keys}
    return [
        number
        for number, key in enumerate(keys)
        if key.replaces_sha256 in there[key.variable]
        and hashlib.sha256(key.certificate).hexdigest() not in there[key.variable]
    ]


def add_keys(image: bytes, keys: Sequence[Key]) -> bytes:
    """A flash file with the missing keys; the same one if none is. Raises StoreError."""
    store = Store.parse(image)
    missing = missing_keys(store, keys)
    if not missing:
        return image
    for number in missing:
        key = keys[number]
        variable = store.find(key.variable)
        assert variable is not None
        store = store.put(with_certificate(variable, key.certificate))
    return store.packed()


def _work(job: dict[str, Any]) -> dict[str, Any]:
    keys = [Key.of(given) for given in job["keys"]]
    image = os.pread(job["source"], FLASH_MAX_BYTES + 1, 0)
    try:
        store = Store.parse(image)
        revoked = store.find("dbx")
        outcome = {
            "missing": missing_keys(store, keys),
            "revoked": None if revoked is None else count_signatures(revoked),
        }
        if job["target"] is not None:
            new = add_keys(image, keys)
            done = 0
            while done < len(new):
                done += os.pwrite(job["target"], new[done:], done)
    except StoreError as error:
        raise Refusal(
            "invalid", f"The guest's firmware variables can't be used: {error}."
        ) from error
    return outcome


def main(argv: list[str]) -> int:
    return run(_work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
