"""The ELF and dlopen rules, on ELF files made byte by byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance_build.closure.elf_file import DlopenPriority, read_elf
from appliance_build.closure.errors import BadElfError, ClosureError, NotInDonorError
from appliance_build.closure.plan import Reason
from appliance_build.closure.rule_dlopen import RuleDlopen
from appliance_build.closure.rule_elf import RuleElf
from appliance_build.closure.search import Search
from tests.framework.elf_sample import ElfSample, dlopen_note
from tests.unit.closure.samples import roots_of, search_of, write

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
WHY = Reason("root", "test", "asked for")


def _search(donor: Path, policy: str = "") -> Search:
    search = search_of(donor, roots_of(donor.parent / "roots", policy))
    elf = RuleElf()
    search.rules = [elf, RuleDlopen(elf)]
    return search


def _files(search: Search) -> set[str]:
    return {p for p, e in search.entries.items() if e.kind.value in ("file", "link")}


def test_reading_back_what_was_made(tmp_path: Path) -> None:
    note = [{"feature": "f", "description": "d", "priority": "required", "soname": ["libx.so.1"]}]
    sample = ElfSample(
        needed=["libc.so.6", "libm.so.6"],
        soname="libself.so.1",
        runpath="$ORIGIN/../lib",
        interpreter="/lib64/ld.so",
        versions_needed={"libc.so.6": ["GLIBC_2.34", "GLIBC_2.38"], "libm.so.6": ["GLIBC_2.2"]},
        versions_defined=["SELF_1", "SELF_2"],
        note=dlopen_note(json.dumps(note)),
    )
    elf = read_elf(write(tmp_path, "x", sample.build()))
    assert elf.needed == ("libc.so.6", "libm.so.6")
    assert elf.soname == "libself.so.1"
    assert elf.runpath == ("$ORIGIN/../lib",)
    assert elf.interpreter == "/lib64/ld.so"
    assert elf.versions_needed == (
        ("libc.so.6", ("GLIBC_2.34", "GLIBC_2.38")),
        ("libm.so.6", ("GLIBC_2.2",)),
    )
    assert elf.versions_defined == {"SELF_1", "SELF_2"}
    assert elf.dlopen_notes[0].priority is DlopenPriority.REQUIRED
    assert elf.dlopen_notes[0].sonames == ("libx.so.1",)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "broken", b"\x7fELF\x02\x01\x01" + b"\0" * 20)
    with pytest.raises(BadElfError, match="broken"):
        read_elf(file)


def test_libraries_come_with_their_links_and_their_own_libraries(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, "/usr/bin/tool", ElfSample(needed=["liba.so.1"]).build(), 0o755)
    write(donor, f"{LIBRARIES}/liba.so.1.0", ElfSample(needed=["libb.so"]).build())
    (donor / f"{LIBRARIES[1:]}/liba.so.1").symlink_to("liba.so.1.0")
    write(donor, f"{LIBRARIES}/libb.so", ElfSample().build())
    write(donor, f"{LIBRARIES}/libunused.so", ElfSample().build())
    search = _search(donor)
    search.need("/usr/bin/tool", WHY)
    search.run()
    assert _files(search) == {
        "/usr/bin/tool",
        f"{LIBRARIES}/liba.so.1",
        f"{LIBRARIES}/liba.so.1.0",
        f"{LIBRARIES}/libb.so",
    }
    assert search.entries[f"{LIBRARIES}/libb.so"].reasons[0].of == f"{LIBRARIES}/liba.so.1.0"


def test_runpath_with_origin_is_searched_first(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, "/opt/bin/tool", ElfSample(needed=["l.so"], runpath="$ORIGIN/../lib").build())
    write(donor, "/opt/lib/l.so", ElfSample().build())
    write(donor, f"{LIBRARIES}/l.so", ElfSample().build())
    search = _search(donor)
    search.need("/opt/bin/tool", WHY)
    search.run()
    assert "/opt/lib/l.so" in search.entries
    assert f"{LIBRARIES}/l.so" not in search.entries


def test_a_library_may_rely_on_what_its_loader_has_loaded(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    program = ElfSample(needed=["core.so", "shared.so"], runpath="/usr/lib/private")
    write(donor, "/usr/bin/tool", program.build())
    write(donor, "/usr/lib/private/core.so", ElfSample(needed=["shared.so"]).build())
    write(donor, "/usr/lib/private/shared.so", ElfSample().build())
    search = _search(donor)
    search.need("/usr/bin/tool", WHY)
    search.run()
    assert "/usr/lib/private/shared.so" in search.entries


def test_a_missing_library_is_an_error(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    write(donor, "/usr/bin/tool", ElfSample(needed=["gone.so"]).build())
    search = _search(donor)
    search.need("/usr/bin/tool", WHY)
    with pytest.raises(NotInDonorError, match=r"/usr/bin/tool.*gone\.so"):
        search.run()


def test_a_missing_symbol_version_is_an_error(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    program = ElfSample(needed=["l.so"], versions_needed={"l.so": ["L_1", "L_2"]})
    write(donor, "/usr/bin/tool", program.build())
    write(donor, f"{LIBRARIES}/l.so", ElfSample(versions_defined=["l.so", "L_1"]).build())
    search = _search(donor)
    search.need("/usr/bin/tool", WHY)
    with pytest.raises(ClosureError, match=r"needs L_2, which l\.so does not define"):
        search.run()


def _noted(donor: Path, priority: str) -> None:
    note = [{"feature": "extra", "priority": priority, "soname": ["libnew.so", "libold.so"]}]
    write(donor, "/usr/bin/tool", ElfSample(note=dlopen_note(json.dumps(note))).build())


@pytest.mark.parametrize(
    ("priority", "policy", "taken"),
    [
        ("required", "", True),
        ("recommended", "", True),
        ("suggested", "", False),
        ("recommended", '[[dlopen]]\nlibrary="libold.so"\ntake=false\nreason="r"', False),
        ("suggested", '[[dlopen]]\nlibrary="libnew*"\ntake=true\nreason="r"', True),
        (
            "suggested",
            '[[dlopen]]\nlibrary="*"\ntake=true\nimporter="/other"\nreason="r"',
            False,
        ),
    ],
)
def test_dlopen_policy(tmp_path: Path, priority: str, policy: str, taken: bool) -> None:
    donor = tmp_path / "donor"
    _noted(donor, priority)
    write(donor, f"{LIBRARIES}/libold.so", ElfSample().build())
    search = _search(donor, policy)
    search.need("/usr/bin/tool", WHY)
    search.run()
    assert (f"{LIBRARIES}/libold.so" in search.entries) is taken
    assert taken or "libnew.so" in search.notes[0]


def test_a_required_dlopen_library_must_be_there(tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    _noted(donor, "required")
    search = _search(donor)
    search.need("/usr/bin/tool", WHY)
    with pytest.raises(NotInDonorError, match=r"libnew\.so, libold\.so"):
        search.run()
