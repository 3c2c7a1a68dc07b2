"""``python3 -m appliance_build.closure``: computes, writes and explains the allow-list."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from appliance_build.closure import (
    Addition,
    ClosureError,
    ClosureInputs,
    Manifest,
    compute,
    explain,
    materialise,
    write_sbom,
)
from appliance_build.closure.materialise import ModuleFormat
from firmware.device_bundles import BundleError

__all__ = ["main"]


def _addition(text: str) -> Addition:
    path, _, rest = text.partition("=")
    source, _, reason = rest.partition("=")
    if not path.startswith("/") or not source or not reason:
        raise argparse.ArgumentTypeError("expected /image/path=FILE=REASON")
    return Addition(path, Path(source), reason)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="appliance_build.closure", description=__doc__)
    parser.add_argument("--donor", type=Path, action="append", required=True)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--own", type=Path, default=Path())
    parser.add_argument("--overlay", type=Path, action="append", default=[])
    parser.add_argument("--roots", type=Path, required=True)
    parser.add_argument("--bundles", type=Path, default=Path("firmware/device_bundles"))
    parser.add_argument("--bundle", action="append", help="take only the bundles named so")
    parser.add_argument("--tools", type=Path, help="tree with kmod; the donor's is used without")
    parser.add_argument("--add", type=_addition, action="append", default=[])
    parser.add_argument("--out", type=Path, help="the plan, as JSON")
    parser.add_argument("--stage", type=Path, help="write the tree here (emptied first)")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--sbom", type=Path)
    parser.add_argument("--version", default="0", help="the product's version, for the SBOM")
    parser.add_argument(
        "--modules", type=ModuleFormat, choices=list(ModuleFormat), default=ModuleFormat.XZ
    )
    return parser


def _compute(arguments: argparse.Namespace) -> None:
    inputs = ClosureInputs(
        donors=tuple(arguments.donor),
        wheels=arguments.wheels,
        own=arguments.own,
        overlays=tuple(arguments.overlay),
        roots=arguments.roots,
        bundles=arguments.bundles,
        bundle_names=arguments.bundle,
        additions=tuple(arguments.add),
    )
    plan = compute(inputs)
    if arguments.out is not None:
        plan.save(arguments.out)
    if arguments.stage is None:
        return
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    manifest = materialise(
        plan, arguments.stage, tools=arguments.tools, epoch=epoch, module_format=arguments.modules
    )
    if arguments.manifest is not None:
        manifest.save(arguments.manifest)
    if arguments.sbom is not None:
        write_sbom(plan, manifest, arguments.sbom, version=arguments.version, epoch=epoch)
    for part, total in manifest.totals().items():
        print(f"{part:28} {total['files']:6} files {total['bytes'] / 1e6:8.1f} MB")


def main(words: list[str]) -> int:
    """Run one command; the exit status."""
    try:
        if words[:1] == ["why"]:
            manifest = Manifest.load(Path(words[1]))
            print("\n".join(explain(manifest, words[2])))
        else:
            _compute(_parser().parse_args(words))
    except IndexError:
        print("usage: appliance_build.closure why MANIFEST FILE", file=sys.stderr)
        return 2
    except (BundleError, ClosureError) as error:
        print(f"closure: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
