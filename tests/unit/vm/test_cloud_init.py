"""cloud-init's seed: what is in it, what is refused, and what of it is not shown."""

from __future__ import annotations

import base64
import io
import stat
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import msgspec
import pycdlib
import pytest
from msgspec.structs import replace

from tests.framework.running import on_loop
from vmkernel.model import (
    CONCEALED,
    CdromSpec,
    CloudInitSpec,
    MicaError,
    OperationState,
    UserDataFormat,
    Vm,
    VmAction,
    VmSpec,
    VmState,
    VmStatus,
)
from vmkernel.vm.spec.cloud_init.documents import check_cloud_init, seed_files
from vmkernel.vm.spec.cloud_init.secrets import concealed, revealed
from vmkernel.vm.spec.cloud_init.seed import make_seed
from vmkernel.vm.spec.cloud_init.ssh_key import ssh_key_fault

from .test_driver import running

UUID = "0b7a4c1e-6a9e-4d5c-8f2b-3f0b8d6f5a11"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtBbVZ6l0X2T0m9k1o5v1cYJw0m3l6bqQ7n9yQXh2aB admin@x"
HASH = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq"
OWN = "#cloud-config\nssh_authorized_keys: [ssh-ed25519 AAAA other]\nruncmd: [[touch, /done]]\n"

_STATUS = VmStatus(state=VmState.STOPPED, uuid=UUID, machine_type="pc-q35-10.0")


def _files(**fields: Any) -> dict[str, bytes]:
    spec = CloudInitSpec(**fields)
    check_cloud_init(spec)
    return seed_files(spec, uuid=UUID, vm_id="web")


def _config(text: bytes) -> Any:
    mark, _, body = text.partition(b"\n")
    assert mark == b"#cloud-config"
    return msgspec.json.decode(body)


def _payload(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


def test_nothing_but_a_name() -> None:
    files = _files()
    assert set(files) == {"meta-data", "user-data"}
    assert msgspec.json.decode(files["meta-data"]) == {
        "instance-id": UUID,
        "local-hostname": "web",
    }
    assert _config(files["user-data"]) == {}


def test_short_cuts_become_cloud_config() -> None:
    files = _files(
        hostname="web.example.org",
        user="admin",
        password_hash=HASH,
        ssh_keys=(KEY,),
        meta_data={"region": "north"},
        network_config="version: 2\n",
    )
    assert msgspec.json.decode(files["meta-data"])["local-hostname"] == "web.example.org"
    assert msgspec.json.decode(files["meta-data"])["region"] == "north"
    assert files["network-config"] == b"version: 2\n"
    assert _config(files["user-data"]) == {
        "user": {"name": "admin", "lock_passwd": False, "hashed_passwd": HASH},
        "ssh_authorized_keys": [KEY],
        "users": ["default"],
    }


def test_a_password_of_the_systems_own_user() -> None:
    """cloud-init's schema wants a name in `user`, and only `password` works without."""
    assert _config(_files(password_hash=HASH)["user-data"]) == {
        "password": HASH,
        "chpasswd": {"expire": False},
        "users": ["default"],
    }


def test_own_data_stay_as_they_are() -> None:
    assert _files(user_data=OWN)["user-data"] == OWN.encode()


@pytest.mark.parametrize(
    ("own", "kind"),
    [
        (OWN, "text/cloud-config"),
        ("#!/bin/sh\necho grüße\n", "text/x-shellscript"),
        ("#include\nhttps://example.org/x\n", "text/x-include-url"),
        ("## template: jinja\n#cloud-config\n{}\n", "text/jinja2"),
        ("#cloud-config-archive\n- a\n", "text/cloud-config-archive"),
    ],
)
def test_both_become_parts(own: str, kind: str) -> None:
    whole = message_from_bytes(_files(user_data=own, ssh_keys=(KEY,))["user-data"])
    assert whole.get_content_type() == "multipart/mixed"
    first, second = [part for part in whole.walk() if not part.is_multipart()]
    assert first.get_content_type() == kind
    assert _payload(first).decode() == own
    assert second["Merge-Type"] == "list(append)+dict(no_replace,recurse_list)+str()"
    assert _config(_payload(second))["ssh_authorized_keys"] == [KEY]
    again = _files(user_data=own, ssh_keys=(KEY,))["user-data"]
    assert again == _files(user_data=own, ssh_keys=(KEY,))["user-data"], "not the same twice"


def test_parts_of_the_callers_are_kept() -> None:
    own = _files(user_data="#!/bin/sh\n:\n", ssh_keys=(KEY,))["user-data"].decode()
    whole = message_from_bytes(_files(user_data=own, user="x")["user-data"])
    kinds = [part.get_content_type() for part in whole.walk() if not part.is_multipart()]
    assert kinds == ["text/x-shellscript", "text/cloud-config", "text/cloud-config"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"user_data": "hello"}, "/spec/cloud_init/user_data"),
        ({"user_data": "#cloud-config\n\x00"}, "/spec/cloud_init/user_data"),
        ({"user_data": ""}, "/spec/cloud_init/user_data"),
        ({"user_data": "## template: jinja\nhello"}, "/spec/cloud_init/user_data"),
        ({"user_data": "#cloud-config\nruncmd:\n\t- true"}, "/spec/cloud_init/user_data"),
        ({"user_data": "#cloud-config\n\n# mine\n- a: b"}, "/spec/cloud_init/user_data"),
        ({"network_config": "\x1b"}, "/spec/cloud_init/network_config"),
        ({"network_config": "ethernets: {}"}, "/spec/cloud_init/network_config"),
        ({"network_config": "version: 3"}, "/spec/cloud_init/network_config"),
        ({"network_config": "subversion: 2"}, "/spec/cloud_init/network_config"),
        ({"network_config": '[{"version": 2}]'}, "/spec/cloud_init/network_config"),
        ({"network_config": "version: 2\nbonds:\n\ta: {}"}, "/spec/cloud_init/network_config"),
        ({"password_hash": "$y$j9T$salt$hash"}, "/spec/cloud_init/password_hash"),
        ({"meta_data": {"instance-id": "x"}}, "/spec/cloud_init/meta_data/instance-id"),
    ],
)
def test_what_no_guest_could_take_is_refused(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(MicaError) as caught:
        _files(**fields)
    assert caught.value.problem.fields[0].pointer == pointer


ED25519 = KEY.split()[1]


def _rsa(bits: int) -> str:
    number = (1 << (bits - 1)).to_bytes(bits // 8 + 1)
    fields = (b"ssh-rsa", b"\x01\x00\x01", number)
    return base64.b64encode(b"".join(len(f).to_bytes(4) + f for f in fields)).decode()


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"ssh-ed25519 {ED25519}",
        f"ssh-ed25519\t{ED25519}   two  blanks",
        f'from="192.0.2.0/24",command="echo \\"a b\\"" {KEY}',
        f"no-pty {KEY}",
        f"ssh-rsa {_rsa(2048)} ann@example.org",
    ],
)
def test_keys_that_sshd_takes(line: str) -> None:
    assert ssh_key_fault(line) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("ssh-ed25519", "not a public key"),
        (f"ssh-ed448 {ED25519}", "not a public key"),
        (f"SSH-ED25519 {ED25519}", "not a public key"),
        (ED25519, "not a public key"),
        (f"ssh-ed25519 {ED25519[:-8]}", "damaged or cut off"),
        (f"ssh-ed25519 {ED25519}=", "damaged or cut off"),
        ("ssh-ed25519 AAAA", "damaged or cut off"),
        (f"ssh-rsa {ED25519}", "of another type"),
        (f"ssh-rsa {_rsa(768)}", "below 1024 bits"),
        (f'command="open {KEY}', "not a public key"),
        ("   ", "empty"),
    ],
)
def test_keys_that_sshd_ignores(line: str, why: str) -> None:
    assert why in (ssh_key_fault(line) or "")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"hostname": "a..b"}, "hostname"),
        ({"hostname": "a-.b"}, "hostname"),
        ({"hostname": "-a"}, "hostname"),
        ({"hostname": "a" * 64}, "hostname"),
        ({"hostname": "."}, "hostname"),
        ({"user": "1000"}, "user"),
        ({"user": "."}, "user"),
        ({"ssh_keys": (KEY, "ssh-rsa AAAA")}, "ssh_keys/1"),
        ({"format": UserDataFormat.ANY, "user": "ann"}, "user"),
        ({"format": UserDataFormat.ANY, "ssh_keys": (KEY,)}, "ssh_keys"),
        ({"format": UserDataFormat.ANY, "user_data": "x", "password_hash": HASH}, "password_hash"),
    ],
)
def test_names_and_keys_by_the_rules_of_their_readers(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(MicaError) as caught:
        _files(**fields)
    assert caught.value.problem.fields[0].pointer == f"/spec/cloud_init/{pointer}"


@pytest.mark.parametrize(
    "fields",
    [
        {"hostname": "Web_1.example.org"},
        {"user": "john.doe"},
        {"user": "Admin"},
        {"user": "svc$"},
    ],
)
def test_names_that_guests_take(fields: dict[str, Any]) -> None:
    assert _files(**fields)


@pytest.mark.parametrize(
    "text",
    ["version: v1alpha1\nmachine: {}\n", '{"ignition": {"version": "3.4.0"}}', "#ps1\ndir\n"],
)
def test_user_data_of_others_reach_the_guest_as_they_are(text: str) -> None:
    with pytest.raises(MicaError, match="`format` to `any`"):
        _files(user_data=text)
    assert _files(user_data=text, format=UserDataFormat.ANY)["user-data"] == text.encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"network_config": "network:\n  version: 2 # netplan's\n"},
        {"network_config": '{"version":1,"config":[]}'},
        {"network_config": "config: disabled"},
        {"user_data": "## template: jinja\n#!/bin/sh\n\techo {{ v1.instance_id }}\n"},
        {"user_data": "#cloud-config\nwrite_files:\n- content: |\n    a\n    \tb\n"},
        {"user_data": "#!/bin/sh\n\techo\n- a\n"},
        {"user_data": '#cloud-config\nmotd: "one\n\ttwo"\n'},
        {"user_data": "## template: jinja\n{% set a = 1 %}\n#cloud-config\n{}\n"},
        {"user": "admin", "password_hash": "$y$j9T$salt$hash"},
    ],
)
def test_what_is_right_gets_in(fields: dict[str, Any]) -> None:
    assert _files(**fields)["user-data"]


def test_the_line_is_told() -> None:
    with pytest.raises(MicaError, match=r"^Line 3 begins with a tab"):
        _files(user_data="#cloud-config\nruncmd:\n\t- true")


@pytest.mark.parametrize(
    "fields",
    [
        {"password_hash": "plain text"},
        {"password_hash": "$6$salt$x\n"},
        {"ssh_keys": ["ssh-ed25519 AAAA x\nssh-rsa BBBB y"]},
        {"ssh_keys": ["ssh-ed25519 AAAA \x1b[2J"]},
        {"user": "a:b"},
        {"user": "-r"},
        {"format": "talos"},
        {"hostname": "a b"},
        {"unknown": 1},
    ],
)
def test_wrong_values_don_t_get_in(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, CloudInitSpec)


def test_the_image_is_what_no_cloud_looks_for() -> None:
    files = _files(ssh_keys=(KEY,), network_config="version: 2\n", user_data=OWN)
    data = make_seed(files)
    image = pycdlib.PyCdlib()
    image.open_fp(io.BytesIO(data))
    assert image.pvd.volume_identifier.rstrip() == b"CIDATA"
    for name, content in files.items():
        read = io.BytesIO()
        image.get_file_from_iso_fp(read, rr_path=f"/{name}")
        assert read.getvalue() == content
    image.close()


def test_secrets_are_not_shown_and_stay() -> None:
    spec = VmSpec(
        datastore="main", cloud_init=CloudInitSpec(password_hash=HASH, user_data=OWN, user="x")
    )
    vm = Vm(id="web", revision=1, created_at="2026-01-01T00:00:00Z", spec=spec, status=_STATUS)
    for user_data in (False, True):
        shown = concealed(vm, user_data=user_data)
        text = msgspec.json.encode(shown)
        assert HASH.encode() not in text
        assert (b"touch" in text) is not user_data
        assert revealed(shown.spec, spec) == spec
    with pytest.raises(MicaError, match="there is none"):
        revealed(
            replace(spec, cloud_init=CloudInitSpec(password_hash=CONCEALED)),
            VmSpec(datastore="main"),
        )


@on_loop
async def test_a_start_makes_the_seed_for_this_vm_alone(tmp_path: Path) -> None:
    async with running(tmp_path, cloud_init=CloudInitSpec(user="admin")) as world:
        seed = world.storage.vms_folder("main") / "web" / "seed.iso"
        assert stat.S_IMODE(seed.stat().st_mode) == 0o400
        request = world.qemu().request
        assert seed in request.read_only
        assert any("cdrom7" in word for word in request.arguments)
        vm = world.vms.inventory.get("web")
        assert vm.status.uuid.encode() in seed.read_bytes()
        with pytest.raises(MicaError, match="at most 7 drives"):
            await world.create("many", cloud_init=CloudInitSpec(), cdroms=(CdromSpec(),) * 8)


@on_loop
async def test_a_template_is_not_started(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.act(VmAction.POWER_OFF)
        vm = world.vms.inventory.get("web")
        made = await world.vms.changes.update(
            "web", replace(vm.spec, template=True), 1, actor="test"
        )
        with pytest.raises(MicaError, match="is a template"):
            await world.act(VmAction.START)
        await world.vms.changes.update("web", vm.spec, made.revision, actor="test")
        assert (await world.act(VmAction.START)).state is OperationState.SUCCEEDED
