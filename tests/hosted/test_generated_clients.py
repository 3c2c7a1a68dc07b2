"""Clients that generators make of the OpenAPI document build, and get through a whole flow.

Two generators for Python, one for TypeScript (checked strictly), one for Go (by the standard
library alone).
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.framework.generators import (
    GO,
    NODE,
    in_generators_tree,
    openapi_generator,
    openapi_python_client,
)
from tests.framework.hosted import HostedMica
from tests.framework.npm import node_modules
from tests.framework.openapi import DOCUMENT

FLOWS = Path(__file__).parent / "clients"
IMAGE_BYTES = 3 << 20


def environment(host: HostedMica, folder: Path, name: str) -> dict[str, str]:
    """What a flow is told."""
    address, _, port = host.address.removeprefix("https://").rpartition(":")
    certificate = folder / "mica.pem"
    certificate.write_text(ssl.get_server_certificate((address, int(port))))
    image = folder / "image.raw"
    image.write_bytes(os.urandom(IMAGE_BYTES))
    assert host.token is not None
    return {
        "MICA_ADDRESS": host.address,
        "MICA_CERTIFICATE": str(certificate),
        "MICA_TOKEN": host.token,
        "MICA_NAME": name,
        "MICA_FOLDER": str(host.datastore_folder(name)),
        "MICA_IMAGE": str(image),
    }


def python_flow(host: HostedMica, folder: Path, name: str, made: Path) -> None:
    """Run a flow in Python beside the package that was made for it."""
    flow = FLOWS / f"{name.replace('-', '_')}_flow.py"
    done = subprocess.run(
        [sys.executable, str(flow)],
        env={**os.environ, **environment(host, folder, name), "PYTHONPATH": str(made)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "done\n", done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_openapi_python_client(host: HostedMica, tmp_path: Path) -> None:
    said = openapi_python_client(tmp_path / "made_client")
    assert "WARNING" not in said, said
    python_flow(host, tmp_path, "openapi-python-client", tmp_path)


@pytest.mark.timeout(600)
def test_openapi_generator_for_python(host: HostedMica, tmp_path: Path) -> None:
    openapi_generator("python", tmp_path / "made", packageName="mica_client")
    python_flow(host, tmp_path, "openapi-generator", tmp_path / "made")


@pytest.mark.timeout(600)
def test_openapi_generator_for_go(host: HostedMica, tmp_path: Path) -> None:
    made = tmp_path / "flow" / "made"
    # Without the prefix, the values of two sets would have one name.
    openapi_generator("go", made, packageName="mica", enumClassPrefix="true", withGoMod="false")
    flow = made.parent
    shutil.copy(FLOWS / "flow.go", flow)
    (flow / "go.mod").write_text("module mica.example/flow\n\ngo 1.19\n")
    in_generators_tree([GO, "build", "-C", flow, "-o", flow / "flow", "."], folder=flow)
    told = environment(host, flow, "go")
    done = in_generators_tree([flow / "flow"], folder=flow, readable=(host.folder,), env=told)
    assert done == "done\n"


@pytest.mark.timeout(600)
def test_openapi_typescript(host: HostedMica, tmp_path: Path) -> None:
    modules = node_modules(FLOWS / "package-lock.json", tmp_path)
    for name in ("flow.ts", "package.json"):
        shutil.copy(FLOWS / name, tmp_path)
    cli = modules / "openapi-typescript/bin/cli.js"
    in_generators_tree(
        [NODE, cli, DOCUMENT, "-o", tmp_path / "mica.ts"],
        folder=tmp_path,
        readable=(DOCUMENT.parent,),
    )
    in_generators_tree(
        [
            *(NODE, modules / "typescript/bin/tsc", "--strict", "--noUncheckedIndexedAccess"),
            *("--exactOptionalPropertyTypes", "--target", "es2022", "--module", "nodenext"),
            *("--types", "node", "--typeRoots", modules / "@types"),
            *("--outDir", tmp_path / "out", tmp_path / "flow.ts"),
        ],
        folder=tmp_path,
    )
    (tmp_path / "out/package.json").write_text('{"type": "module"}\n')
    told = environment(host, tmp_path, "typescript")
    told["NODE_EXTRA_CA_CERTS"] = told["MICA_CERTIFICATE"]
    done = in_generators_tree([NODE, tmp_path / "out/flow.js"], folder=tmp_path, env=told)
    assert done == "done\n"
