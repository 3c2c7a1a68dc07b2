"""Each audit rule fires on a crafted sample, and a sound tree passes them all."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from appliance_build.audit import RULES, AuditTree, audit
from appliance_build.closure.manifest import Manifest, ManifestFile
from tests.framework.elf_sample import ElfSample, modinfo_object
from tests.unit.closure.samples import write

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
MODULES = "/usr/lib/modules/6.1-test"


def _listed(root: Path) -> dict[str, ManifestFile]:
    """A manifest of just what lies in `root`."""
    files: dict[str, ManifestFile] = {}
    for folder, directories, names in os.walk(root):
        for name in [*directories, *names]:
            path = Path(folder) / name
            shown = "/" + str(path.relative_to(root))
            kind = "link" if path.is_symlink() else "directory" if path.is_dir() else "file"
            files[shown] = ManifestFile(
                path=shown,
                kind=kind,
                mode=f"{stat.S_IMODE(path.lstat().st_mode):04o}",
                origin="debian",
                reasons=(("root", "test", "asked for"),),
                sha256=hashlib.sha256(path.read_bytes()).hexdigest() if kind == "file" else None,
                target=str(path.readlink()) if kind == "link" else None,
            )
    return files


def _manifest(root: Path) -> Manifest:
    return Manifest(_listed(root), "6.1-test", [], {})


def _findings(root: Path, manifest: Manifest | None = None) -> list[tuple[str, str]]:
    tree = AuditTree(root, manifest if manifest is not None else _manifest(root))
    return [(finding.rule, finding.path) for finding in audit(tree)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound little tree."""
    root = tmp_path / "root"
    loader = ElfSample(soname="ld.so", versions_defined=["ld.so"])
    library = ElfSample(soname="libc.so.6", versions_defined=["libc.so.6", "C_1", "C_2"])
    program = ElfSample(
        needed=["libc.so.6"], interpreter="/usr/lib64/ld.so", versions_needed={"libc.so.6": ["C_2"]}
    )
    write(root, "/usr/lib64/ld.so", loader.build(), 0o755)
    write(root, f"{LIBRARIES}/libc.so.6", library.build())
    write(root, "/usr/bin/tool", program.build(), 0o755)
    write(root, "/usr/bin/python3", ElfSample().build(), 0o755)
    write(root, "/usr/bin/script", b"#!/usr/bin/python3\n", 0o755)
    write(root, f"{MODULES}/kernel/a.ko", modinfo_object([("firmware", "a.fw")]))
    write(root, f"{MODULES}/modules.builtin", b"kernel/in.ko\n")
    write(root, "/usr/lib/firmware/a.fw", b"f")
    (root / "etc").mkdir()
    (root / "etc/mtab").symlink_to("../proc/self/mounts")
    (root / "bin").symlink_to("usr/bin")
    return root


def test_a_sound_tree_passes(root: Path) -> None:
    assert _findings(root) == []


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("shell", "/usr/bin/sh"),
        ("shell", "/usr/bin/busybox"),
        ("shell", "/opt/zsh"),
        ("login", "/usr/bin/login"),
        ("login", "/usr/sbin/agetty"),
        ("login", "/usr/bin/su"),
        ("login", "/usr/lib/systemd/system/getty@.service"),
        ("login", "/usr/lib/systemd/system/debug-shell.service"),
        ("remote-login", "/usr/sbin/sshd"),
        ("package-manager", "/usr/bin/dpkg"),
        ("package-manager", "/usr/bin/pip3"),
        ("package-manager", "/var/lib/dpkg"),
    ],
)
def test_refused_by_name(root: Path, rule: str, path: str) -> None:
    write(root, path, b"x", 0o755)
    assert (rule, path) in _findings(root)


def test_a_link_named_as_a_shell_is_refused(root: Path) -> None:
    (root / "usr/bin/sh").symlink_to("tool")
    assert _findings(root) == [("shell", "/usr/bin/sh")]


@pytest.mark.parametrize(
    "content",
    [b"BusyBox v1.37", b"OPTIND getopts unalias", b"OpenSSH_9 sshd", b"Dropbear v2"],
)
def test_refused_by_content_under_any_name(root: Path, content: bytes) -> None:
    write(root, "/usr/bin/innocent", ElfSample(extra=content).build(), 0o755)
    assert _findings(root) == [("shell", "/usr/bin/innocent")]


@pytest.mark.parametrize(
    ("head", "mode"),
    [
        (b"#!/bin/sh\n", 0o755),
        (b"#!/bin/sh\n", 0o644),
        (b"#! /usr/bin/env bash\n", 0o755),
        (b"#!/usr/bin/perl\n", 0o755),
    ],
)
def test_scripts_for_other_interpreters_are_refused(root: Path, head: bytes, mode: int) -> None:
    write(root, "/usr/lib/thing", head, mode)
    assert _findings(root) == [("script", "/usr/lib/thing")]


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
def test_setuid(root: Path, mode: int) -> None:
    (root / "usr/bin/tool").chmod(mode)
    assert ("setuid", "/usr/bin/tool") in _findings(root)


def test_setgid_directory(root: Path) -> None:
    (root / "etc").chmod(0o2755)
    assert ("setuid", "/etc") in _findings(root)


def test_file_capability(root: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    try:
        os.setxattr(root / "usr/bin/tool", "security.capability", capability)
    except OSError as error:
        pytest.skip(f"this file system or user can't set one: {error}")
    assert _findings(root) == [("file-capability", "/usr/bin/tool")]


def test_world_writable(root: Path) -> None:
    (root / "usr/bin/script").chmod(0o757)
    assert _findings(root) == [("world-writable", "/usr/bin/script")]


def test_sticky_directories_may_be_written_by_everybody(root: Path) -> None:
    (root / "etc").chmod(0o1777)
    assert _findings(root) == []


def test_special_files(root: Path) -> None:
    manifest = _manifest(root)
    os.mkfifo(root / "etc/pipe")
    assert ("special-file", "/etc/pipe") in _findings(root, manifest)


@pytest.mark.parametrize(
    ("sample", "rule"),
    [
        (ElfSample(load_flags=7), "writable-code"),
        (ElfSample(stack_flags=7), "executable-stack"),
        (ElfSample(stack_flags=None), "executable-stack"),
        (ElfSample(needed=["gone.so"]), "unresolved-library"),
        (ElfSample(interpreter="/lib/gone"), "unresolved-library"),
        (
            ElfSample(needed=["libc.so.6"], versions_needed={"libc.so.6": ["C_9"]}),
            "symbol-version",
        ),
    ],
)
def test_elf_rules(root: Path, sample: ElfSample, rule: str) -> None:
    write(root, "/usr/bin/sample", sample.build(), 0o755)
    assert _findings(root) == [(rule, "/usr/bin/sample")]


def test_what_guests_run_is_not_held_to_the_host_s_rules(root: Path) -> None:
    write(root, "/usr/share/qemu/guest.elf", ElfSample(load_flags=7).build())
    assert _findings(root) == []


def test_an_unlisted_file(root: Path) -> None:
    manifest = _manifest(root)
    write(root, "/etc/extra")
    assert _findings(root, manifest) == [("unlisted", "/etc/extra")]


def test_a_missing_file(root: Path) -> None:
    manifest = _manifest(root)
    (root / "usr/bin/script").unlink()
    assert _findings(root, manifest) == [("missing", "/usr/bin/script")]


def test_another_content_mode_kind_or_target(root: Path) -> None:
    manifest = _manifest(root)
    write(root, "/usr/bin/script", b"#!/usr/bin/python3\nchanged", 0o755)
    (root / "usr/lib/firmware/a.fw").chmod(0o600)
    (root / "etc/mtab").unlink()
    (root / "etc/mtab").symlink_to("../proc/mounts")
    (root / "bin").unlink()
    (root / "bin").mkdir()
    assert _findings(root, manifest) == [
        ("differing", "/bin"),
        ("differing", "/etc/mtab"),
        ("differing", "/usr/bin/script"),
        ("differing", "/usr/lib/firmware/a.fw"),
    ]


def test_a_dangling_link(root: Path) -> None:
    (root / "usr/lib/lost").symlink_to("gone")
    assert _findings(root) == [("dangling-link", "/usr/lib/lost")]


@pytest.mark.parametrize("place", ["/etc/systemd/system", "/usr/lib/systemd/system"])
@pytest.mark.parametrize("kind", ["wants", "requires", "upholds"])
def test_an_enabled_unit_that_is_not_listed(root: Path, place: str, kind: str) -> None:
    write(root, f"{place}/x.service", b"[Service]\n")
    link = root / f"{place[1:]}/mica.target.{kind}/x.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("../x.service")
    shown = f"{place}/mica.target.{kind}/x.service"
    assert _findings(root) == [("enabled-unit", shown)]
    manifest = _manifest(root)
    manifest.enabled_units = [("x.service", f"mica.target.{kind}")]
    assert _findings(root, manifest) == []


def test_a_listed_unit_that_is_not_enabled(root: Path) -> None:
    manifest = _manifest(root)
    manifest.enabled_units = [("x.service", "mica.target.wants")]
    assert _findings(root, manifest) == [("enabled-unit-missing", "mica.target.wants/x.service")]


def test_a_module_without_its_firmware(root: Path) -> None:
    (root / "usr/lib/firmware/a.fw").unlink()
    assert _findings(root) == [("module-firmware", f"{MODULES}/kernel/a.ko")]
    manifest = _manifest(root)
    manifest.firmware_waived = {"a.fw": "not distributable"}
    assert _findings(root, manifest) == []


@pytest.mark.parametrize("cut", [0, 10])
def test_a_module_without_its_signature(root: Path, cut: int) -> None:
    """Whether it never had one or something cut the end of the file off, the kernel refuses it."""
    whole = modinfo_object([("firmware", "a.fw")], signed=bool(cut))
    write(root, f"{MODULES}/kernel/a.ko", whole[: len(whole) - cut])
    assert _findings(root) == [("module-signature", f"{MODULES}/kernel/a.ko")]


def test_a_module_without_what_it_depends_on(root: Path) -> None:
    write(root, f"{MODULES}/kernel/b.ko", modinfo_object([("depends", "in,a,gone")]))
    assert _findings(root) == [("module-dependency", f"{MODULES}/kernel/b.ko")]


def test_every_rule_is_named_once() -> None:
    assert len(RULES) == len({id(rule) for rule in RULES.values()})
