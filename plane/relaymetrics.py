"""What a node's relay counts, for ``/metrics``."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from plane.proxy import Proxy


def collect(proxy: Proxy) -> Iterable[Metric]:
    """Metric families of now. Blocks until the relay has answered; raises PlaneError where it has failed."""
    yield _counter("outcomes", "Connections and flows by what was decided.", "outcome", proxy.outcomes())
    yield _counter("connection_ends", "Connections by how they ended.", "how", proxy.ends())
    yield _counter("datagrams", "Datagrams by what became of them.", "fate", proxy.datagrams())
    yield _gauge("connections", "Connections there are.", proxy.live())
    yield _gauge("datagram_flows", "Flows of datagrams there are.", proxy.live_flows())
    yield _gauge("generation", "Generation of the tables in force.", proxy.generation)


def _counter(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"trafficplane_node_{name}", text, labels=(label,))
    for word, count in counts.items():
        if word != "NONE":
            family.add_metric((word,), count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"trafficplane_node_{name}", text, value=value)
