"""Figures as Prometheus' text and as rates."""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from remote_api.client.cli.rates import host_rates, vm_rates
from remote_api.resources.metrics import render
from tests.framework.asgi import request
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import served
from vmkernel import model
from vmkernel.control import requests

NOW = "2026-01-01T00:00:00.000Z"
LATER = "2026-01-01T00:00:02.000Z"


def _vm(vm_id: str = "web", at: str = NOW, grown: int = 0) -> model.VmStatistics:
    flow = model.IoStatistics(
        operations=10 + grown,
        bytes=4096 * (10 + grown),
        seconds=0.5 + grown / 100,
        latency_counts=(1, 2, *[0] * 11, 3, 4),
    )
    guest = model.GuestMemory(updated_at=NOW, available_bytes=1 << 27, major_faults=7)
    return model.VmStatistics(
        id=vm_id,
        at=at,
        state=model.VmState.RUNNING,
        started_at="2025-12-31T23:59:00.000Z",
        cpu_seconds=12.5 + grown / 100,
        vcpus=(model.VcpuStatistics(index=0, seconds=12.0, waited_seconds=0.25 + grown / 100),),
        memory=model.MemoryStatistics(
            assigned_bytes=1 << 30, resident_bytes=1 << 28, balloon_bytes=1 << 29, guest=guest
        ),
        disks=(model.DiskStatistics(key="disk0", read=flow, write=flow),),
        nics=(
            model.NicStatistics(key="nic0", received_bytes=1000 + grown, sent_bytes=2000),
            model.NicStatistics(key="nic1"),
        ),
    )


def _host(at: str = NOW, grown: int = 0) -> model.HostStatistics:
    flow = model.IoStatistics(operations=1, bytes=4096 + grown, seconds=0.1)
    return model.HostStatistics(
        at=at,
        uptime_s=100.0 + grown,
        cpus=(
            model.HostCpu(index=0, seconds={"user": 5.0 + grown / 100, "idle": 90.0 + grown}),
            model.HostCpu(index=1, seconds={"user": 5.0, "idle": 90.0}),
        ),
        memory_total_bytes=1 << 34,
        memory_available_bytes=1 << 33,
        memory_promised_bytes=1 << 30,
        vmkernel_resident_bytes=1 << 25,
        waited_seconds={"cpu": 0.5},
        disks=(model.HostDiskStatistics(device="sda", read=flow, write=flow, busy_seconds=0.2),),
        links=(
            model.LinkStatistics(
                name="eth0",
                received_bytes=1,
                received_packets=2,
                received_dropped=3,
                received_errors=4,
                sent_bytes=5,
                sent_packets=6,
                sent_dropped=7,
                sent_errors=8,
            ),
        ),
        datastores=(model.DatastoreSpace(id="main", capacity_bytes=1 << 40, free_bytes=1 << 39),),
    )


def _all(vms: int = 1) -> requests.AllStatistics:
    return requests.AllStatistics(
        host=_host(),
        states={"off": model.VmState.STOPPED, "web": model.VmState.RUNNING},
        vms=tuple(_vm(f"web{n}" if n else "web") for n in range(vms)),
    )


def test_the_page_is_what_prometheus_reads() -> None:
    families = {f.name: f for f in text_string_to_metric_families(render(_all()).decode())}
    for name, family in families.items():
        assert family.documentation, name
        assert family.type in ("counter", "gauge", "histogram"), name
        assert name.startswith("mica_")
        if family.type == "counter":
            assert all(sample.name == f"{name}_total" for sample in family.samples)

    def value(name: str, **labels: str) -> float:
        family = families[name.removesuffix("_total").removesuffix("_bucket")]
        (found,) = (s.value for s in family.samples if s.name == name and s.labels == labels)
        return float(found)

    assert value("mica_vm_cpu_seconds_total", vm="web") == 12.5
    assert value("mica_vm_vcpu_wait_seconds_total", vm="web", vcpu="0") == 0.25
    assert value("mica_vm_memory_assigned_bytes", vm="web") == 1 << 30
    assert value("mica_vm_guest_memory_faults_total", vm="web", kind="major") == 7
    disk = {"vm": "web", "disk": "disk0", "operation": "read"}
    assert value("mica_vm_disk_bytes_total", **disk) == 40960
    assert value("mica_vm_disk_latency_seconds_bucket", **disk, le="0.00025") == 3
    assert value("mica_vm_disk_latency_seconds_bucket", **disk, le="+Inf") == 10
    assert value("mica_vm_network_receive_bytes_total", vm="web", nic="nic0") == 1000
    assert value("mica_vm_state", vm="off", state="stopped") == 1
    assert value("mica_vms", state="running") == 1
    assert value("mica_vms", state="crashed") == 0
    assert value("mica_host_cpu_seconds_total", cpu="0", mode="idle") == 90
    assert value("mica_datastore_free_bytes", datastore="main") == 1 << 39
    assert value("mica_vm_start_time_seconds", vm="web") == 1767225540


def test_what_nobody_counts_has_no_sample() -> None:
    text = render(_all()).decode()
    assert 'nic="nic1"' not in text
    assert "swapped_in" not in text


def test_families_stand_together_and_once() -> None:
    lines = render(_all(vms=3)).decode().splitlines()
    headers = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(headers) == len(set(headers))
    assert all(lines)


def test_a_page_of_many_vms_is_quick() -> None:
    figures = _all(vms=500)
    started = time.perf_counter()
    page = render(figures)
    assert page.count(b"\n") > 30_000
    assert time.perf_counter() - started < 3.0


@on_loop
async def test_routes(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetAllStatistics, _all())
        fake.answer(requests.GetVmStatistics, _vm())
        fake.answer(requests.GetHostStatistics, _host())
        accept = "application/openmetrics-text;q=0.5,text/plain;version=0.0.4;q=0.3"
        page = await request(
            api, "GET", "/metrics", token="mica_eye_secret", headers={"accept": accept}
        )
        assert page.status == 200
        assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await request(api, "GET", "/metrics", token=None)).status == 401
        vm = await request(api, "GET", "/v1/vms/web/stats")
        assert vm.json["memory"]["guest"]["major_faults"] == 7
        host = await request(api, "GET", "/v1/host/stats")
        assert host.json["cpus"][0]["seconds"]["idle"] == 90.0


def test_rates_of_a_vm() -> None:
    before, after = _vm(), _vm(at=LATER, grown=100)
    rates = vm_rates(before, after)
    assert rates is not None
    assert (rates.cpu, rates.waiting) == (0.5, 0.5)
    assert (rates.read.operations_s, rates.read.bytes_s) == (50, 50 * 4096)
    assert rates.read.latency_s == 0.01
    assert (rates.received_bytes_s, rates.sent_bytes_s) == (50, 0)
    still = vm_rates(before, _vm(at=LATER))
    assert still is not None
    assert still.read.latency_s is None
    assert vm_rates(after, before) is None


def test_rates_of_the_host() -> None:
    before, after = (
        _host(),
        _host(at=LATER, grown=100),
    )
    rates = host_rates(before, after)
    assert rates is not None
    assert (rates.cpu, rates.read_bytes_s, rates.received_bytes_s) == (0.5, 50, 0)
    assert host_rates(after, before) is None
