"""What an ingress counts of the requests it has answered, for ``/metrics``.

Law: a request costs one look-up in a dictionary and one bisection when it is done. Labels come from manifests and from
status codes, never from what a client sends, so that no stranger can make series; a status that HTTP does not have is
"other", and series of an Ingress that is gone go with it.
"""

import operator
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, compress

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from plane.routes import Origin, Port

# Upper bounds of durations, those of Prometheus' client libraries with some below: requests here take microseconds.
BUCKETS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LABELS = ("namespace", "ingress", "service", "status")

LATE = 1000  # Ingresses that have gone of which it is remembered, for requests to them may be under way
OTHER = 0  # stands for every status that HTTP does not have

Series = tuple[str, str, Port | None, int]


class Metrics:
    """Counts for one ingress."""

    def __init__(self) -> None:
        self._origins: tuple[Origin, ...] = ()
        self._counted: set[tuple[str, str]] = set()  # Ingresses that there are series of
        self._gone: set[tuple[str, str]] = set()  # that are no more, or so it seems, for they may be among others
        self._durations: dict[Series, list[int]] = {}  # how many in each bucket, beyond the last, and their ns together
        self._retries: dict[tuple[str, str, Port | None], int] = {}
        self._faults: dict[tuple[str, str, Port | None], int] = {}
        self.installs = 0
        self.punts: dict[str, int] = {}
        self.given_back = self.crowded_out = 0
        self.mirrored = dict.fromkeys(("sent", "failed", "dropped"), 0)

    def add(
        self, origin: Origin, service: Port | None, status: int, duration_ns: int, retries: int, faults: int = 0
    ) -> None:
        """A request is done: which rule took it, for which Service, what the client was told, for how long it was.

        retries  tries after the first, and ``faults`` those that an endpoint is to blame for
        """
        series = origin.namespace, origin.ingress, service, status if 100 <= status <= 599 else OTHER
        buckets = self._buckets(series)
        buckets[bisect_left(BUCKETS_S, duration_ns / 1e9)] += 1
        buckets[-1] += duration_ns
        if retries:
            named = series[:3]
            self._retries[named] = self._retries.get(named, 0) + retries
        if faults:
            named = series[:3]
            self._faults[named] = self._faults.get(named, 0) + faults

    def add_many(self, origin: Origin, service: Port | None, status: int, durations_ns: np.ndarray) -> None:
        """The same for several requests that were tried once each."""
        series = origin.namespace, origin.ingress, service, status if 100 <= status <= 599 else OTHER
        buckets = self._buckets(series)
        places = np.searchsorted(BUCKETS_S, durations_ns / 1e9, side="left")
        for place, count in enumerate(np.bincount(places, minlength=len(BUCKETS_S) + 1).tolist()):
            buckets[place] += count
        buckets[-1] += int(durations_ns.sum())

    def _buckets(self, series: Series) -> list[int]:
        if series not in self._durations:
            self._counted.add(series[:2])
            self._durations[series] = [0] * (len(BUCKETS_S) + 2)
        return self._durations[series]

    def keep(self, origins: Iterable[Origin]) -> None:
        """Forget what was counted for other Ingresses than those of ``origins``; later, what was under way for them.

        As long as nothing was counted for any that has gone it takes the time to compare with the origins before.
        """
        if len(self._gone) > LATE:
            self._gone.clear()
        before, self._origins = self._origins, tuple(origins)
        others = compress(range(len(before)), map(operator.is_not, before, self._origins))  # hardly any, but for equals
        gone = {before[row] for row in others if before[row] != self._origins[row]} | {*before[len(self._origins) :]}
        self._gone.update((origin.namespace, origin.ingress) for origin in gone)
        if self._gone.isdisjoint(self._counted):
            return
        there = {(origin.namespace, origin.ingress) for origin in self._origins}
        self._gone -= there
        self._counted &= there
        self._durations = {row: buckets for row, buckets in self._durations.items() if row[:2] in there}
        self._retries = {row: count for row, count in self._retries.items() if row[:2] in there}
        self._faults = {row: count for row, count in self._faults.items() if row[:2] in there}

    def collect(
        self,
        *,
        at_work: int,
        idle: int,
        out: int,
        open_connections: int,
        generation: int,
        compiled: bool = False,
        lines_lost: int | None = None,
    ) -> Iterable[Metric]:
        """Metric families of now.

        at_work           requests under way
        idle              connections to endpoints that wait for a request
        out               endpoints that are left out since they failed
        open_connections  of clients
        generation        of the Routes in force
        compiled          whether the compiled gateway is at work, all of it
        lines_lost        lines that the access log has lost, None: there is no log
        """
        yield from self._requests()
        yield _gauge("requests_in_flight", "Requests under way.", at_work)
        yield _gauge("client_connections", "Connections of clients.", open_connections)
        yield _gauge("upstream_idle_connections", "Connections to endpoints that wait for a request.", idle)
        yield _gauge("upstream_endpoints_out", "Endpoints that are left out since they failed.", out)
        yield _gauge("generation", "Generation of the routes in force.", generation)
        yield _gauge("gateway_up", "Whether the compiled gateway is at work, 1 or 0.", int(compiled))
        mirrored = CounterMetricFamily("trafficplane_ingress_mirrored", "Copies of requests.", labels=("result",))
        for result, count in self.mirrored.items():
            mirrored.add_metric((result,), count)
        yield mirrored
        if lines_lost is not None:
            lost = CounterMetricFamily("trafficplane_ingress_access_log_lost", "Lines that the access log has lost.")
            lost.add_metric((), lines_lost)
            yield lost
        installs = CounterMetricFamily("trafficplane_ingress_installs", "Routes put in force.")
        installs.add_metric((), self.installs)
        yield installs
        punts = CounterMetricFamily(
            "trafficplane_ingress_punts", "Connections that the gateway left to the slow path.", labels=("reason",)
        )
        for reason, count in self.punts.items():
            punts.add_metric((reason,), count)
        yield punts
        yield _count("given_back", "Connections that the slow path gave back to it.", self.given_back)
        yield _count("crowded_out", "Idle connections that it closed to make room for others.", self.crowded_out)

    def _requests(self) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            "trafficplane_ingress_request_duration_seconds",
            "From the end of a request's head to the last byte of its answer.",
            labels=LABELS,
        )
        requests = CounterMetricFamily("trafficplane_ingress_requests", "Requests answered.", labels=LABELS)
        for (namespace, ingress, service, status), buckets in self._durations.items():
            labels = namespace, ingress, str(service or ""), str(status) if status != OTHER else "other"
            counts = list(accumulate(buckets[:-1]))
            bounds = [*map(str, BUCKETS_S), "+Inf"]
            durations.add_metric(labels, list(zip(bounds, counts, strict=True)), buckets[-1] / 1e9)
            requests.add_metric(labels, counts[-1])
        retries = self._tries("retries", "Tries of requests after the first.", self._retries)
        faults = self._tries("faults", "Tries of requests that an endpoint is to blame for.", self._faults)
        yield from (durations, requests, retries, faults)

    @staticmethod
    def _tries(name: str, text: str, counts: Mapping[tuple[str, str, Port | None], int]) -> CounterMetricFamily:
        found = CounterMetricFamily(f"trafficplane_ingress_{name}", text, labels=LABELS[:3])
        for (namespace, ingress, service), count in counts.items():
            found.add_metric((namespace, ingress, str(service or "")), count)
        return found


def _count(name: str, text: str, count: int) -> CounterMetricFamily:
    found = CounterMetricFamily(f"trafficplane_ingress_{name}", text)
    found.add_metric((), count)
    return found


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trafficplane_ingress_{name}", text, value=value)
