"""Generators of API clients, and what builds and runs what they make.

openapi-python-client and openapi-generator are wheels (the latter is a Java program); the
TypeScript tools come from npm. Java, Node.js and Go are Debian's, in a tree of their own.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance_build.inputs.cache import cache_root
from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs
from tests.framework.openapi import DOCUMENT

__all__ = ["GO", "NODE", "in_generators_tree", "openapi_generator", "openapi_python_client"]

GO = "/usr/lib/go-1.24/bin/go"
NODE = "/usr/bin/node"
_JAVA = "/usr/lib/jvm/java-21-openjdk-amd64/bin/java"
_TIMEOUT_S = 600
_PYTHON_OPTIONS = """\
post_hooks: []
content_type_overrides:
  application/offset+octet-stream: application/octet-stream
  image/png: application/octet-stream
"""
"""It has no types of its own for the bytes of tus and of pictures; it sends the documented ones."""


def openapi_python_client(package: Path) -> str:
    """Make a Python package of the document with openapi-python-client; what it says."""
    options = package.with_suffix(".yml")
    options.write_text(_PYTHON_OPTIONS)
    argv = [
        *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"),
        *("--path", str(DOCUMENT), "--output-path", str(package), "--config", str(options)),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def openapi_generator(language: str, folder: Path, **options: str) -> str:
    """Make a client of the document with openapi-generator; what it says."""
    found = importlib.util.find_spec("openapi_generator_cli")
    assert found is not None
    assert found.origin is not None
    jar = Path(found.origin).with_name("openapi-generator.jar")
    properties = ",".join(f"{name}={value}" for name, value in options.items())
    return in_generators_tree(
        [
            # For a program of a few seconds: a quick compiler, and one thread for its garbage.
            *(_JAVA, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar", jar),
            *("generate", "-g", language, "-i", DOCUMENT, "-o", folder),
            "--global-property=apiDocs=false,modelDocs=false,apiTests=false,modelTests=false",
            f"--additional-properties={properties}",
        ],
        folder=folder,
        readable=(jar.parent, DOCUMENT.parent),
    )


def in_generators_tree(
    argv: Sequence[str | Path],
    *,
    folder: Path,
    readable: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program of the tree with Java, Node.js and Go; it may write to `folder` and a cache."""
    cache = cache_root() / "go-build"
    cache.mkdir(exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    sandbox = ToolsSandbox(
        inputs.tools(), system=inputs.generators(), readable=readable, writable=(folder, cache)
    )
    words = [f"{name}={value}" for name, value in (env or {}).items()]
    go = (f"GOCACHE={cache}", "GOPROXY=off", "GOFLAGS=-mod=mod", "CGO_ENABLED=0", "HOME=/tmp")
    return sandbox.run(["/usr/bin/env", *go, *words, *argv], timeout_s=_TIMEOUT_S)
