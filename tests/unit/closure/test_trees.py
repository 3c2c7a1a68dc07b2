"""The union of trees: links are followed inside it, and wildcards match in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_build.closure.errors import LinkLoopError
from appliance_build.closure.plan import Origin
from appliance_build.closure.trees import PYTHON_SITE, Layer, Trees
from tests.unit.closure.samples import write


def _tree(root: Path) -> Trees:
    return Trees([Layer(Origin.DONOR, root)])


def test_a_linked_directory_and_a_linked_file_are_both_followed(tmp_path: Path) -> None:
    write(tmp_path, "/usr/lib/libz.so.1.3", b"z")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr/lib/libz.so.1").symlink_to("libz.so.1.3")
    resolved = _tree(tmp_path).resolve("/lib/libz.so.1")
    assert resolved is not None
    assert resolved.path == "/usr/lib/libz.so.1.3"
    assert [link[:2] for link in resolved.links] == [
        ("/lib", "usr/lib"),
        ("/usr/lib/libz.so.1", "libz.so.1.3"),
    ]


def test_an_absolute_link_stays_inside_the_tree(tmp_path: Path) -> None:
    write(tmp_path, "/etc/alternatives/tool", b"inside")
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/tool").symlink_to("/etc/alternatives/tool")
    resolved = _tree(tmp_path).resolve("/usr/tool")
    assert resolved is not None
    assert resolved.source == tmp_path / "etc/alternatives/tool"


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(LinkLoopError, match="/a"):
        _tree(tmp_path).resolve("/a")


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert _tree(tmp_path).resolve("/no/such") is None
    assert not _tree(tmp_path).exists("/no")


def test_the_upper_layer_wins(tmp_path: Path) -> None:
    write(tmp_path / "upper", "/etc/hosts", b"ours")
    write(tmp_path / "lower", "/etc/hosts", b"theirs")
    write(tmp_path / "lower", "/etc/passwd", b"theirs")
    trees = Trees(
        [Layer(Origin.OVERLAY, tmp_path / "upper"), Layer(Origin.DONOR, tmp_path / "lower")]
    )
    resolved = trees.resolve("/etc/hosts")
    assert resolved is not None
    assert resolved.layer.origin is Origin.OVERLAY
    assert trees.names("/etc") == ["hosts", "passwd"]


def test_our_packages_appear_below_the_python_site(tmp_path: Path) -> None:
    write(tmp_path, "/vmkernel/__init__.py")
    write(tmp_path, "/tests/__init__.py")
    trees = Trees([Layer(Origin.OWN, tmp_path, PYTHON_SITE, frozenset({"vmkernel"}))])
    assert trees.names(PYTHON_SITE) == ["vmkernel"]
    assert trees.exists(f"{PYTHON_SITE}/vmkernel/__init__.py")
    assert not trees.exists(f"{PYTHON_SITE}/tests/__init__.py")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/fw/*.bin", ["/fw/a.bin", "/fw/b.bin"]),
        ("/fw/**", ["/fw/a.bin", "/fw/b.bin", "/fw/deep/c.bin"]),
        ("/fw/*/c.bin", ["/fw/deep/c.bin"]),
        ("/fw/a.bin", ["/fw/a.bin"]),
        ("/fw/none*", []),
    ],
)
def test_wildcards(tmp_path: Path, pattern: str, found: list[str]) -> None:
    for name in ("/fw/a.bin", "/fw/b.bin", "/fw/deep/c.bin"):
        write(tmp_path, name)
    assert _tree(tmp_path).glob(pattern) == found
