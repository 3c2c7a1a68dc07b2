"""Seeds as Mica makes them, taken by Debian's own cloud-init: who the guest is afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from tests.framework.cloud_init import Provisioned, Start, provisioned, verdicts
from tests.framework.hosted import HostedMica
from vmkernel.model import CloudInitSpec, DisplayModel, Firmware, NicSpec, VmSpec
from vmkernel.model import CloudInitSpec as ModelSpec
from vmkernel.vm.spec.cloud_init.documents import check_cloud_init, seed_files
from vmkernel.vm.spec.cloud_init.seed import make_seed
from vmkernel.vm.spec.cloud_init.user_data import user_data_fault

MAC = "52:54:00:00:00:01"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtBbVZ6l0X2T0m9k1o5v1cYJw0m3l6bqQ7n9yQXh2aB admin@x"
OTHER_KEY = KEY.replace("admin@x", "other@x")
HASH = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq"
STATIC = f"""\
network:
  version: 2
  ethernets:
    lan:
      match: {{macaddress: "{MAC}"}}
      set-name: lan0
      addresses: [192.0.2.5/24]
      routes: [{{to: 0.0.0.0/0, via: 192.0.2.1}}]
      nameservers: {{addresses: [192.0.2.53]}}
"""
SCRIPT = "#!/bin/sh\necho started >> /var/said/script\n"


def _seed_of(host: HostedMica, vm: str, folder: Path) -> Path:
    """A copy of the CD-ROM that a VM was started with."""
    (found,) = host.folder.glob(f"datastores/main/**/{vm}/seed.iso")
    copy = folder / f"{vm}.iso"
    copy.write_bytes(found.read_bytes())
    return copy


def test_a_vm_and_its_clone(host: HostedMica, mica: Mica, tmp_path: Path) -> None:
    """The clone is another machine; starting again is not."""
    seed = CloudInitSpec(
        hostname="web.example.org",
        user="admin",
        password_hash=HASH,
        ssh_keys=(KEY,),
        user_data=SCRIPT,
        meta_data={"region": "north"},
        network_config=STATIC,
    )
    spec = VmSpec(
        datastore="main",
        firmware=Firmware.BIOS,
        display=DisplayModel.NONE,
        nics=(NicSpec(mac=MAC),),
        cloud_init=seed,
    )
    mica.create_vm("seeded", spec)
    with pytest.raises(RefusedError) as refused:
        mica.patch_vm("seeded", {"cloud_init": {"network_config": "ethernets: {}"}})
    assert refused.value.problem.errors[0].pointer == "/spec/cloud_init/network_config"
    mica.wait(mica.clone_vm("seeded", "copy"))
    patch = {"cloud_init": {"network_config": None, "hostname": None}}
    mica.patch_vm("copy", patch)
    for name in ("seeded", "copy"):
        mica.wait(mica.start_vm(name))
        mica.wait(mica.power_off_vm(name))
    vm, clone = mica.vm("seeded"), mica.vm("copy")
    mine = Start(_seed_of(host, "seeded", tmp_path), [MAC])
    its = Start(_seed_of(host, "copy", tmp_path), [clone.spec.nics[0].mac or ""])
    first, again, other = provisioned(mine, mine, its)

    assert (first.label, first.errors) == ("CIDATA", [])
    assert first.files == ["meta-data", "network-config", "user-data"]
    assert (first.instance_id, first.hostname) == (vm.status.uuid, "web")
    assert first.meta_data["local-hostname"] == "web.example.org"
    assert first.meta_data["region"] == "north"
    assert first.password_hashes == {"admin": HASH}
    assert first.authorized_keys == {"admin": [KEY]}
    assert first.cards == {"lan0": MAC}
    unit = first.network_units["10-cloud-init-lan0.network"]
    for line in ("192.0.2.5/24", f"MACAddress={MAC}", "DNS=192.0.2.53", "Gateway=192.0.2.1"):
        assert line in unit
    assert first.judged["network-config"] == first.judged["merged"] == ""
    assert first.said == {"script": "started\n"}

    assert (again.instance_id, again.said, again.errors) == (first.instance_id, first.said, [])

    assert (other.instance_id, other.hostname, other.errors) == (clone.status.uuid, "copy", [])
    assert other.said == {"script": "started\n" * 2}
    assert other.cards == {"ens1": clone.spec.nics[0].mac}
    assert "DHCP=yes" in other.network_units["10-cloud-init-ens1.network"]
    for name in ("seeded", "copy"):
        mica.delete_vm(name)


def _taken(folder: Path, **fields: Any) -> Provisioned:
    """The guest after a start with these fields of `cloud_init`."""
    spec = ModelSpec(**fields)
    check_cloud_init(spec)
    image = folder / "seed.iso"
    image.write_bytes(make_seed(seed_files(spec, uuid="0b7a4c1e", vm_id="web")))
    (taken,) = provisioned(Start(image, [MAC]))
    assert taken.errors == []
    assert taken.judged["merged"] == ""
    return taken


MULTIPART = """\
Content-Type: multipart/mixed; boundary="=="
MIME-Version: 1.0

--==
Content-Type: text/x-shellscript

#!/bin/sh
echo part > /var/said/part
--==
Content-Type: text/cloud-config

runcmd: [[sh, -c, echo config > /var/said/config]]
--==--
"""
ARCHIVE = """\
#cloud-config-archive
- type: text/x-shellscript
  content: |
    #!/bin/sh
    echo part > /var/said/part
- type: text/cloud-config
  content: |
    runcmd: [[sh, -c, echo config > /var/said/config]]
"""
JINJA = """\
## template: jinja
#cloud-config
runcmd: [[sh, -c, "echo {{ v1.instance_id }} {{ ds.meta_data.region }} > /var/said/config"]]
"""


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (MULTIPART, {"part": "part\n", "config": "config\n"}),
        (ARCHIVE, {"part": "part\n", "config": "config\n"}),
        (JINJA, {"config": "0b7a4c1e north\n"}),
    ],
    ids=["multipart", "archive", "jinja"],
)
def test_own_data_beside_the_short_cuts(tmp_path: Path, own: str, said: dict[str, str]) -> None:
    taken = _taken(
        tmp_path, user_data=own, ssh_keys=(KEY,), user="admin", meta_data={"region": "north"}
    )
    assert taken.said == said
    assert taken.authorized_keys == {"admin": [KEY]}


def test_own_users_leave_the_short_cuts_theirs(tmp_path: Path) -> None:
    own = f"#cloud-config\nusers:\n- name: other\n  ssh_authorized_keys: [{OTHER_KEY}]\n"
    taken = _taken(tmp_path, user_data=own, ssh_keys=(KEY,), password_hash=HASH)
    assert taken.authorized_keys == {"debian": [KEY], "other": [OTHER_KEY]}
    assert taken.password_hashes["debian"] == HASH


def test_short_cuts_alone_are_valid_cloud_config(tmp_path: Path) -> None:
    network = (
        "version: 1\nconfig:\n- type: physical\n  name: lan0\n"
        f"  mac_address: '{MAC}'\n  subnets: [{{type: dhcp}}]\n"
    )
    taken = _taken(tmp_path, password_hash=HASH, ssh_keys=(KEY,), network_config=network)
    assert taken.judged == {"user-data": "", "merged": "", "network-config": ""}
    assert taken.password_hashes == {"debian": HASH}
    assert taken.cards == {"lan0": MAC}


_BEGINNINGS = ("", "\n", " \n\t", "\u00a0", "\ufeff", "x\n", "From nobody Mon Nov 30 2026\n")
_MIXED = "Content-Type: multipart/mixed; boundary="
_BODIES = (
    "#cloud-config\n{}\n",
    "#Cloud-Config\n{}\n",
    "#cloud-config\n- a\n",
    "#cloud-config\na:\n\t- b\n",
    "#cloud-config\n\f\n",
    '#cloud-config\na: "b\n\tc"\n',
    "#!/bin/sh\n:\n",
    "#cloud-boothook\n#!/bin/sh\n:\n",
    "#CLOUD-BOOTHOOK\n#!/bin/sh\n:\n",
    "#cloud-boothook\n:\n",
    "#part-handler\ndef list_types(): return ['text/x-mine']\ndef handle_part(*a): pass\n",
    "#cloud-config-archive\n- {type: text/x-shellscript, content: '#!/bin/sh'}\n",
    "#cloud-config-jsonp\n[]\n",
    "#Cloud-Config-Jsonp\n[]\n",
    "## template: jinja\n#cloud-config\n{}\n",
    "## TEMPLATE: Jinja\n#cloud-config\n{}\n",
    "## template: jinja\n{% set a = 1 %}#cloud-config\n{}\n",
    "## template: jinja\n\n#cloud-config\n{}\n",
    "## template: jinja\n#!/bin/sh\n",
    "## template: jinja\n\n#!/bin/sh\n",
    "## template: jinja\n#cloud-boothook\n#!/bin/sh\n",
    "## template: jinja2\n#cloud-config\n{}\n",
    "##template: jinja\n#cloud-config\n{}\n",
    "Content-Type: text/cloud-config\nMIME-Version: 1.0\n\n{}\n",
    "Content-Type: text/plain\nmime-version: 1.0\n\n#cloud-config\n{}\n",
    "MIME-Version: 1.0\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n",
    "MIME-Version: 1.0\nContent-Type: text/x-shellscript\n\necho\n",
    "MIME-Version: 1.0\nContent-Type: text/html\n\n<p>\n",
    "Content-Type: text/cloud-config\n\n{}\n",
    f'{_MIXED}"=="\n\n--==\n\n#!/bin/sh\n--==--\n',
    f'{_MIXED}"=="\nMIME-Version: 1.0\n\n--==\n\n#!/bin/sh\n--==--\n',
    f'{_MIXED}"=="\nMIME-Version: 1.0\n\n--==\n\nhello\n--==--\n',
    f'{_MIXED}"??"\nMIME-Version: 1.0\n\n--==\n\n#!/bin/sh\n--==--\n',
    "#ps1\ndir\n",
    "version: v1alpha1\n",
)


def test_mica_and_cloud_init_judge_user_data_alike(tmp_path: Path) -> None:
    """Of every beginning and body, Mica refuses exactly what Debian's cloud-init drops or the guest
    can't run."""
    texts = [beginning + body for beginning in _BEGINNINGS for body in _BODIES]
    theirs = verdicts(tmp_path, texts)
    ours = [user_data_fault(text) for text in texts]
    differ = {
        text: (mine, its)
        for text, mine, its in zip(texts, ours, theirs, strict=True)
        if (mine is None) != (its is None)
    }
    assert differ == {}
    assert 20 < sum(fault is None for fault in ours) < len(texts) - 20
