"""What the closure writes: the tree, the manifest, the chain of reasons, the licences."""

from __future__ import annotations

import hashlib
import json
import lzma
from pathlib import Path

import pytest

from appliance_build.closure.boot_files import BootFiles
from appliance_build.closure.copyright import debian_licences
from appliance_build.closure.errors import ClosureError, RootsError
from appliance_build.closure.manifest import Manifest, ManifestFile, explain
from appliance_build.closure.materialise import materialise
from appliance_build.closure.packages import DebianPackages, Wheels
from appliance_build.closure.plan import Addition, Origin, Plan, Reason
from appliance_build.closure.sbom import write_sbom
from appliance_build.closure.search import Search
from appliance_build.closure.trees import Layer, Trees
from firmware.device_bundles import load_bundles
from tests.unit.closure.samples import roots_of, search_of, write

WHY = Reason("root", "base.toml", "asked for")
BUNDLE = """
schema = 1
title = "T"
covers = ["c"]
licence = "l"
[drivers]
[[microcode]]
glob = "maker/*.bin"
reason = "processor errata"
"""


def _plan(search: Search, donor: Path) -> Plan:
    return Plan(
        entries=search.entries,
        kernel_release="6.1-test",
        microcode=[],
        kernel_image=None,
        enabled_units=[],
        firmware_waived={},
        notes=[],
        donors=(donor,),
        wheels=None,
    )


def _sample(tmp_path: Path) -> Plan:
    donor = tmp_path / "donor"
    write(donor, "/usr/lib/thing/data", b"data", 0o600)
    (donor / "lib").symlink_to("usr/lib")
    search = search_of(
        donor, roots_of(tmp_path / "roots", '[[mode]]\npath="/etc/made"\nmode="0640"\nreason="r"')
    )
    search.need("/lib/thing/data", WHY)
    search.generate("/etc/made", "content", WHY, content=b"made")
    search.directory("/tmp", 0o1777, WHY)
    search.link("/etc/link", "made", WHY)
    return _plan(search, donor)


def test_the_tree_has_final_modes_links_and_times(tmp_path: Path) -> None:
    manifest = materialise(_sample(tmp_path), tmp_path / "out", epoch=5)
    out = tmp_path / "out"
    assert (out / "usr/lib/thing/data").read_bytes() == b"data"
    assert (out / "usr/lib/thing/data").stat().st_mode & 0o7777 == 0o600
    assert (out / "etc/made").stat().st_mode & 0o7777 == 0o640
    assert (out / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (out / "lib").readlink() == Path("usr/lib")
    assert {path.lstat().st_mtime for path in [out, *out.rglob("*")]} == {5.0}
    assert set(manifest.files) == {"/" + str(path.relative_to(out)) for path in out.rglob("*")}


def test_two_runs_give_the_same_manifest_which_reads_back(tmp_path: Path) -> None:
    plan = _sample(tmp_path)
    materialise(plan, tmp_path / "one").save(tmp_path / "one.json")
    materialise(plan, tmp_path / "two").save(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    loaded = Manifest.load(tmp_path / "one.json")
    loaded.save(tmp_path / "three.json")
    assert (tmp_path / "three.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_what_starts_before_the_root_is_accounted_for(tmp_path: Path) -> None:
    plan = _sample(tmp_path)
    (donor,) = plan.donors
    kernel = write(donor, "/boot/vmlinuz-6.1-test", b"kernel")
    write(donor, "/usr/lib/firmware/maker/cpu.bin", b"microcode")
    module = write(donor, "/usr/lib/modules/6.1-test/erofs.ko.xz", lzma.compress(b"module"))
    write(donor, "/var/lib/dpkg/status", "Package: linux\nVersion: 6.1\n")
    write(donor, "/var/lib/dpkg/info/linux.list", f"/boot/{kernel.name}\n")
    init = write(tmp_path, "init", b"init", 0o755)
    write(tmp_path, "b/cpu/manifest.toml", BUNDLE)
    boot = BootFiles([(donor, DebianPackages(donor))])
    boot.add_kernel(kernel)
    boot.add_made(
        [Addition("/init", init, "starts"), Addition("/modules/00-erofs.ko", module, "r")]
    )
    trees = Trees([Layer(Origin.DONOR, donor)])
    assert boot.add_microcode(trees, load_bundles(tmp_path / "b")) == [
        donor / "usr/lib/firmware/maker/cpu.bin"
    ]
    plan.boot = boot.files
    materialise(plan, tmp_path / "out").save(tmp_path / "manifest.json")
    manifest = Manifest.load(tmp_path / "manifest.json")
    assert {path: (file.size, file.origin) for path, file in manifest.boot.items()} == {
        "/boot/vmlinuz-6.1-test": (6, "debian"),
        "/init": (4, "mica"),
        "/modules/00-erofs.ko": (6, "debian"),
        "/usr/lib/firmware/maker/cpu.bin": (9, "debian"),
    }
    assert explain(manifest, "/boot/vmlinuz-6.1-test") == [
        "/boot/vmlinuz-6.1-test  [linux 6.1]",
        "    boot: mica.efi: the kernel",
    ]
    assert explain(manifest, "/usr/lib/firmware/maker/cpu.bin")[1].endswith("cpu: processor errata")
    with pytest.raises(ClosureError, match=r"there is /boot/vmlinuz-6\.1-test$"):
        explain(manifest, "vmlinuz")
    write_sbom(plan, manifest, tmp_path / "sbom.json")
    listed = json.loads((tmp_path / "sbom.json").read_text())["components"]
    components = {component["name"]: component for component in listed}
    assert components["/init"]["hashes"][0]["content"] == hashlib.sha256(b"init").hexdigest()
    assert components["linux"]["version"] == "6.1"
    assert "/boot/vmlinuz-6.1-test" in components


def test_a_missing_microcode_is_named(tmp_path: Path) -> None:
    write(tmp_path, "b/cpu/manifest.toml", BUNDLE)
    boot = BootFiles([])
    trees = Trees([Layer(Origin.DONOR, tmp_path / "donor")])
    with pytest.raises(ClosureError, match=r"cpu: microcode maker/\*\.bin"):
        boot.add_microcode(trees, load_bundles(tmp_path / "b"))


def _file(path: str, *reasons: tuple[str, str, str], package: str | None = None) -> ManifestFile:
    version = "1-2" if package else None
    return ManifestFile(path, "file", "0644", "debian", reasons, package=package, version=version)


def test_the_chain_starts_at_the_root(tmp_path: Path) -> None:
    files = [
        _file("/a", ("root", "base.toml", "runs guests"), package="qemu"),
        _file("/b", ("elf-needed", "/c", "b"), ("elf-needed", "/a", "libb.so")),
        _file("/c", ("elf-needed", "/b", "c"), ("elf-needed", "/a", "libc.so")),
        _file("/d.pyc", ("python-import", "/b", "d")),
    ]
    manifest = Manifest({file.path: file for file in files}, "6.1", [], {})
    assert explain(manifest, "/d.py") == [
        "/a  [qemu 1-2]",
        "    root: base.toml: runs guests",
        "/c  [debian]",
        "    elf-needed: libc.so",
        "/b  [debian]",
        "    elf-needed: b",
        "/d.pyc  [debian]",
        "    python-import: d",
    ]
    with pytest.raises(ClosureError, match=r"/no/such: is not in the image$"):
        explain(manifest, "/no/such")
    with pytest.raises(ClosureError, match=r"/e/d: is not in the image; there is /d\.pyc$"):
        explain(manifest, "/e/d")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[data]]\nglob = "/x"\n', "reason"),
        ('[[data]]\nglob = "x"\nreason = "r"\n', "glob"),
        ('[[date]]\nglob = "/x"\nreason = "r"\n', "date"),
        ('[[mode]]\npath = "/x"\nmode = "04755"\nreason = "r"\n', "mode"),
        ("=", "sample.toml"),
    ],
)
def test_wrong_roots_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RootsError, match=message):
        roots_of(tmp_path, text)


def test_debian_packages_know_their_files_by_either_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        "/var/lib/dpkg/status",
        "Package: libz\nVersion: 1.3-1\nArchitecture: amd64\nSource: zlib (1.3-0)\n\n"
        "Package: gone\nStatus: deinstall\n",
    )
    write(tmp_path, "/var/lib/dpkg/info/libz:amd64.list", "/.\n/lib\n/lib/libz.so.1\n")
    packages = DebianPackages(tmp_path)
    owner = packages.owner("/usr/lib/libz.so.1")
    assert owner is not None
    assert (owner.name, owner.version, owner.source_version) == ("libz", "1.3-1", "1.3-0")
    assert packages.owner("/usr/lib/other") is None


def test_wheels_know_their_files_and_licence(tmp_path: Path) -> None:
    write(
        tmp_path,
        "thing-1.0.dist-info/METADATA",
        "Name: thing\nVersion: 1.0\nLicense-Expression: MIT\nProject-URL: Homepage, https://t\n",
    )
    write(tmp_path, "thing-1.0.dist-info/RECORD", "thing/__init__.py,sha256=x,1\n")
    owner = Wheels(tmp_path).owner("thing/__init__.py")
    assert owner is not None
    assert (owner.name, owner.version, owner.licence) == ("thing", "1.0", "MIT")
    assert owner.homepage == "https://t"


@pytest.mark.parametrize(
    ("text", "licences"),
    [
        (
            "Format: https://x\nFiles: *\nLicense: GPL-2+ and Expat\n\nLicense: BSD-3-clause\n t",
            ["BSD-3-Clause", "GPL-2.0-or-later", "MIT"],
        ),
        ("Free text; see /usr/share/common-licenses/LGPL-2.1.", ["LGPL-2.1-only"]),
        ("Permission is hereby granted, free of charge", ["MIT"]),
        ("Nothing known", []),
    ],
)
def test_licences(tmp_path: Path, text: str, licences: list[str]) -> None:
    write(tmp_path, "/usr/share/doc/p/copyright", text)
    assert debian_licences(tmp_path, "p") == licences


def test_a_firmware_package_has_the_licences_of_the_files_taken(tmp_path: Path) -> None:
    text = (
        "Format: https://x\n\nFiles: *\nLicense: other\n\n"
        "Files: maker/*\n second/a.fw\nCopyright: c\nLicense: binary-redist-Maker\n"
    )
    write(tmp_path, "/usr/share/doc/p/copyright", text)
    assert debian_licences(tmp_path, "p", ["second/a.fw"]) == ["binary-redist-Maker"]
    assert debian_licences(tmp_path, "p", ["maker/x", "third"]) == ["binary-redist-Maker", "other"]
    assert debian_licences(tmp_path, "p") == ["binary-redist-Maker", "other"]
