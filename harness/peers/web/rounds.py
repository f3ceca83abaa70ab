"""Rounds: every ingress once in each, in an order that turns, as ``harness.peers.rounds`` has it for L4.

Law: one subject at a time is up, started afresh for each number of rules; it gets one core, client and backends share
another. Before anything is timed the corpus has been answered rightly; a wrong answer is an error in the place of a
number, and the other rows go on.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from harness.peers.client import Measured
from harness.peers.process import Process, is_listening
from harness.peers.records import Row
from harness.peers.rounds import Cores, cores, row_of
from harness.peers.web import corpus
from harness.peers.web.caddy import Caddy
from harness.peers.web.client import COMPILED, COMPILING_S, Client
from harness.peers.web.direct import Direct
from harness.peers.web.envoy import Envoy
from harness.peers.web.haproxy import Haproxy
from harness.peers.web.nginx import Nginx
from harness.peers.web.ours import Asyncio, Trafficplane
from harness.peers.web.peer import Peer
from harness.peers.web.rayserve import RayServe
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Site
from harness.peers.web.traefik import Traefik
from harness.peers.web.workloads import WORKLOADS, Workload
from plane.descriptors import allow_descriptors
from plane.errors import PlaneError

READY_S = 60.0  # some listen before they know their routes
HOSTS = 100  # that the requests of a workload go to, at most
DESCRIPTORS = 20_000


def peers() -> dict[str, Peer]:
    """Every L7 subject there is, by name, in the order of the table."""
    ours: tuple[Peer, ...] = (Trafficplane(), Asyncio())
    every: tuple[Peer, ...] = (Direct(), *ours, Nginx(), Haproxy(), Envoy(), Traefik(), Caddy(), RayServe())
    return {peer.name: peer for peer in every}


@dataclass(frozen=True)
class Effort:
    """How much is measured, and who asks where two can; wrk knows whole seconds only."""

    rounds: int = 3
    seconds: int = 1
    workloads: tuple[Workload, ...] = WORKLOADS
    client: str = COMPILED


def measure(subjects: Sequence[Peer], sites: Mapping[int, Site], effort: Effort) -> Iterator[Row]:
    """All rows, as they come; ``sites`` by number of rules. Raises PlaneError where none can be had."""
    places = cores()
    allow_descriptors(DESCRIPTORS)
    with Client.of(effort.client, places) as client:
        for number in range(1, effort.rounds + 1):
            turned = number % len(subjects)
            for place, peer in enumerate([*subjects[turned:], *subjects[:turned]], start=1):
                for rules, group in groupby(carried(peer, effort), lambda workload: workload.rules):
                    turn = Turn(client, effort.seconds, places, number, place)
                    yield from _of_site(peer, sites[rules], list(group), turn)


def carried(peer: Peer, effort: Effort) -> list[Workload]:
    """The workloads that a peer does not refuse, those of equal rules together."""
    return sorted((each for each in effort.workloads if not peer.refuses(each)), key=lambda each: each.rules)


class Turn(NamedTuple):
    """A subject's turn in a round: who asks, how long, on which cores; round and place count from 1."""

    client: Client
    seconds: int
    places: Cores
    round: int
    place: int


def _of_site(peer: Peer, site: Site, workloads: list[Workload], turn: Turn) -> Iterator[Row]:
    hosts = sorted(site.hosts)[:: max(1, len(site.hosts) // HOSTS)][:HOSTS]
    done = 0
    try:
        with running(peer, site, turn.places, tls=any(each.tls for each in workloads)):
            for workload in workloads:
                where, asked = peer.reach(site, workload), hosts if workload.rules > 1 else [site.rules[0].host]
                measured = turn.client.measure(workload, where, asked, turn.seconds, peer.pids())
                yield _row(peer, workload, turn, measured)
                done += 1
    except PlaneError as failure:
        for workload in workloads[done:]:
            yield _row(peer, workload, turn, str(failure))


@contextmanager
def running(peer: Peer, site: Site, places: Cores, *, tls: bool) -> Iterator[None]:
    """The peer up with backends of its own behind it, as ``answering`` and ``carrying`` have it."""
    with answering(site, places), carrying(peer, site, places, tls=tls):
        yield


@contextmanager
def answering(site: Site, places: Cores) -> Iterator[None]:
    """The site's backends in a process of their own, ended on the way out. Raises PlaneError."""
    addresses = sorted({end for upstream in site.upstreams for end in upstream.endpoints})
    backends = Process([sys.executable, "-m", "harness.peers.web.backends", json.dumps(addresses)], places.others)
    try:
        if (line := backends.line(COMPILING_S)) != "ready":
            raise PlaneError(line)
        yield
    finally:
        backends.end()


@contextmanager
def carrying(peer: Peer, site: Site, places: Cores, *, tls: bool) -> Iterator[None]:
    """The peer up before the backends, and known to answer rightly; ended on the way out.

    Raises PlaneError where it does not start, or answers wrongly.
    """
    for port in (HTTP_PORT, HTTPS_PORT):
        if is_listening("TCP", site.address, port):  # which would answer in its place
            raise PlaneError(f"another program listens on {site.address}:{port}; end that one")
    try:
        peer.start(site, places.subject)
        if peer.routes:
            _prove(peer, site, tls=tls)
        yield
    finally:
        peer.stop()


def _prove(peer: Peer, site: Site, *, tls: bool) -> None:
    deadline = time.monotonic() + READY_S
    for secured in (False, True) if tls else (False,):
        while wrong := corpus.difference(site, tls=secured):
            if time.monotonic() > deadline:
                raise PlaneError(f"{peer.name}: wrong answer: {wrong}")
            time.sleep(0.05)


def _row(peer: Peer, workload: Workload, turn: Turn, outcome: Measured | str) -> Row:
    """What a measurement came to; in the place of one, why there is none."""
    unit = "connections" if workload.fresh else "requests"
    described = peer.name, workload.name, turn.round, turn.place, workload.connections, unit, workload.answer_bytes
    return row_of(described, outcome, has_processes=bool(peer.pids()))
