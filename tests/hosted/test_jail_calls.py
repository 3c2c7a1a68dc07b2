"""The lists of system calls of the jail and of workers, put on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.framework import filtered
from tests.framework.jail_probe import REFUSED_CALL, build_probe, outcomes
from vmkernel.host.errors import HostError
from vmkernel.host.seccomp import compile_filter
from vmkernel.jail.calls import Argument, CallFilter, one_of
from vmkernel.jail.roles import FETCH_WORKER, LAUNCHER, QEMU, SWTPM, TOOL, WORKER

ROLES = {
    "launcher": LAUNCHER,
    "qemu": QEMU,
    "swtpm": SWTPM,
    "tool": TOOL,
    "worker": WORKER,
    "fetch": FETCH_WORKER,
}
WAYS_MIN = 190
JIT = {"mmap-write-execute", "mprotect-execute"}
"""QEMU without KVM makes code; with KVM its unit refuses it (MemoryDenyWriteExecute=)."""
IN_MEMORY = {"memfd-execve"}
"""What refuses it on the appliance is vm.memfd_noexec; where it works, it is the probe's end."""
NETWORK = {"socket-2", "socket-10", "socket-16", "connect", "bind"}
"""IPv4, IPv6, and of netlink's protocols the first alone: it asks the kernel for routes."""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_probe(tmp_path_factory.mktemp("probe") / "probe")


def _under(calls: CallFilter, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    code = folder / "filter"
    code.write_bytes(compile_filter(calls))
    return subprocess.run(
        [sys.executable, "-I", "-S", filtered.__file__, str(code), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["qemu", "swtpm", "tool"])
def test_each_way_out_is_refused(name: str, probe: Path, tmp_path: Path) -> None:
    done = _under(ROLES[name], tmp_path, str(probe), name)
    found = outcomes(done.stdout, name)
    open_ways = {way for way, outcome in found.items() if outcome not in REFUSED_CALL}
    known = {"int80"} | (set() if name == "swtpm" else IN_MEMORY)
    assert open_ways - (JIT if name == "qemu" else set()) <= known, found
    assert len(found) >= WAYS_MIN
    if name == "swtpm":  # it can't even make a file in memory
        assert found["int80"] == "trying"
        assert done.returncode == -signal.SIGSYS


def test_only_a_list_refuses_them(probe: Path) -> None:
    """The same calls, without a filter, come as far as the kernel: a refusal is the filter's."""
    if os.geteuid() != 0:
        pytest.skip("the kernel refuses some of them to anybody but root")
    done = subprocess.run([probe, "bare"], capture_output=True, text=True, timeout=60, check=False)
    found = outcomes(done.stdout, "bare")
    assert found["socket-2"] == found["process_vm_readv"] == "works"
    refused = {way for way, outcome in found.items() if outcome in REFUSED_CALL}
    absent = {"finit_module", "init_module", "delete_module", "kexec_load", "kexec_file_load"}
    unsure = {"ptrace", "perf_event_open", "bpf", "io_uring_setup", "userfaultfd"}
    assert len(refused - absent - unsure) <= 8, refused


@pytest.mark.parametrize("name", ROLES)
def test_no_role_has_what_none_needs(name: str) -> None:
    """The kinds of calls that a review looks for, whatever else is added to a list."""
    never = {
        *("io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "execveat"),
        *("process_vm_readv", "process_vm_writev", "ptrace", "kcmp", "keyctl", "add_key", "bpf"),
        *("perf_event_open", "mount", "umount2", "unshare", "setns", "clone3", "pivot_root"),
        *("open_by_handle_at", "name_to_handle_at", "personality", "shmget", "mq_open", "msgget"),
        *("kexec_load", "kexec_file_load", "init_module", "finit_module", "pidfd_getfd", "kill"),
        *("symlink", "symlinkat", "link", "linkat", "renameat2", "mknod", "mknodat", "chown"),
        *("setuid", "setgid", "setgroups", "setresuid", "capset", "chroot", "openat2"),
        *("fsopen", "fsmount", "open_tree", "move_mount", "mount_setattr", "quotactl", "reboot"),
    }
    role = ROLES[name]
    assert not role.names() & never
    limited = {"memfd_create", "socket", "socketpair"}
    if name != "launcher":
        limited |= {"clone", "ioctl", "prctl", "prlimit64"}
    assert not role.allowed & limited
    if name != "fetch":
        assert not role.names() & {"socket", "connect", "bind"}


def test_a_fetch_has_the_internet_s_families_alone(probe: Path, tmp_path: Path) -> None:
    with_exec = CallFilter(FETCH_WORKER.allowed | {"execve"}, FETCH_WORKER.limited)
    found = outcomes(_under(with_exec, tmp_path, str(probe), "fetch").stdout, "fetch")
    opened = {way for way, outcome in found.items() if outcome not in REFUSED_CALL}
    assert opened - {"int80", *IN_MEMORY} == NETWORK


def test_a_name_that_the_library_does_not_know_is_no_hole() -> None:
    with pytest.raises(HostError, match="does not know the system call no_such_call"):
        compile_filter(CallFilter(frozenset({"read", "no_such_call"})))


def test_what_is_limited_is_not_allowed_besides() -> None:
    with pytest.raises(ValueError, match="allowed and limited: read"):
        CallFilter(frozenset({"read"}), {"read": one_of(0, 1)})


def test_arguments_are_compared(tmp_path: Path) -> None:
    """All arguments of one choice, and any of the choices."""
    base = QEMU.allowed | {"dup3"}
    limited = {**QEMU.limited, "getpriority": ((Argument(0, 0), Argument(1, 0)), *one_of(0, 2))}
    code = (
        "import os\n"
        "for which, who in ((0, 0), (0, 1), (2, 0), (2, 1), (1, 0)):\n"
        "    try: os.getpriority(which, who); print('yes')\n"
        "    except PermissionError: print('no')\n"
        "    except OSError: print('yes')\n"
    )
    done = _under(
        CallFilter(base | {"readlinkat"}, limited), tmp_path, sys.executable, "-I", "-S", "-c", code
    )
    assert done.stdout.split() == ["yes", "no", "yes", "yes", "no"], done.stderr
