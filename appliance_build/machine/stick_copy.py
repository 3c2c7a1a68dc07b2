"""The stick that is powered on: a copy of the built image which keeps its state partition.

A new image takes the place of the old one, as an upgrade would; the state partition is carried
over, so that the machine keeps its name, key, claim and datastores.
"""

import os
import shutil
from pathlib import Path

from appliance_build.assemble.stick import ESP_BYTES, ESP_OFFSET, STATE_BYTES
from appliance_build.inputs.archive import file_digest
from appliance_build.inputs.run import run

__all__ = ["prepare_stick"]

STATE_OFFSET = ESP_OFFSET + ESP_BYTES


def _sparse_copy(source: Path, target: Path) -> None:
    run(["cp", "--sparse=always", "--reflink=auto", source, target], timeout_s=300)


def prepare_stick(image: Path, folder: Path, *, fresh: bool) -> Path:
    """Return the copy to use; with ``fresh`` an earlier one is forgotten."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    stick, note = folder / "stick.img", folder / "stick.sha256"
    digest = file_digest(image)
    if stick.exists() and note.exists() and note.read_text() == digest:
        return stick
    state = b""
    if stick.exists():
        with stick.open("rb") as file:
            file.seek(STATE_OFFSET)
            state = file.read(STATE_BYTES)
    temporary = folder / "stick.new"
    _sparse_copy(image, temporary)
    if state:
        with temporary.open("r+b") as file:
            file.seek(STATE_OFFSET)
            file.write(state)
            os.fsync(file.fileno())
    temporary.rename(stick)
    note.write_text(digest)
    return stick
