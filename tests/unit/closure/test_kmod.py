"""The rule for kernel modules and their firmware, on modules made byte by byte."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from appliance_build.closure.errors import FirmwareMissingError, NotInDonorError, RootsError
from appliance_build.closure.rule_kmod import KernelModules, RuleKmod, early_modules, modinfo
from appliance_build.closure.search import Search
from firmware.device_bundles import Bundle, BundleManifest, FirmwareWaiver
from tests.framework.elf_sample import modinfo_object
from tests.unit.closure.samples import roots_of, search_of, write

RELEASE = "6.1-test"
ROOT = f"/usr/lib/modules/{RELEASE}"


def _module(donor: Path, name: str, *fields: tuple[str, str]) -> str:
    path = f"{ROOT}/kernel/{name}.ko.xz"
    write(donor, path, lzma.compress(modinfo_object(list(fields))))
    return path


def _donor(tmp_path: Path) -> Path:
    donor = tmp_path / "donor"
    write(donor, f"{ROOT}/modules.builtin", "kernel/built-in.ko\n")
    write(donor, f"{ROOT}/modules.alias", "alias crypto-crc32c crc32c_generic\n")
    return donor


def _bundle(*drivers: str, waive: tuple[FirmwareWaiver, ...] = ()) -> Bundle:
    manifest = BundleManifest(
        schema=1,
        title="T",
        covers=("c",),
        licence="l",
        drivers=dict.fromkeys(drivers, "hardware"),
        waive=waive,
    )
    return Bundle("sample", manifest)


def _run(tmp_path: Path, donor: Path, bundle: Bundle) -> tuple[Search, RuleKmod]:
    search = search_of(donor, roots_of(tmp_path / "roots"))
    rule = RuleKmod(KernelModules.of_donor((donor,)), [bundle])
    search.rules = [rule]
    rule.take_bundle(search, bundle)
    search.run()
    return search, rule


def test_modinfo() -> None:
    data = modinfo_object([("depends", "a,b"), ("license", "GPL"), ("parm", "x=y")])
    assert modinfo(data) == [("depends", "a,b"), ("license", "GPL"), ("parm", "x=y")]


def test_depends_and_softdep_are_followed(tmp_path: Path) -> None:
    donor = _donor(tmp_path)
    _module(donor, "top-half", ("depends", "base_mod,built_in"), ("softdep", "pre: soft crc32c"))
    base = _module(donor, "base-mod")
    soft = _module(donor, "soft")
    _module(donor, "unused")
    search, _ = _run(tmp_path, donor, _bundle("top_half", "built-in"))
    modules = {path for path in search.entries if path.endswith(".ko.xz")}
    assert modules == {f"{ROOT}/kernel/top-half.ko.xz", base, soft}
    assert any("crc32c" in note for note in search.notes)


def test_a_softdep_may_name_an_alias(tmp_path: Path) -> None:
    donor = _donor(tmp_path)
    _module(donor, "fs", ("softdep", "pre: crypto-crc32c"))
    generic = _module(donor, "crc32c_generic")
    search, _ = _run(tmp_path, donor, _bundle("fs"))
    assert generic in search.entries


def test_a_driver_that_the_kernel_lacks_is_an_error(tmp_path: Path) -> None:
    donor = _donor(tmp_path)
    with pytest.raises(RootsError, match=r"sample/manifest\.toml.*gone1, gone2"):
        _run(tmp_path, donor, _bundle("gone1", "gone2"))


def test_a_dependency_that_is_missing_is_an_error(tmp_path: Path) -> None:
    donor = _donor(tmp_path)
    _module(donor, "a", ("depends", "gone"))
    with pytest.raises(NotInDonorError, match="gone"):
        _run(tmp_path, donor, _bundle("a"))


@pytest.mark.parametrize("suffix", ["", ".xz", ".zst"])
def test_firmware_comes_with_its_links(tmp_path: Path, suffix: str) -> None:
    donor = _donor(tmp_path)
    _module(donor, "nic", ("firmware", "maker/nic.fw"))
    write(donor, f"/usr/lib/firmware/maker/nic-2.fw{suffix}", b"f")
    (donor / f"usr/lib/firmware/maker/nic.fw{suffix}").symlink_to(f"nic-2.fw{suffix}")
    search, rule = _run(tmp_path, donor, _bundle("nic"))
    rule.check(search)
    assert f"/usr/lib/firmware/maker/nic-2.fw{suffix}" in search.entries
    assert f"/usr/lib/firmware/maker/nic.fw{suffix}" in search.entries


def test_missing_firmware_is_reported_all_at_once(tmp_path: Path) -> None:
    donor = _donor(tmp_path)
    _module(donor, "nic", ("firmware", "a.fw"), ("firmware", "b.fw"))
    search, rule = _run(tmp_path, donor, _bundle("nic"))
    with pytest.raises(FirmwareMissingError, match=r"a\.fw \(asked for by nic\).*b\.fw"):
        rule.check(search)


def test_waived_firmware_stays_out_with_its_reason(tmp_path: Path) -> None:
    donor = _donor(tmp_path)
    _module(donor, "nic", ("firmware", "big/a.fw"))
    write(donor, "/usr/lib/firmware/big/a.fw", b"f")
    waiver = FirmwareWaiver(firmware="big/*", reason="too big")
    search, rule = _run(tmp_path, donor, _bundle("nic", waive=(waiver,)))
    rule.check(search)
    assert rule.waived == {"big/a.fw": "too big"}
    assert "/usr/lib/firmware/big/a.fw" not in search.entries


def test_early_modules_come_in_load_order(tmp_path: Path) -> None:
    donor = _donor(tmp_path)
    _module(donor, "overlay", ("depends", "middle"))
    _module(donor, "middle", ("depends", "bottom,built-in"))
    _module(donor, "bottom")
    names = [path.name for path in early_modules((donor,), ["overlay", "bottom", "built-in"])]
    assert names == ["bottom.ko.xz", "middle.ko.xz", "overlay.ko.xz"]


def test_two_kernels_are_refused(tmp_path: Path) -> None:
    donor = _donor(tmp_path)
    write(donor, "/usr/lib/modules/6.2-other/modules.builtin", "")
    with pytest.raises(NotInDonorError, match=r"6\.1-test, 6\.2-other"):
        KernelModules.of_donor((donor,))
