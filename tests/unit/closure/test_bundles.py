"""The driver bundles: their format, and that those of the repository are well-formed."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_build.builders.closure_step import chosen_bundles
from firmware.device_bundles import (
    BundleError,
    bundle_catalogue,
    load_bundles,
    module_name,
)
from tests.unit.closure.samples import write

BUNDLES = Path(__file__).parents[3] / "firmware/device_bundles"
GOOD = 'schema = 1\ntitle = "T"\ncovers = ["c"]\nlicence = "l"\n[drivers]\n"my-nic" = "a NIC"\n'


def test_the_repository_s_own_bundles_are_well_formed() -> None:
    bundles = load_bundles(BUNDLES)
    names = {bundle.name for bundle in bundles}
    assert {"intel", "broadcom", "nvidia", "realtek", "virtio", "storage", "kvm"} <= names
    folders = {path.name for path in BUNDLES.iterdir() if (path / "manifest.toml").exists()}
    assert names == folders


def test_a_subset_by_name(tmp_path: Path) -> None:
    write(tmp_path, "one/manifest.toml", GOOD)
    write(tmp_path, "two/manifest.toml", GOOD.replace("my-nic", "other"))
    assert [bundle.name for bundle in load_bundles(tmp_path, ["two"])] == ["two"]
    with pytest.raises(BundleError, match="no bundle named three; there are: one, two"):
        load_bundles(tmp_path, ["three"])
    always = GOOD.replace("my-nic", "core").replace("[drivers]", 'always = "why"\n[drivers]')
    write(tmp_path, "zero/manifest.toml", always)
    assert [bundle.name for bundle in load_bundles(tmp_path, ["two"])] == ["two", "zero"]


def test_bundles_are_named_on_the_command_line() -> None:
    assert chosen_bundles(None) is None
    needed = {"filesystems", "kvm", "network", "storage", "usb"}
    assert set(chosen_bundles("") or ()) == needed
    assert set(chosen_bundles(" intel,realtek,") or ()) == {*needed, "intel", "realtek"}
    with pytest.raises(BundleError, match=r"no bundle named nonsense, rubbish; there are: .*intel"):
        chosen_bundles("rubbish,intel,nonsense")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("title", "titel"), "titel"),
        (GOOD.replace("schema = 1", "schema = 2"), "schema"),
        (GOOD + "[[waive]]\nfirmware = 'x'\n", "reason"),
        ("not toml", "bad/manifest.toml"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "bad/manifest.toml", text)
    with pytest.raises(BundleError, match=message):
        load_bundles(tmp_path)


def test_one_driver_in_two_bundles_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "one/manifest.toml", GOOD)
    write(tmp_path, "two/manifest.toml", GOOD.replace("my-nic", "my_nic"))
    with pytest.raises(BundleError, match=r"two/manifest\.toml: driver my_nic is in one already"):
        load_bundles(tmp_path)


def test_the_catalogue_names_modules_as_the_kernel_does(tmp_path: Path) -> None:
    write(tmp_path, "one/manifest.toml", GOOD)
    catalogue = bundle_catalogue(load_bundles(tmp_path))
    assert catalogue["modules"] == {"my_nic": {"bundle": "one", "hardware": "a NIC"}}
    assert module_name("my-nic") == "my_nic"
