"""The rules for units, udev rules, scripts and name services."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_build.closure.errors import ExcludedNeededError, NotInDonorError
from appliance_build.closure.plan import Reason
from appliance_build.closure.rule_nss import RuleNss, services
from appliance_build.closure.rule_script import RuleScript, shebang
from appliance_build.closure.rule_udev import RuleUdev
from appliance_build.closure.rule_unit import RuleUnit, parse_unit
from appliance_build.closure.search import Search
from tests.unit.closure.samples import roots_of, search_of, write

UNITS = "/usr/lib/systemd/system"
WHY = Reason("root", "test", "asked for")


def _search(donor: Path, policy: str = "") -> Search:
    search = search_of(donor, roots_of(donor.parent / "roots", policy))
    search.rules = [RuleUnit(), RuleUdev(), RuleScript(), RuleNss()]
    return search


def test_settings_are_read_with_continued_lines_and_without_comments() -> None:
    text = "# c\n[Unit]\nWants=a.service \\\n b.service\n;x=y\nExecStart=-/bin/true\n"
    assert parse_unit(text) == [("Wants", "a.service   b.service"), ("ExecStart", "-/bin/true")]


def test_a_unit_brings_its_programs_and_the_units_it_names(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(
        donor,
        f"{UNITS}/a.service",
        "[Unit]\nRequires=b.socket\nAfter=later.target\n[Service]\n"
        "ExecStartPre=-/usr/bin/first --x\nExecStart=@!/usr/bin/main main\nExecStop=bare\n",
    )
    write(donor, f"{UNITS}/b.socket", "[Socket]\nListenStream=1\n")
    write(donor, f"{UNITS}/later.target", "")
    for name in ("/usr/bin/first", "/usr/bin/main", "/usr/sbin/bare"):
        write(donor, name, b"", 0o755)
    search = _search(donor)
    search.need(f"{UNITS}/a.service", WHY)
    search.run()
    assert {"/usr/bin/first", "/usr/bin/main", "/usr/sbin/bare"} < set(search.entries)
    assert f"{UNITS}/b.socket" in search.entries
    assert f"{UNITS}/later.target" not in search.entries


def test_an_instance_leads_to_its_template(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, f"{UNITS}/a.target", "[Unit]\nRequires=job@x.service\n")
    write(donor, f"{UNITS}/job@.service", "[Service]\nExecStart=/usr/bin/job %i\n")
    write(donor, "/usr/bin/job", b"", 0o755)
    search = _search(donor)
    search.need(f"{UNITS}/a.target", WHY)
    search.run()
    assert "/usr/bin/job" in search.entries


def test_a_required_unit_must_be_there_and_a_wanted_one_need_not(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, f"{UNITS}/soft.service", "[Unit]\nWants=gone.service\n")
    write(donor, f"{UNITS}/hard.service", "[Unit]\nRequires=gone.service\n")
    search = _search(donor)
    search.need(f"{UNITS}/soft.service", WHY)
    search.run()
    assert any("gone.service" in note for note in search.notes)
    search.need(f"{UNITS}/hard.service", WHY)
    with pytest.raises(NotInDonorError, match=r"gone\.service"):
        search.run()


def test_waived_units_and_programs_stay_out(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, f"{UNITS}/a.service", "[Unit]\nWants=b.service\n[Service]\nExecStart=/bin/c\n")
    write(donor, f"{UNITS}/b.service", "")
    write(donor, "/bin/c", b"", 0o755)
    search = _search(
        donor,
        '[[waive_unit]]\nname="b.service"\nreason="r"\n'
        f'[[waive_program]]\npath="/bin/c"\nimporter="{UNITS}/a.service"\nreason="r"\n',
    )
    search.need(f"{UNITS}/a.service", WHY)
    search.run()
    assert f"{UNITS}/b.service" not in search.entries
    assert "/bin/c" not in search.entries


def test_udev_programs(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(
        donor,
        "/usr/lib/udev/rules.d/60-x.rules",
        '# PROGRAM="not_me"\nKERNEL=="sd*", IMPORT{program}="ata_id --export $devnode"\n'
        'RUN{builtin}+="kmod load"\nRUN+="/usr/bin/act"\nPROGRAM="$env{X}"\n',
    )
    write(donor, "/usr/lib/udev/ata_id", b"", 0o755)
    write(donor, "/usr/bin/act", b"", 0o755)
    search = _search(donor)
    search.need("/usr/lib/udev/rules.d/60-x.rules", WHY)
    search.run()
    assert "/usr/lib/udev/ata_id" in search.entries
    assert "/usr/bin/act" in search.entries


@pytest.mark.parametrize(
    ("head", "interpreter"),
    [
        (b"#!/bin/sh -e\n", "/bin/sh"),
        (b"#! /usr/bin/env -S python3 -I\n", "/usr/bin/python3"),
        (b"#!/usr/bin/env python3\n", "/usr/bin/python3"),
        (b"#!\n", None),
        (b"\x7fELF", None),
    ],
)
def test_shebang(head: bytes, interpreter: str | None) -> None:
    assert shebang(head) == interpreter


def test_a_script_whose_interpreter_is_excluded_fails(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, "/usr/bin/tool", b"#!/bin/sh\n", 0o755)
    write(donor, "/bin/sh", b"", 0o755)
    search = _search(donor, '[[exclude]]\nglob="/bin/*sh"\nreason="no shell"\n')
    search.need("/usr/bin/tool", WHY)
    with pytest.raises(ExcludedNeededError, match="no shell"):
        search.run()


def test_a_directory_above_a_file_is_taken_and_setuid_is_dropped(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, "/usr/bin/mount", b"", 0o4755)
    search = _search(donor)
    search.need("/usr/bin/mount", WHY)
    assert search.entries["/usr/bin/mount"].mode == 0o755
    assert set(search.entries) == {"/usr", "/usr/bin", "/usr/bin/mount"}


def test_name_services() -> None:
    text = "passwd: files systemd # other\nhosts: files [NOTFOUND=return] dns\n\n# x: y\n"
    assert services(text) == {"files", "systemd", "dns"}


def test_name_services_bring_their_libraries(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, "/etc/nsswitch.conf", "hosts: files mine dns\n")
    write(donor, "/usr/lib/x86_64-linux-gnu/libnss_mine.so.2")
    search = _search(donor)
    search.need("/etc/nsswitch.conf", WHY)
    search.run()
    assert "/usr/lib/x86_64-linux-gnu/libnss_mine.so.2" in search.entries
