"""Bodies that the OpenAPI document shows, by wire type: what a first request looks like."""

from __future__ import annotations

from typing import Any

__all__ = ["EXAMPLES"]

_GIB = 1 << 30
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

EXAMPLES: dict[str, dict[str, Any]] = {
    "BackupBody": {"all disks, and record changes from now on": {"checkpoint": "monday"}},
    "CaptureBody": {
        "a template": {"spec": {"volume": "web-1", "format": "qcow2", "compress": True}}
    },
    "ClaimBody": {"as the console shows it": {"code": "ABCDE-FGHJK"}},
    "CloneBody": {"a copy": {"id": "web-2", "spec": {"name": "The second"}}},
    "ConsoleBody": {"serial line": {"kind": "serial", "mode": "write"}},
    "DatastoreBody": {
        "a blank disk": {"spec": {"kind": "local", "disk": "S3Z9NB0K123456"}},
        "NFS": {
            "spec": {"kind": "nfs", "nfs": {"server": "nas.example", "export": "/export/mica"}}
        },
    },
    "KeepVolumeBody": {"a VM's disks": {"together_with": ["web-disk1", "web-disk2"]}},
    "KeysBody": {"a chord, then text": {"keys": ["ctrl-alt-f2"], "text": "root\n"}},
    "PowerBody": {"reboot": {"action": "reboot"}},
    "PullBody": {
        "a disk image": {
            "spec": {
                "datastore": "main",
                "url": "https://images.example/debian-13.qcow2",
                "sha256": _SHA256,
            }
        }
    },
    "SnapshotBody": {"with memory": {"spec": {"description": "Before the update", "memory": True}}},
    "TokenBody": {
        "for a monitor": {"spec": {"role": "viewer", "expires_at": "2099-01-01T00:00:00Z"}}
    },
    "VmBody": {
        "minimal": {"spec": {"datastore": "main", "disks": [{"volume": "web-1"}], "nics": [{}]}},
        "installed from a CD": {
            "spec": {
                "datastore": "main",
                "cpus": {"count": 2},
                "memory_bytes": 2 * _GIB,
                "disks": [{"volume": "web-1"}],
                "cdroms": [{"image": "debian-13"}],
                "nics": [{"port_group": "vm-network"}],
                "labels": {"team": "web"},
            }
        },
    },
    "VmBodyPatch": {"more of both": {"spec": {"cpus": {"count": 4}, "memory_bytes": 4 * _GIB}}},
    "VolumeBody": {
        "blank": {"spec": {"datastore": "main", "size_bytes": 20 * _GIB}},
        "from an image": {
            "spec": {"datastore": "main", "size_bytes": 20 * _GIB, "source_image": "debian-13"}
        },
    },
    "VolumeBodyPatch": {"larger": {"spec": {"size_bytes": 40 * _GIB}}},
    "DatastoreBodyPatch": {"warn earlier": {"spec": {"warning_percent": 70}}},
    "WipeDiskBody": {"say it twice": {"disk": "S3Z9NB0K123456", "wipe_serial": "S3Z9NB0K123456"}},
}
