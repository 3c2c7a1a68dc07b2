"""Files that somebody else may have put there: links, pipes, devices, second names, sizes, depth;
by openat2 and by the way of kernels without it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmkernel.host import files, openat2
from vmkernel.host.errors import from_os_error
from vmkernel.host.folder import FileFault, Folder, UnsafeFileError, copy_open, open_folder
from vmkernel.model import ErrorCode

_SYS_RENAMEAT2 = 316
_EXCHANGE = 2


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "walk":
        monkeypatch.setattr(openat2, "_kernel_has_it", lambda: False)
    elif not openat2._kernel_has_it():
        pytest.skip("this kernel has no openat2")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder, and beside it a secret that nothing may lead to."""
    (tmp_path / "secret").write_bytes(b"of the host")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_bytes(b"of the host")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"ours")
    return tmp_path / "d"


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "secret")


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent.parent / "new")


def _magic(path: Path) -> None:
    path.symlink_to("/proc/self/root/etc/passwd")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    except OSError:
        pytest.skip("no device can be made here")


_ODD: tuple[tuple[Callable[[Path], None], FileFault], ...] = (
    (_link, FileFault.LINK),
    (_dangling, FileFault.LINK),
    (_magic, FileFault.LINK),
    (_pipe, FileFault.KIND),
    (_device, FileFault.KIND),
    (Path.mkdir, FileFault.KIND),
)


@pytest.mark.parametrize(("make", "fault"), _ODD)
def test_only_a_regular_file_is_read(
    place: Path, make: Callable[[Path], None], fault: FileFault
) -> None:
    make(place / "odd")
    with pytest.raises(UnsafeFileError) as caught:
        files.read_limited(place / "odd", 100)
    assert caught.value.fault is fault
    for target in ("new", "secret"):
        assert (place.parent / target).exists() == (target == "secret")


@pytest.mark.parametrize(("make", "fault"), _ODD[:5])
def test_what_is_written_replaces_and_follows_nothing(
    place: Path, make: Callable[[Path], None], fault: FileFault
) -> None:
    del fault
    for name in ("a", "b", "c"):
        make(place / name)
    files.write_durably(place / "a", b"new")
    files.write_lightly(place / "b", b"new")
    files.copy_durably(place / "file", place / "c", 10)
    assert [(place / name).read_bytes() for name in "abc"] == [b"new", b"new", b"ours"]
    assert all(not (place / name).is_symlink() for name in "abc")
    assert (place.parent / "secret").read_bytes() == b"of the host"
    assert not (place.parent / "new").exists()
    with pytest.raises(FileExistsError):
        os.close(files.create_file(place / "file"))
    assert {path.name for path in place.iterdir()} == {"a", "b", "c", "file"}


def test_a_folder_that_is_a_link_is_not_passed_through(place: Path) -> None:
    (place / "sub").symlink_to(place.parent / "elsewhere")
    (place / "deep").mkdir()
    (place / "deep/sub").symlink_to(place.parent / "elsewhere")
    for path in (place / "sub/file", place / "deep/sub/file"):
        for work in (
            lambda path: files.read_limited(path, 100),
            lambda path: files.write_durably(path, b"x"),
            lambda path: os.close(files.create_file(path.with_name("new"))),
            lambda path: files.remove(path, missing_ok=False),
            files.status,
            lambda path: files.names(path.parent),
            lambda path: files.make_directory(path.with_name("made")),
            lambda path: files.rename_durably(path, place / "stolen"),
            lambda path: files.link(path, place / "stolen"),
        ):
            with pytest.raises(UnsafeFileError):
                work(path)
    with open_folder(place) as folder, pytest.raises(UnsafeFileError):
        folder.read("deep/sub/file", 100)
    assert [p.name for p in (place.parent / "elsewhere").iterdir()] == ["file"]
    assert not (place / "stolen").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "deep/../../secret"])
def test_no_name_leads_out(place: Path, name: str) -> None:
    (place / "deep").mkdir()
    with open_folder(place) as folder, pytest.raises(UnsafeFileError):
        folder.open_file(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_what_is_changed_has_a_single_name(place: Path, name: str) -> None:
    with open_folder(place) as folder:
        for work in (folder.remove, folder.status, folder.create, folder.remove_tree):
            with pytest.raises(OSError, match="not the name of a file"):
                work(name)


def test_sizes_owners_and_second_names(place: Path) -> None:
    big = place / "big"
    with big.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnsafeFileError, match="too large") as caught:
        files.read_limited(big, 1000)
    told = from_os_error(caught.value, "It can't be read")
    assert told.problem.code is ErrorCode.CONFLICT  # and not that no space is left
    assert "too large" in told.problem.detail
    with pytest.raises(UnsafeFileError, match="another user"):
        files.read_limited(place / "file", 100, owners=(12345,))
    assert files.read_limited(place / "file", 100, owners=(os.getuid(),)) == b"ours"
    os.link(place / "file", place / "second")
    with pytest.raises(UnsafeFileError, match="second name"):
        files.open_regular(place / "file", os.O_WRONLY, single=True)


def test_a_copy_stops_at_its_limit_although_the_file_grows(place: Path) -> None:
    reading, writing = os.pipe()
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, reading)
        thread = threading.Thread(target=_pour, args=(writing,))
        thread.start()
        with (place / "target").open("wb") as target, pytest.raises(UnsafeFileError):
            copy_open(reading, target.fileno(), 1 << 20, "x")
        assert (place / "target").stat().st_size <= 1 << 20
    thread.join()


def _pour(fd: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        for _ in range(64):
            os.write(fd, bytes(1 << 16))
    os.close(fd)


def test_a_tree_goes_however_deep_and_links_in_it_stay_links(place: Path) -> None:
    """The names of the path alone have 10,000 characters, and recursion would end at 1,000."""
    top = place / "tree"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for depth in range(1100):
        os.symlink(place.parent / "elsewhere", "link", dir_fd=fd)
        if depth % 100 == 0:
            os.mkfifo("pipe", dir_fd=fd)
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    before = _open_files()
    files.remove_tree(top)
    files.remove_tree(place / "missing")
    (place / "link").symlink_to(place.parent / "elsewhere")
    files.remove_tree(place / "link")
    assert [p.name for p in place.iterdir()] == ["file"]
    assert (place.parent / "elsewhere/file").read_bytes() == b"of the host"
    assert _open_files() == before


@contextlib.contextmanager
def exchanging(one: Path, other: Path) -> Iterator[None]:
    """Two names change places all the time."""
    libc = ctypes.CDLL(None, use_errno=True)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            libc.syscall(
                _SYS_RENAMEAT2, -100, os.fsencode(one), -100, os.fsencode(other), _EXCHANGE
            )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_link_that_is_swapped_in_meanwhile_is_never_read(place: Path) -> None:
    (place / "swapped").symlink_to(place.parent / "secret")
    (place / "sub").mkdir()
    (place / "sub/file").write_bytes(b"ours")
    (place / "sub-swapped").symlink_to(place.parent / "elsewhere")
    seen: set[bytes] = set()
    refused = 0
    with (
        exchanging(place / "file", place / "swapped"),
        exchanging(place / "sub", place / "sub-swapped"),
    ):
        for _ in range(300):
            for name in ("file", "sub/file"):
                try:
                    seen.add(files.read_limited(place / name, 100))
                    files.copy_durably(place / name, place / "copy", 100)
                    seen.add(files.read_limited(place / "copy", 100))
                except (UnsafeFileError, FileNotFoundError):
                    refused += 1
    assert seen == {b"ours"}
    assert refused


def test_too_many_names_are_refused_in_words(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmkernel.host.folder._NAMES_MAX", 10)
    for number in range(40):
        (place / f"n{number}").touch()
    with pytest.raises(UnsafeFileError, match="too many entries"):
        files.names(place)
    (place.parent / "d").rename(place.parent / "e")
    files.remove_tree(place.parent / "e")
    assert not (place.parent / "e").exists()


def test_a_folder_is_closed_with_its_block(place: Path) -> None:
    before = _open_files()
    with open_folder(place) as folder:
        assert isinstance(folder, Folder)
        assert folder.names() == ["file"]
    with pytest.raises(OSError, match=r"."), open_folder(Path("relative")):
        pass
    assert _open_files() == before


def test_a_file_without_a_name_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmkernel.host import folder as module

    real = module._opened

    def without(folder: int, name: str, flags: int, mode: int = 0) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "as NFS answers")
        return real(folder, name, flags, mode)

    for _ in range(2):
        fd = files.create_nameless(place)
        os.write(fd, b"data")
        assert os.pread(fd, 10, 0) == b"data"
        assert os.fstat(fd).st_nlink == 0
        os.close(fd)
        assert [p.name for p in place.iterdir()] == ["file"]
        monkeypatch.setattr(module, "_opened", without)
