"""Runs in a unit with mica-vmkernel.service's own settings, or as root without any, and tries what
must not work there. It prints one JSON object: attempt -> "" (it worked) or the error's name.

It is handed to the image's Python as text; see tests/boot/test_hardening.py.
"""

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["main"]

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_INIT_MODULE, SYS_KEXEC_LOAD, SYS_BPF, SYS_PTRACE = 175, 246, 321, 101
SYS_PERF, SYS_REBOOT, SYS_SETTIME, SYS_IOPL, SYS_USERFAULTFD = 298, 169, 164, 172, 323
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
SCRIPT = b"\x7fELF"


def call(*words: int | bytes) -> None:
    """One system call by its number."""
    if LIBC.syscall(*words) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unshare(flags: int) -> None:
    """A namespace in a child, so that the attempts after it still run in ours."""
    as_child(lambda: call(272, flags))


def as_child(act: Callable[[], object], uid: int = 0) -> None:
    """Act in a child, as another user; its OSError becomes ours."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            act()
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def execute_from(folder: str) -> None:
    """Run a copy of a program that lies in a folder that can be written."""
    copy = Path(folder, ".probe")
    try:
        copy.write_bytes(Path("/usr/bin/kmod").read_bytes())
        copy.chmod(0o755)
        as_child(lambda: os.execv(copy, ["modprobe", "--version"]))
    finally:
        copy.unlink(missing_ok=True)


def cut_module() -> bytes:
    """A module of the image without the signature at its end."""
    module = next(Path("/usr/lib/modules").glob("*/kernel/drivers/net/dummy.ko"))
    data = module.read_bytes()
    marker = b"~Module signature appended~\n"
    assert data.endswith(marker)
    length = int.from_bytes(data[-len(marker) - 4 : -len(marker)], "big")
    return data[: -len(marker) - 12 - length]


def whole_module() -> bytes:
    """The same as it is."""
    return next(Path("/usr/lib/modules").glob("*/kernel/drivers/net/dummy.ko")).read_bytes()


def init_module(data: bytes) -> None:
    """Load a module from memory."""
    call(SYS_INIT_MODULE, data, len(data), b"numdummies=0")


def socket_of(family: int, kind: int = socket.SOCK_RAW, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def open_device(kind: int, major: int, minor: int, flags: int = os.O_RDWR) -> None:
    """Make a device node and open it."""
    node = Path("/dev/.probe")
    try:
        os.mknod(node, 0o600 | kind, os.makedev(major, minor))
        os.close(os.open(node, flags))
    finally:
        node.unlink(missing_ok=True)


def writable_code() -> None:
    """Memory that is written and executed."""
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def write_read_only_memory() -> None:
    """Change a page of ours that is mapped read-only, by way of /proc/self/mem."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libc.so" in line and "r-xp" in line:
            start = int(line.split("-")[0], 16)
            with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
                memory.seek(start)
                byte = memory.read(1)
                memory.seek(start)
                memory.write(byte)
            break
    page.close()


S_IFCHR, S_IFBLK = 0o020000, 0o060000
ATTEMPTS: dict[str, Callable[[], object]] = {
    # what the kernel refuses everybody
    "load an unsigned module": lambda: init_module(cut_module()),
    "load another kernel": lambda: call(SYS_KEXEC_LOAD, 0, 0, 0, 0),
    "read the kernel's memory (kcore)": lambda: os.close(os.open("/proc/kcore", os.O_RDONLY)),
    "open /dev/mem": lambda: open_device(S_IFCHR, 1, 1),
    "open /dev/port": lambda: open_device(S_IFCHR, 1, 4),
    "raise the I/O privilege level": lambda: call(SYS_IOPL, 3),
    "mount debugfs": lambda: mount("debugfs"),
    "write to read-only memory": write_read_only_memory,
    "a user's own user namespace": lambda: as_child(lambda: call(272, CLONE_NEWUSER), 700),
    **{
        f"execute from {folder}": (lambda folder=folder: execute_from(folder))  # type: ignore[misc]
        for folder in ("/run", "/tmp", "/dev/shm", "/var", "/etc", "/dev")
    },
    # what the vmkernel's unit refuses
    "load a signed module": lambda: init_module(whole_module()),
    "a network namespace": lambda: unshare(CLONE_NEWNET),
    "a user namespace": lambda: unshare(CLONE_NEWUSER),
    "another root": lambda: as_child(lambda: os.chroot("/run")),
    "a packet socket": lambda: socket_of(socket.AF_PACKET),
    "a vsock": lambda: socket_of(socket.AF_VSOCK, socket.SOCK_STREAM),
    "a raw IP socket": lambda: socket_of(socket.AF_INET, socket.SOCK_RAW, 1),
    "a crypto socket": lambda: socket_of(socket.AF_ALG, socket.SOCK_SEQPACKET),
    "memory to write and execute": writable_code,
    "a bpf program": lambda: call(SYS_BPF, 0, 0, 0),
    "count the kernel's events": lambda: call(SYS_PERF, 0, 0, 0, 0, 0),
    "be traced": lambda: as_child(lambda: call(SYS_PTRACE, 0, 0, 0, 0)),
    "handle page faults": lambda: call(SYS_USERFAULTFD, 1),
    "set the clock": lambda: call(SYS_SETTIME, 0, 0),
    "restart at once": lambda: call(SYS_REBOOT, 0, 0, 0, 0),
    "open a sound or video device": lambda: open_device(S_IFCHR, 81, 0),
    "a set-user-id program": lambda: set_user_id(),
    # what the vmkernel needs
    "open a disk": lambda: open_device(S_IFBLK, *disk(), os.O_RDONLY),
    "open KVM": lambda: os.close(os.open("/dev/kvm", os.O_RDWR)),
    "open tun": lambda: os.close(os.open("/dev/net/tun", os.O_RDWR)),
    "open the screen": lambda: os.close(os.open("/dev/tty1", os.O_RDWR | os.O_NOCTTY)),
    "open the serial line": lambda: os.close(
        os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    ),
    "mount a file system": lambda: mount("tmpfs"),
    "the links": lambda: socket_of(socket.AF_NETLINK),
    "become another user": lambda: as_child(lambda: None, 701),
    "read the kernel's log": lambda: klog(),
}


def klog() -> None:
    """Its size."""
    if LIBC.klogctl(10, None, 0) < 0:
        raise OSError(ctypes.get_errno(), "klogctl")


def set_user_id() -> None:
    """A file that would run as its owner."""
    file = Path("/run/.probe-suid")
    try:
        file.write_bytes(SCRIPT)
        file.chmod(0o4755)
    finally:
        file.unlink(missing_ok=True)


def disk() -> tuple[int, int]:
    """A disk that is there."""
    for path in sorted(Path("/sys/class/block").iterdir()):
        if path.name.startswith(("sd", "vd", "nvme")):
            major, minor = (path / "dev").read_text().split(":")
            return int(major), int(minor)
    raise OSError(errno.ENODEV, "no disk")


def mount(kind: str) -> None:
    """Mount a file system and unmount it."""
    place = Path("/run/.probe-mount")
    place.mkdir(exist_ok=True)
    try:
        if LIBC.mount(kind.encode(), bytes(place), kind.encode(), 0, None) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        LIBC.umount2(bytes(place), 0)
    finally:
        place.rmdir()


def main() -> None:
    """Try everything."""
    found = {}
    for name, act in ATTEMPTS.items():
        try:
            act()
        except OSError as error:
            found[name] = errno.errorcode.get(error.errno or 0, str(error))
        except Exception as error:
            found[name] = f"PROBE FAILED {type(error).__name__}: {error}"
        else:
            found[name] = ""
    text = json.dumps(found)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
