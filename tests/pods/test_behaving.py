"""Pods that behave as annotations ask: the draws by themselves, and what clients see on real sockets."""

import asyncio
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from plane.addresses import AddressPlan
from plane.behaviour import PREFIX, Behaviour, Draws, ServiceTime, WarmUp, behaviour_of, samples, wrong
from plane.model import Object
from tests.pods.hosting import AGNHOST, address, ask, client, container, hosting, pod_object

REQUESTS = 20_000
POD = "127.0.0.1"


@pytest.fixture
def ip(plan: AddressPlan) -> str:
    return address(plan, 3)


def annotated(**asked: str) -> dict[str, str]:
    return {PREFIX + name.replace("_", "-"): value for name, value in asked.items()}


def behaviour(**asked: str) -> Behaviour:
    assert not list(wrong(annotated(**asked)))
    found = behaviour_of(annotated(**asked))
    assert found is not None
    return found


def netexec(ip: str, asked: Mapping[str, str], **fields: Any) -> Object:
    pod = pod_object(ip, container(AGNHOST, args=["netexec", "--http-port=8000", "--udp-port=-1"], **fields))
    pod["metadata"]["annotations"] = dict(asked)
    return pod


def times(asked: Behaviour, pod: str = POD, age_s: float = 0.0) -> list[float]:
    draws = Draws(asked, pod)
    return [draws.service_s(age_s) for _ in range(REQUESTS)]


def test_an_exponential_service_time_has_the_mean_and_the_spread_that_its_name_says() -> None:
    drawn = times(behaviour(service_time="exponential 10ms"))
    assert statistics.mean(drawn) == pytest.approx(0.010, rel=0.03)
    assert statistics.stdev(drawn) == pytest.approx(0.010, rel=0.03)


def test_the_mean_of_a_lognormal_service_time_is_the_one_asked_for_whatever_its_sigma() -> None:
    for sigma, spread in ((0.2, 0.202), (1.0, 1.311)):  # the square root of exp(sigma²) - 1
        drawn = times(behaviour(service_time=f"lognormal 10ms {sigma}"))
        assert statistics.mean(drawn) == pytest.approx(0.010, rel=0.05)
        assert statistics.stdev(drawn) == pytest.approx(0.010 * spread, rel=0.2)


def test_draws_are_the_same_for_the_same_seed_and_pod_and_for_no_other() -> None:
    first = times(behaviour(service_time="exponential 1ms", seed="7"))
    assert times(behaviour(service_time="exponential 1ms", seed="7", error_rate="5%")) == first
    assert times(behaviour(service_time="exponential 1ms", seed="7"), pod="127.0.0.2") != first
    assert times(behaviour(service_time="exponential 1ms", seed="8")) != first


def test_times_of_a_file_are_drawn_evenly() -> None:
    found = samples("# measured\n1ms\n\n250us # fast\n2s\n")
    assert found == [0.001, 0.00025, 2.0]
    draws = Draws(behaviour(service_time="file times.txt"), POD, found)
    counted = Counter(draws.service_s(0) for _ in range(REQUESTS))
    assert set(counted) == set(found)
    assert min(counted.values()) > 0.31 * REQUESTS


def test_a_pod_that_warms_up_gets_faster_in_a_straight_line() -> None:
    draws = Draws(Behaviour(ServiceTime("constant", 0.010), warm_up=WarmUp(5, 20)), POD)
    assert [draws.service_s(age) for age in (0, 10, 20, 99)] == pytest.approx([0.050, 0.030, 0.010, 0.010])


def test_errors_are_as_many_as_asked_for() -> None:
    draws = Draws(behaviour(error_rate="2.5%"), POD)
    assert sum(draws.fails() for _ in range(REQUESTS)) == pytest.approx(0.025 * REQUESTS, rel=0.1)


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"service_time": "10"}, "service-time", "has the unit us, ms or s"),
        ({"service_time": "0ms"}, "service-time", '"0ms" is no service time'),
        ({"service_time": "exponential"}, "service-time", "exponential 10ms"),
        ({"service_time": "lognormal 10ms"}, "service-time", "mean, and sigma"),
        ({"service_time": "lognormal 10ms 6"}, "service-time", "sigma up to 5"),
        ({"service_time": "poisson 10ms"}, "service-time", "is no service time"),
        ({"concurrency": "0"}, "concurrency", "1 to 1000000"),
        ({"concurrency": "4", "queue": "-1"}, "queue", "0 to 1000000"),
        ({"queue": "4"}, "queue", f"no effect without {PREFIX}concurrency"),
        ({"error_rate": "0.1"}, "error-rate", "as 0.5%"),
        ({"error_rate": "101%"}, "error-rate", "0% to 100%"),
        ({"warm_up": "5x 30s"}, "warm-up", f"no effect without {PREFIX}service-time"),
        ({"service_time": "1ms", "warm_up": "30s"}, "warm-up", "as 5x 30s"),
        ({"seed": "x"}, "seed", "whole number"),
        ({"sevice_time": "1ms"}, "sevice-time", f"did you mean {PREFIX}service-time?"),
        ({"latency": "1ms"}, "latency", "known here: service-time, concurrency"),
    ],
)
def test_what_is_wrong_is_named(asked: dict[str, str], field: str, said: str) -> None:
    ((place, reason),) = wrong(annotated(**asked))
    assert place == PREFIX + field
    assert said in reason


@pytest.mark.parametrize(("text", "said"), [("1ms\nsoon\n", 'line 2: "soon"'), ("# none\n", "holds no time")])
def test_a_file_of_times_is_read_strictly(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        samples(text)


async def test_so_many_are_served_at_once_so_many_wait_and_the_rest_is_refused(plan: AddressPlan, ip: str) -> None:
    async with hosting(plan) as host:
        probe = {"httpGet": {"port": 8000, "path": "/healthz"}, "periodSeconds": 1}
        asked = annotated(service_time="600ms", concurrency="2", queue="1")
        await host.ready(netexec(ip, asked, readinessProbe=probe))
        async with client() as session:
            replies = await asyncio.gather(*(ask(session, f"http://{ip}:8000/hostname") for _ in range(6)))
        assert Counter(reply.status for reply in replies) == {200: 3, 503: 3}
        assert {reply.body for reply in replies} == {"web-0", "the queue is full, 1 wait in it\n"}


async def test_errors_come_where_the_seed_has_them(plan: AddressPlan, ip: str) -> None:
    asked = annotated(error_rate="40%", seed="3")
    draws = Draws(behaviour(error_rate="40%", seed="3"), ip)
    async with hosting(plan) as host, client() as session:
        await host.ready(netexec(ip, asked))
        seen = [(await ask(session, f"http://{ip}:8000/")).status for _ in range(30)]
    assert seen == [500 if draws.fails() else 200 for _ in range(30)]
    assert 500 in seen


async def test_a_client_that_leaves_gives_its_slot_back(plan: AddressPlan, ip: str) -> None:
    async with hosting(plan) as host, client() as session:
        await host.ready(netexec(ip, annotated(service_time="100ms", concurrency="1")))
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await ask(session, f"http://{ip}:8000/", timeout=aiohttp.ClientTimeout(total=0.02))
        assert (await ask(session, f"http://{ip}:8000/")).status == 200


async def test_a_pod_that_can_not_behave_says_why(plan: AddressPlan, ip: str, tmp_path: Path) -> None:
    async with hosting(plan) as host:
        silent = pod_object(ip, container("registry.k8s.io/pause"))
        silent["metadata"]["annotations"] = annotated(service_time="1ms")
        for pod, said in (
            (silent, "registry.k8s.io/pause serves none"),
            (netexec(ip, annotated(service_time=f"file {tmp_path}/none.txt")), "No such file or directory"),
        ):
            status = await host.until(host.start(pod), lambda status: bool(status.message))
            assert said in status.message


async def test_annotations_that_change_count_for_the_requests_from_then_on(plan: AddressPlan, ip: str) -> None:
    async with hosting(plan) as host, client() as session:
        pod = await host.ready(netexec(ip, {}))
        for asked, status in (({}, 200), (annotated(error_rate="100%"), 500), (annotated(error_rate="0%"), 200)):
            pod.behave(asked)
            assert (await ask(session, f"http://{ip}:8000/")).status == status
        pod.behave(annotated(service_time="10s"))
        with pytest.raises(TimeoutError):
            await ask(session, f"http://{ip}:8000/", timeout=aiohttp.ClientTimeout(total=0.1))
        pod.behave({})
        assert (await ask(session, f"http://{ip}:8000/")).status == 200
        assert pod.status.restarts == 0


async def test_an_annotation_that_asks_for_nothing_leaves_the_draws_as_they_are(plan: AddressPlan, ip: str) -> None:
    asked = annotated(error_rate="40%", seed="3")
    draws = Draws(behaviour(error_rate="40%", seed="3"), ip)
    async with hosting(plan) as host, client() as session:
        pod = await host.ready(netexec(ip, asked))
        seen = []
        for number in range(20):
            pod.behave({**asked, "example.com/number": str(number)})
            seen.append((await ask(session, f"http://{ip}:8000/")).status)
    assert seen == [500 if draws.fails() else 200 for _ in range(20)]


async def test_a_pod_that_can_not_go_on_as_its_annotations_ask_says_why_until_it_can(
    plan: AddressPlan, ip: str, tmp_path: Path
) -> None:
    async with hosting(plan) as host, client() as session:
        pod = await host.ready(netexec(ip, {}))
        pod.behave(annotated(service_time=f"file {tmp_path}/times.txt"))
        status = await host.until(pod, lambda status: not status.ready and bool(status.message))
        assert "No such file or directory" in status.message
        (tmp_path / "times.txt").write_text("1ms\n")
        await host.until(pod, lambda status: status.ready)
        assert (await ask(session, f"http://{ip}:8000/")).status == 200
