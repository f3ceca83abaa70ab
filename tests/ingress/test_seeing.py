"""What an ingress tells of itself: /metrics and the access log."""

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from plane.errors import PlaneError
from plane.ingress.accesslog import AccessLog
from plane.ingress.edge import Edge, networks
from plane.ingress.metrics import BUCKETS_S, Metrics
from plane.ingress.server import Ingress
from plane.ingress.timeouts import Timeouts
from plane.routes import Origin, Port
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of, web
from tests.ingress.wire import PATIENCE_S, Address, Endpoint, ask, client, eventually, running

PORT = 10254
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
RULE = "default/web spec.rules[0].http.paths[0]"


async def scraped(address: str) -> dict[str, Metric]:
    answer = await ask((address, PORT), b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (answer.get("content-type") or "").startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


def value(families: dict[str, Metric], name: str, **labels: str) -> float | None:
    samples = (sample for family in families.values() for sample in family.samples)
    return next((each.value for each in samples if each.name == name and each.labels == labels), None)


async def test_metrics_count_what_was_answered(vip: str, pods: list[Address]) -> None:
    snapshot = snapshot_of(
        service("web"),
        *slices("web", pods[:2]),
        ingress("web", rule("example.com", prefix("/", "web"), prefix("/gone", "gone"))),
    )
    requests = "trafficplane_ingress_requests_total"
    found = {"namespace": "default", "ingress": "web", "service": "default/web:80", "status": "200"}
    async with Endpoint(pods[1]) as pod, running(vip, snapshot, metrics_port=PORT) as here, client(here.http) as one:
        for _ in range(3):
            await one.get()
        await one.get("/gone")
        await one.get(host="nobody.example")
        metrics = await scraped(vip)
        assert value(metrics, requests, **found) == 3
        assert value(metrics, requests, **{**found, "service": "default/gone:80", "status": "503"}) == 1
        assert value(metrics, requests, namespace="", ingress="", service="", status="404") == 1
        retries = {name: text for name, text in found.items() if name != "status"}
        for name in ("retries", "faults"):  # the turn is that of the pod that refuses, once
            assert value(metrics, f"trafficplane_ingress_{name}_total", **retries) == 1
        assert value(metrics, "trafficplane_ingress_upstream_endpoints_out") == 1
        duration = "trafficplane_ingress_request_duration_seconds"
        assert value(metrics, f"{duration}_count", **found) == 3
        assert value(metrics, f"{duration}_bucket", **found, le="+Inf") == 3
        assert (value(metrics, f"{duration}_sum", **found) or 0) > 0
        assert value(metrics, "trafficplane_ingress_client_connections") == 1
        assert value(metrics, "trafficplane_ingress_upstream_idle_connections") == pod.open
        assert value(metrics, "trafficplane_ingress_requests_in_flight") == 0
        assert value(metrics, "trafficplane_ingress_installs_total") == 1
        assert (value(metrics, "process_resident_memory_bytes") or 0) > 1 << 20


async def test_no_client_makes_series(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), metrics_port=PORT) as here:
        for number in range(20):
            await ask(here.http, f"GET /{number} HTTP/1.1\r\nHost: h{number}.example\r\nX-A: {number}\r\n\r\n".encode())
        assert len((await scraped(vip))["trafficplane_ingress_requests"].samples) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", "400"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: example.com\r\n\r\n", "414"),
        (b"GET / HTTP/1.1\r\nHost: example.com\r\nA: " + b"a" * 40000 + b"\r\n\r\n", "431"),
        (b"GET / HT", "408"),
    ],
)
async def test_what_was_no_request_is_seen_too(
    vip: str, pods: list[Address], tmp_path: Path, sent: bytes, status: str
) -> None:
    path = tmp_path / "access.log"
    timeouts = Timeouts(head_s=0.2)
    async with running(vip, web(pods[0]), metrics_port=PORT, access_log=str(path), timeouts=timeouts) as here:
        answer = await ask(here.http, sent)
        assert str(answer.status) == status
        metrics = await scraped(vip)
        labels = {"namespace": "", "ingress": "", "service": "", "status": status}
        assert value(metrics, "trafficplane_ingress_requests_total", **labels) == 1
        await eventually(lambda: path.read_text().count("\n") == 1)
    (line,) = lines(path)
    found = (line["client"], str(line["status"]), line["route"], line["service"], line["generation"])
    assert found == ("127.0.0.1", status, "", "", 1)
    assert line["bytes_sent"] > len(answer.body)


async def test_series_go_with_their_ingress(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), metrics_port=PORT) as here:
        await ask(here.http, GET)
        await ask(here.http, b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n")
        assert len((await scraped(vip))["trafficplane_ingress_requests"].samples) == 2
        await here.install(snapshot_of(service("web"), generation=2))
        (left,) = (await scraped(vip))["trafficplane_ingress_requests"].samples
        assert (left.labels["ingress"], left.labels["status"]) == ("", "404")


async def test_a_status_that_http_does_not_have_is_other(vip: str, pods: list[Address]) -> None:
    odd = b"HTTP/1.1 700 Odd\r\nContent-Length: 0\r\n\r\n"
    async with Endpoint(pods[0], odd), running(vip, web(pods[0]), metrics_port=PORT) as here:
        assert (await ask(here.http, GET)).status == 700
        (found,) = (await scraped(vip))["trafficplane_ingress_requests"].samples
        assert found.labels["status"] == "other"


def test_a_duration_falls_into_its_bucket() -> None:
    metrics = Metrics()
    for seconds in (0.0001, BUCKETS_S[0], BUCKETS_S[0] + 1e-9, 0.07, 11.0):
        metrics.add(Origin("a", "b", 0, 0), Port("a/c", 80), 200, round(seconds * 1e9), 0)
    families = {row.name: row for row in metrics.collect(at_work=0, idle=0, out=0, open_connections=0, generation=1)}
    samples = families["trafficplane_ingress_request_duration_seconds"].samples
    buckets = [row.value for row in samples if row.name.endswith("_bucket")]
    assert buckets == [2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5]
    assert [row.labels["le"] for row in samples if row.name.endswith("_bucket")][-1] == "+Inf"


async def test_only_metrics_are_there_and_a_taken_port_is_told(vip: str, pods: list[Address]) -> None:
    async with running(vip, web(pods[0]), metrics_port=PORT):
        assert (await ask((vip, PORT), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).status == 404
        assert (await ask((vip, PORT), b"POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).status == 405
        other = Ingress(vip, 0, 0, metrics_port=PORT)
        await other.start()
        from plane import routecompiler

        problems = (await other.install(routecompiler.compile(web()))).problems
        await other.stop(0)
        assert f"cannot listen on {vip}:{PORT} for /metrics: " in problems[0]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_the_access_log_has_a_line_for_each_request(vip: str, pods: list[Address], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    edge = Edge(networks("127.0.0.1"))
    async with (
        Endpoint(pods[0]),
        running(vip, web(pods[0], generation=7), access_log=str(path), edge=edge) as here,
        client(here.http) as one,
    ):
        answer = await one.get(
            '/a?b="c', fields='X-Request-ID: 00c0ffee00c0ffee\r\nX-Forwarded-For: 1.2.3.4\r\nUser-Agent: a"b\r\n'
        )
        await one.get(host="nobody.example")
        await eventually(lambda: path.read_text().count("\n") == 2)  # without waiting for the end
        first, second = lines(path)
    assert first.pop("time").endswith("Z")
    assert first.pop("duration_ms") > 0
    assert first.pop("bytes_sent") > len(answer.body)
    assert first == {
        "client": "1.2.3.4",
        "scheme": "http",
        "method": "GET",
        "host": "example.com",
        "target": '/a?b="c',
        "protocol": "HTTP/1.1",
        "status": 200,
        "request_id": "00c0ffee00c0ffee",
        "route": RULE,
        "service": "default/web:80",
        "endpoint": f"{pods[0][0]}:8080",
        "retries": 0,
        "generation": 7,
        "user_agent": 'a"b',
        "referer": "",
    }
    assert (second["status"], second["route"], second["endpoint"]) == (404, "", "")


async def test_several_ingresses_append_to_one_file_and_nothing_is_lost_at_the_end(
    vip: str, pods: list[Address], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    async with (
        Endpoint(pods[0]),
        running(vip, web(pods[0]), access_log=str(path)) as here,
        running(vip, web(pods[0]), access_log=str(path)) as there,
    ):
        for number in range(50):
            await ask((here, there)[number % 2].http, f"GET /{number} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode())
    assert sorted(int(row["target"][1:]) for row in lines(path)) == list(range(50))


async def test_a_log_that_is_not_read_holds_nobody_up_and_what_is_lost_is_counted(
    vip: str, pods: list[Address], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plane.ingress.accesslog.PENDING_BYTES", 100_000)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    async with running(vip, snapshot_of(), access_log=str(path)) as here, client(here.http) as one:
        for number in range(100):
            await one.get(f"/{number}/{'a' * 4000}")
        await here.ingress.records()  # what is done is counted then, and logged: before anything is read
        said, kept = b"", here.ingress._log
        while kept is not None and kept._lines:
            with contextlib.suppress(BlockingIOError):
                said += os.read(reader, 1 << 20)
            await asyncio.sleep(0.01)
    with contextlib.suppress(BlockingIOError):
        said += os.read(reader, 1 << 20)
    os.close(reader)
    found = [int(json.loads(line)["target"].split("/")[1]) for line in said.splitlines()]
    assert found == sorted(set(found))  # the next line may be shorter by a digit, and fit
    assert 0 < len(found) < 100
    assert f"the access log has lost {100 - len(found)} lines" in caplog.text


async def test_a_log_whose_reader_keeps_up_gets_all_of_it_and_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A FIFO has room for 64 KiB at a time; whether it has some or none when more is to go there is chance."""
    monkeypatch.setattr("plane.ingress.accesslog.FLUSH_S", 3600.0)  # what is held up does not wait for that
    os.mkfifo(path := tmp_path / "fifo")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    given = b"".join(b'{"number": %d}\n' % number for number in range(200_000))
    log, said = AccessLog(str(path)), bytearray()
    log.add_lines(given)
    async with asyncio.timeout(PATIENCE_S):
        while len(said) < len(given):
            with contextlib.suppress(BlockingIOError):
                said += os.read(reader, 1 << 16)
            await asyncio.sleep(0.001)
    log.close()
    os.close(reader)
    assert said == given
    assert log.lost == 0
    assert caplog.text.count("the access log waits") == 1


async def test_a_log_that_cannot_be_opened_is_told_and_nothing_is_left(vip: str, tmp_path: Path) -> None:
    one = Ingress(vip, 0, 0, access_log=str(tmp_path / "none" / "access.log"))
    with pytest.raises(PlaneError, match="No such file or directory; choose a file that can be written"):
        await one.start()
    assert not one._sockets
