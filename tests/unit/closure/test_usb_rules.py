"""The rules that let USB devices in, made from modules' aliases."""

from __future__ import annotations

import pytest

from appliance_build.closure.usb_rules import usb_rules

PRODUCT = "alias usb:v0BDAp8152d*dc*dsc*dp*icFFisc*ip*in* r8152"
SAME_MAKER = "alias usb:v0BDAp8153d*dc*dsc*dp*ic*isc*ip*in* r8152"
MAKERS_CLASS = "alias usb:v413Cp*d*dc*dsc*dp*ic02isc06ip00in* cdc_ether"
CLASS = "alias usb:v*p*d*dc*dsc*dp*ic02isc0Dip*in* cdc_ncm"


def _rules(*aliases: str) -> list[str]:
    return [line for line in usb_rules(aliases).splitlines() if "authorized}=" in line]


def test_a_maker_s_products_are_one_rule() -> None:
    (rule,) = _rules(PRODUCT, SAME_MAKER)
    assert rule == ('ATTR{idVendor}=="0bda", ATTR{idProduct}=="8152|8153", ATTR{authorized}="1"')


def test_a_class_of_one_maker_lets_in_none_of_its_other_devices() -> None:
    """Dell makes keyboards as well as modems."""
    (rule,) = _rules(MAKERS_CLASS)
    assert rule == (
        'ATTR{idVendor}=="413c", ENV{ID_USB_INTERFACES}=="*:020600:*", ATTR{authorized}="1"'
    )


def test_a_class_of_everybody() -> None:
    (rule,) = _rules(CLASS)
    assert rule == 'ENV{ID_USB_INTERFACES}=="*:020d??:*", ATTR{authorized}="1"'


def test_storage_comes_by_its_class_alone_and_other_buses_not_at_all() -> None:
    """usb-storage's list of products would let in devices that claim to be one and are something
    else."""
    aliases = (
        "alias usb:v0781p0100d*dc*dsc*dp*ic*isc*ip*in* usb_storage",
        "alias usb:v*p*d*dc*dsc*dp*ic08isc06ip62in* uas",
        "alias pci:v00008086d00001533sv*sd*bc*sc*i* igb",
        "# Aliases extracted from modules themselves.",
    )
    assert _rules(*aliases) == []


@pytest.mark.parametrize(
    "alias", ["usb:v*p*d*dc*dsc*dp*ic*isc*ip*in*", "usb:v0BDAp*d*dc*dsc*dp*ic*isc*ip*in*", "usb:?"]
)
def test_an_alias_that_would_let_in_too_much_fails_the_build(alias: str) -> None:
    with pytest.raises(ValueError, match="alias"):
        usb_rules([f"alias {alias} usbhid"])
