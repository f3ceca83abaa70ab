"""The honesty test: flows that a live relay carried, steered again under the same Fibs, get the same verdicts."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.flows.columns import read_flows, write_flows
from harness.flows.fleet import Fleet
from harness.flows.making import Tables
from harness.flows.steering import Course, Shard, carry
from kernels.layout import MAGLEV, MH, RANDOM, RR, SH, Fib, Flows, Verdicts, freeze
from kernels.lb.forward import create_steering, forward
from plane import fib as fibs
from plane.addresses import AddressPlan, int_to_ip
from plane.model import Snapshot
from plane.proxy import Proxy
from tests.loopback import Pod, ask, echo, eventually

pytestmark = pytest.mark.syscalls

PODS, FIRST_POD, PORT, POD_PORT = 5, 150, 8088, 8080
CONNECTIONS = 40


@pytest.fixture
def proxy(plan: AddressPlan) -> Iterator[Proxy]:
    proxy = Proxy(plan, 1, connections=512)
    proxy.start()
    yield proxy
    proxy.stop(0)


def fleet_of(plan: AddressPlan) -> Fleet:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": str(plan.cluster_ips[900]), "ports": [{"port": PORT}]},
    }
    rows = [{"addresses": [str(plan.pods_of(1)[FIRST_POD + number])]} for number in range(PODS)]
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": rows,
        "ports": [{"name": "", "port": POD_PORT}],
    }
    return Fleet(Snapshot(generation=1).changed([service, endpoints]), 0)


def carried_live(proxy: Proxy, plan: AddressPlan, fleet: Fleet, algorithm: int) -> tuple[dict[str, Any], list[Fib]]:
    """What the relay recorded of connections under one Fib after the other: all pods, two fewer, all again."""
    found = []
    for change in (lambda: None, lambda: fleet.remove(("default", "web"), 2, 1), fleet.restore):
        change()
        found.append(fibs.compile(fleet.snapshot, algorithm))
        proxy.install(found[-1])
        for number in range(CONNECTIONS):
            source = str(plan.pods_of(2)[10 + number])
            assert ask((str(plan.cluster_ips[900]), PORT), source=source) == b"?"
        eventually(lambda: proxy.live() == 0)
    return proxy.recorded(), found


@pytest.mark.parametrize("algorithm", [MAGLEV, MH, SH, RANDOM, RR])
def test_recorded_flows_replayed_get_the_same_verdicts(
    proxy: Proxy, plan: AddressPlan, tmp_path: Path, algorithm: int
) -> None:
    pods = [Pod((str(plan.pods_of(1)[FIRST_POD + number]), POD_PORT), echo) for number in range(PODS)]
    try:
        recorded, found = carried_live(proxy, plan, fleet_of(plan), algorithm)
    finally:
        for pod in pods:
            pod.close()
    assert len(recorded["proto"]) == 3 * CONNECTIONS
    names = ("client_ip", "frontend_ip", "client_port", "frontend_port", "proto")
    write_flows(Flows(*(recorded[name] for name in names)), tmp_path / "flows.arrow")
    flows = read_flows(tmp_path / "flows.arrow")

    by_generation = {int(fib.generation): fib for fib in found}
    steering = create_steering(found[0], 0)
    outcomes, backends = [], []
    for row, (generation, now_ns) in enumerate(zip(recorded["generation"], recorded["opened_ns"], strict=True)):
        verdicts = Verdicts(np.zeros(1, np.uint8), np.zeros(1, np.uint32), np.zeros(1, np.uint32))
        one = Flows(*(column[row : row + 1] for column in flows))
        forward(by_generation[int(generation)], steering, one, int(now_ns), verdicts)
        outcomes.append(int(verdicts.outcome[0]))
        backends.append(int(verdicts.backend[0]))
    assert outcomes == recorded["outcome"].tolist()
    assert backends == recorded["backend"].tolist()
    assert len(set(backends)) == PODS


def test_flow_mode_counts_what_the_pods_counted(proxy: Proxy, plan: AddressPlan) -> None:
    """The same by the whole way of a run of flows, whose trace are the connections under one Fib."""
    pods = [Pod((str(plan.pods_of(1)[FIRST_POD + number]), POD_PORT), echo) for number in range(PODS)]
    try:
        recorded, (fib, *_) = carried_live(proxy, plan, fleet_of(plan), MAGLEV)
    finally:
        for pod in pods:
            pod.close()
    names = ("client_ip", "frontend_ip", "client_port", "frontend_port", "proto")
    trace = Flows(*(recorded[name][:CONNECTIONS] for name in names))
    stays = freeze(np.ones(len(fib.backends), np.uint8))
    course = Course((Tables(fib, None, stays),), (0,), (0,), None, trace, None, CONNECTIONS, CONNECTIONS, 0, 10**9)
    (loads,) = carry(course, Shard(0, 1)).loads
    counted = Counter(map(int_to_ip, recorded["backend_ip"][:CONNECTIONS].tolist()))
    assert {int_to_ip(fib.backends[each]["ip"]): int(loads[each]) for each in np.flatnonzero(loads)} == counted
