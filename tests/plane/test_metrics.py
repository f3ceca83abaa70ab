"""A node's /metrics: what its relay counts."""

import asyncio
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from plane.addresses import AddressPlan
from plane.metrics import NODE_PORT
from tests.plane.local import serving
from tests.plane.test_services import WEB, asked, cluster_ip, pod, service

pytestmark = pytest.mark.syscalls


async def test_metrics_of_nodes_count_the_connections_that_they_carried(plan: AddressPlan) -> None:
    def scraped(node: int) -> dict[tuple[str, str], float]:
        with urllib.request.urlopen(f"http://{plan.node(node)}:{NODE_PORT}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        rows = (row for family in families for row in family.samples)
        return {(row.name.removeprefix("trafficplane_node_"), *row.labels.values()): row.value for row in rows}

    async with serving(plan, [service(), pod("one")], nodes=2) as control:
        await asked(cluster_ip(control), 20)
        async with asyncio.timeout(60):  # the relay hears of an end a little later
            while True:
                found = [await asyncio.to_thread(scraped, node) for node in (1, 2)]
                if sum(each["connection_ends_total", "CLOSED"] for each in found) == 20:
                    break
        assert sum(each["outcomes_total", "NEW"] for each in found) == 20
        assert all(each["connections",] == 0 for each in found)
        assert all(each["generation",] > 0 for each in found)
        assert control.store.get(WEB)
