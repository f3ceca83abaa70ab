"""Which endpoint a request gets: the algorithms of Services through an Ingress, and ewma."""

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout import EWMA, INGRESS_ALGORITHMS, LC, NQ, P2C, RANDOM, RR, SED, SH, WLC, WRR
from plane.balance import Balancer, Standing, client_of, mix64, seed_of
from plane.explain import explain
from plane.ingress.edge import Edge, networks
from plane.model import Snapshot
from tests import reference
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.ingress.policies import named
from tests.ingress.test_failures import GET
from tests.ingress.wire import (
    PATIENCE_S,
    Address,
    Client,
    Endpoint,
    Running,
    ask,
    client,
    eventually,
    read_head,
    running,
    saying,
)

SERVICE_ALGORITHM = "trafficplane.dev/lb-algorithm"
SLOW_START = "trafficplane.dev/slow-start"
LEAST = (LC, WLC, SED, NQ)


@dataclass(eq=False)
class Row:
    """An endpoint as a Balancer sees one."""

    seed: int = 1
    weight: int = 1
    endpoint: Standing = field(default_factory=Standing)


def rows(*weights: int) -> list[Row]:
    return [Row(seed_of(number, 80), weight) for number, weight in enumerate(weights, start=1)]


def picks(algorithm: int, backends: list[Row], count: int, *, client: int = 0, now_s: float = 0.0) -> list[int]:
    """Indices of the endpoints that so many requests get, none of which is ever over."""
    balancer, found = Balancer(algorithm), []
    for _ in range(count):
        chosen = balancer.next(backends, backends, client, now_s)
        chosen.endpoint.under_way += 1
        found.append(backends.index(chosen))
    return found


@given(word=st.integers(0, (1 << 64) - 1))
def test_the_mixer_is_that_of_the_kernels(word: int) -> None:
    assert mix64(word) == reference.mix64(word)


@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_wrr_takes_the_turns_of_ipvs(weights: list[int]) -> None:
    steering = reference.Steering(idle_ns=0, pools=1, backends=0)
    pool = reference.Pool(0, "wrr", 0, 0, list(enumerate(weights)), [])
    expected = [reference._weighted_turn(steering, pool) for _ in range(2 * sum(weights))]
    assert picks(WRR, rows(*weights), 2 * sum(weights)) == expected


@pytest.mark.parametrize("algorithm", LEAST, ids=[INGRESS_ALGORITHMS[each] for each in LEAST])
def test_the_least_loaded_gets_the_next(algorithm: int) -> None:
    """So that requests that never end are spread by weight, or for lc evenly."""
    found = Counter(picks(algorithm, rows(1, 2, 3), 60))
    assert found == ({0: 20, 1: 20, 2: 20} if algorithm == LC else {0: 10, 1: 20, 2: 30})


@pytest.mark.parametrize("algorithm", LEAST, ids=[INGRESS_ALGORITHMS[each] for each in LEAST])
def test_of_equals_with_the_least_each_has_its_turn(algorithm: int) -> None:
    """Requests that are over before the next one comes do not all go to the first."""
    backends, balancer = rows(1, 1, 1), Balancer(algorithm)
    found = [backends.index(balancer.next(backends, backends, 0, 0.0)) for _ in range(6)]
    assert found == [0, 1, 2, 0, 1, 2]


def test_nq_goes_to_an_idle_one_before_a_heavy_one() -> None:
    assert picks(NQ, rows(1, 100), 2) == [0, 1]
    assert picks(SED, rows(1, 100), 2) == [1, 1]


def test_random_goes_by_weight() -> None:
    random.seed(1)
    found = Counter(picks(RANDOM, rows(1, 3), 4000))
    assert found[1] / 4000 == pytest.approx(0.75, abs=0.03)


def test_of_two_at_random_the_less_loaded() -> None:
    random.seed(1)
    backends = rows(1, 1, 2)
    backends[0].endpoint.under_way = 100
    assert 0 not in picks(P2C, backends, 50)
    assert Counter(picks(P2C, rows(1, 2), 90)) == {0: 30, 1: 60}


def test_hashes_keep_clients_and_move_those_of_who_goes_only() -> None:
    backends, balancer = rows(1, 1, 1, 5), Balancer(SH)
    clients = [client_of(f"10.0.{number >> 8}.{number & 255}") for number in range(4000)]
    before = [balancer.next(backends, backends, each, 0.0) for each in clients]
    assert before == [balancer.next(backends, backends, each, 0.0) for each in clients]
    shares = Counter(backends.index(each) for each in before)
    assert [shares[number] / 4000 for number in range(4)] == pytest.approx([1 / 8, 1 / 8, 1 / 8, 5 / 8], abs=0.03)
    left = backends[1:]
    for each, had in zip(clients, before, strict=True):
        now = balancer.next(backends, left, each, 0.0)
        assert now is had if had is not backends[0] else now in left


@given(answers=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 5)), max_size=20), later_s=st.floats(0, 100))
def test_speed_is_remembered_as_ingress_nginx_does(answers: list[tuple[float, float]], later_s: float) -> None:
    """``decay_ewma`` of its ewma.lua, told anew."""
    standing, average, touched, now = Standing(), 0.0, 0.0, 1000.0
    for pause_s, took_s in answers:
        now += pause_s
        weight = math.exp(-(now - touched) / 10)
        average, touched = average * weight + took_s * (1.0 - weight), now
        standing.heard(took_s, now)
    expected = average * math.exp(-(now + later_s - touched) / 10)
    assert standing.score(now + later_s) == pytest.approx(expected)


def test_ewma_gives_the_faster_of_two_and_asks_the_slow_one_again_later() -> None:
    backends = rows(1, 1)
    backends[0].endpoint.heard(5.0, 1000.0)
    backends[1].endpoint.heard(0.1, 1000.0)
    assert set(picks(EWMA, backends, 20, now_s=1001.0)) == {1}
    backends[1].endpoint.heard(0.1, 1060.0)
    assert set(picks(EWMA, backends, 20, now_s=1060.0)) == {0}


def test_who_has_never_been_asked_counts_as_fast_as_the_others_are_on_average() -> None:
    backends = rows(1, 1, 1)
    backends[0].endpoint.heard(1.0, 1000.0)
    backends[1].endpoint.heard(3.0, 1000.0)
    Balancer(EWMA).settle(backends, 1000.0)
    assert backends[2].endpoint.score(1000.0) == pytest.approx(2.0)


def web(
    *pods: Address,
    algorithm: str = "",
    slow_start: str = "",
    generation: int = 1,
    weights: tuple[int, ...] = (),
    **said: str,
) -> Snapshot:
    """``example.com`` to the Service ``web`` with this algorithm, by an Ingress with annotations of ingress-nginx."""
    made = slices("web", pods)
    by_algorithm = {SERVICE_ALGORITHM: algorithm} if algorithm else {}
    slowly = {SLOW_START: slow_start} if slow_start else {}
    for obj, weight in zip(made, weights, strict=False):
        obj["metadata"]["annotations"] = {"service.cilium.io/weight": str(weight)}
    return snapshot_of(
        service("web", annotations={**by_algorithm, **slowly}),
        *made,
        ingress("web", rule("example.com", prefix("/", "web")), annotations=named(**said)),
        generation=generation,
    )


@contextlib.asynccontextmanager
async def all_of(pods: list[Address]) -> AsyncIterator[list[Endpoint]]:
    """An endpoint at each, which answers with its number."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Endpoint(pod, saying(b"%d" % number))) for number, pod in enumerate(pods)
        ]


async def test_weights_of_slices_count_through_the_ingress(vip: str, pods: list[Address]) -> None:
    snapshot = web(*pods[:2], algorithm="wrr", weights=(3, 1))
    async with all_of(pods[:2]), client_of_ingress(vip, snapshot) as (_, one):
        found = b"".join([(await one.get()).body for _ in range(8)])
    assert Counter(found) == {ord("0"): 6, ord("1"): 2}


async def test_the_annotation_of_the_ingress_comes_before_that_of_the_service(vip: str, pods: list[Address]) -> None:
    async with all_of(pods), running(vip, web(*pods, algorithm="sh")) as here, client(here.http) as one:
        assert len({(await one.get()).body for _ in range(8)}) == 1
        await here.install(web(*pods, algorithm="sh", generation=2, load_balance="round_robin"))
        assert Counter([(await one.get()).body for _ in range(8)]) == {b"%d" % number: 2 for number in range(4)}


async def test_turns_go_on_over_an_install(vip: str, pods: list[Address]) -> None:
    async with all_of(pods[:2]), client_of_ingress(vip, web(*pods[:2], algorithm="wrr")) as (here, one):
        found = [(await one.get()).body]
        await here.install(web(*pods[:2], algorithm="wrr", generation=2))
        found.append((await one.get()).body)
        assert found == [b"0", b"1"]


@contextlib.asynccontextmanager
async def client_of_ingress(vip: str, snapshot: Snapshot) -> AsyncIterator[tuple[Running, Client]]:
    """An ingress that serves, and a connection to it."""
    async with running(vip, snapshot) as here, client(here.http) as one:
        yield here, one


@pytest.mark.parametrize("algorithm", ["sh", "mh"])
async def test_a_client_keeps_to_its_endpoint_which_explain_knows(
    vip: str, pods: list[Address], algorithm: str
) -> None:
    snapshot = web(*pods, algorithm=algorithm)
    edge = Edge(networks("127.0.0.0/8"))
    async with all_of(pods), running(vip, snapshot, edge=edge) as here, client(here.http) as one:
        seen = set()
        for number in range(12):
            address = f"192.0.2.{number}"
            found = {(await one.get(fields=f"X-Forwarded-For: {address}\r\n")).body for _ in range(2)}
            chosen = explain(snapshot, "http://example.com/", from_ip=address).chosen
            assert chosen is not None
            assert found == {b"%d" % pods.index((chosen["ip"], chosen["port"]))}
            seen |= found
        assert len(seen) > 1


async def test_maglev_keeps_a_connection_of_a_client(vip: str, pods: list[Address]) -> None:
    async with all_of(pods), running(vip, web(*pods, algorithm="maglev")) as here:
        seen = set()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(16):
                one = await stack.enter_async_context(client(here.http))
                found = {(await one.get()).body for _ in range(3)}
                assert len(found) == 1
                seen |= found
        assert len(seen) > 1


@pytest.mark.parametrize("algorithm", ["lc", "wlc", "sed", "nq", "p2c"])
async def test_who_has_requests_under_way_gets_no_more(vip: str, pods: list[Address], algorithm: str) -> None:
    held: list[Endpoint] = []
    go = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            if not held:
                held.append(endpoint)
                await go.wait()
            writer.write(saying(b"done"))

    async with (
        Endpoint(pods[0], serve=serve) as zero,
        Endpoint(pods[1], serve=serve) as one,
        running(vip, web(*pods[:2], algorithm=algorithm)) as here,
        client(here.http) as busy,
    ):
        busy.send(GET)
        await eventually(lambda: held)
        for _ in range(5):
            assert (await ask(here.http, GET)).body == b"done"
        assert len(held[0].requests) == 1
        assert len(zero.requests) + len(one.requests) == 6
        go.set()
        assert (await busy.answer()).body == b"done"
        for _ in range(8):  # none is under way any more, whatever became of the others
            await ask(here.http, GET)
        assert len(held[0].requests) > 1
        assert not here.handed_over


async def test_load_balance_ewma_leaves_the_slow_endpoint_alone(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            await asyncio.sleep(0.05)
            writer.write(saying(b"slow"))

    async with (
        Endpoint(pods[0], serve=serve) as slow,
        Endpoint(pods[1]) as fast,
        client_of_ingress(vip, web(*pods[:2], load_balance="ewma")) as (here, one),
    ):
        await ask_until_each_was(one, slow, fast)
        asked = len(slow.requests)
        for generation in range(2, 22):
            assert (await one.get()).body == b"hello"
            await here.install(web(*pods[:2], load_balance="ewma", generation=generation))
        assert len(slow.requests) == asked
        assert not here.handed_over


async def ask_until_each_was(one: Client, *endpoints: Endpoint) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not all(endpoint.requests for endpoint in endpoints):
            await one.get()


@pytest.mark.parametrize("number", range(len(INGRESS_ALGORITHMS)), ids=INGRESS_ALGORITHMS)
async def test_every_algorithm_answers_and_tries_elsewhere(vip: str, pods: list[Address], number: int) -> None:
    """Of three endpoints one is there; explain has a sentence for each algorithm."""
    name = INGRESS_ALGORITHMS[number]
    snapshot = web(*pods[:3], load_balance="ewma") if name == "ewma" else web(*pods[:3], algorithm=name)
    found = explain(snapshot, "http://example.com/", from_ip="127.0.0.1")
    assert found.chosen
    assert any(said in found.reasons[-1] for said in (f"{name}:", "round robin:"))
    async with Endpoint(pods[1]), running(vip, snapshot) as here, client(here.http) as one:
        for _ in range(6):
            assert (await one.get()).status == 200


# Slow start


SHARING = (RANDOM, RR, WRR)


@pytest.mark.parametrize("algorithm", SHARING, ids=[INGRESS_ALGORITHMS[each] for each in SHARING])
@pytest.mark.parametrize(("age_s", "chance"), [(0, 0.1), (50, 0.5), (100, 1.0)])
def test_a_new_endpoint_gets_a_share_that_grows(algorithm: int, age_s: int, chance: float) -> None:
    """By the reference of the relay's: it takes part with a chance that grows in a straight line from a tenth."""
    random.seed(1)
    backends, balancer = rows(1, 1), Balancer(algorithm, slow_start_s=100)
    backends[1].endpoint.since_s = 1000.0
    found = Counter(backends.index(balancer.next(backends, backends, 0, 1000.0 + age_s)) for _ in range(4000))
    turns = algorithm in (RR, WRR)  # who is left out has its next turn sooner
    assert found[1] / 4000 == pytest.approx(chance / (1 + chance) if turns else chance / 2, abs=0.03)


@pytest.mark.parametrize("algorithm", LEAST, ids=[INGRESS_ALGORITHMS[each] for each in LEAST])
def test_a_new_endpoint_is_not_flooded_because_it_has_nothing_to_do(algorithm: int) -> None:
    random.seed(1)
    backends, balancer = rows(1, 1), Balancer(algorithm, slow_start_s=100)
    backends[0].endpoint.under_way = 1000
    backends[1].endpoint.since_s = 1000.0
    found = Counter(backends.index(balancer.next(backends, backends, 0, 1050.0)) for _ in range(4000))
    assert found[1] / 4000 == pytest.approx(0.25, abs=0.03)


def test_who_is_as_new_as_all_others_is_not_held_back() -> None:
    backends, balancer = rows(1, 1), Balancer(RR, slow_start_s=100)
    assert [backends.index(balancer.next(backends, backends, 0, 1.0)) for _ in range(4)] == [0, 1, 0, 1]


async def test_an_endpoint_that_has_just_come_gets_less_through_the_ingress(vip: str, pods: list[Address]) -> None:
    random.seed(1)
    async with all_of(pods[:2]) as found, client_of_ingress(vip, web(pods[0], slow_start="18h")) as (here, one):
        here.ingress._pool.endpoint(pods[0]).since_s -= 24 * 3600  # has been there since yesterday
        await here.install(web(*pods[:2], slow_start="18h", generation=2))
        for _ in range(100):
            assert (await one.get()).status == 200
        assert 0 < len(found[1].requests) < 30
