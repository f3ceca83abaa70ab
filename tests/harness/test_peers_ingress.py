"""Ingresses beside ours: what they are told, that each answers rightly before it is timed, and that nothing is left."""

import contextlib
import io
import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow as pa
import pytest
from click.testing import CliRunner

from harness.cli import bench
from harness.peers.process import descendants, is_listening
from harness.peers.records import FILE, SCHEMA
from harness.peers.web import client, rounds
from harness.peers.web.nginx import Nginx
from harness.peers.web.ours import Asyncio
from harness.peers.web.rounds import Effort
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Site, compose
from harness.peers.web.workloads import BY_NAME, WORKLOADS
from plane import manifests
from plane.addresses import AddressPlan
from plane.errors import ManifestError, PlaneError
from tests.harness.subjects import own_temporary_files

pytestmark = pytest.mark.syscalls

CONFIGS = Path(__file__).parents[2] / "configs" / "peers-ingress"
ROUTING = [name for name, peer in rounds.peers().items() if peer.routes]
ONE = BY_NAME["get 100 B, 1"]


def site_of(plan: AddressPlan, rules: int = 1, change: tuple[str, str] = ("", "")) -> Site:
    """The Site of the benchmark's own manifests, moved to the addresses of a plan."""
    text = (CONFIGS / "site.yaml").read_text().replace("127.244.1.", str(plan.pods_of(1)[0])[:-1])
    assert change[0] in text
    text = text.replace(*change) if change[0] else text
    return compose([row.object for row in manifests.load(["-"], io.StringIO(text)).objects], plan, rules, "site.yaml")


@pytest.fixture(scope="module")
def site(plan: AddressPlan) -> Site:
    return site_of(plan, 3)


@pytest.fixture(scope="module")
def backends(site: Site) -> Iterator[None]:
    with rounds.answering(site, rounds.cores()):
        yield


# What they are told.


def test_a_site_has_the_rules_of_its_routes_in_order_of_matching(site: Site) -> None:
    said = {host: [(rule.path, rule.exact, rule.upstream.name) for rule in rules] for host, rules in site.hosts.items()}
    front = [("", False, "default-web-80")]
    shop = [("/api/exact", True, "default-web-80"), ("/api", False, "default-api-80"), *front]
    assert said == {"rule-0.example.com": front, "rule-1.example.com": front, "shop.example.com": shop}
    assert [len(upstream.endpoints) for upstream in site.upstreams] == [2, 1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("host: shop.example.com", 'host: "*.example.com"'), "plain host names"),
        (('ssl-redirect: "false"', 'enable-cors: "true"'), "without policies"),
        (("kubernetes.io/service-name: api", "kubernetes.io/service-name: other"), "default/api:80 has no ready"),
        (("  tls:\n    - hosts: [shop.example.com]\n      secretName: site\n", ""), "tls with a secretName"),
    ],
)
def test_what_not_every_ingress_is_told_is_refused(plan: AddressPlan, change: tuple[str, str], problem: str) -> None:
    with pytest.raises(ManifestError) as error:
        site_of(plan, change=change)
    assert problem in str(error.value)


def test_nginx_is_told_a_prefix_as_what_it_says_and_what_lies_below(site: Site) -> None:
    config = Nginx().files(site, "/folder")["nginx.conf"]
    for line in ("location = /api/exact {", "location /api/ {", "location = /api {", "server_name rule-1.example.com;"):
        assert line in config


# That each answers rightly.


@pytest.mark.parametrize("name", ROUTING)
@pytest.mark.usefixtures("backends")
def test_an_ingress_answers_the_corpus_on_its_core_and_leaves_nothing(name: str, site: Site) -> None:
    peer, places = rounds.peers()[name], rounds.cores()
    if reason := peer.lacks():
        pytest.skip(reason)
    before = descendants(os.getpid())
    with own_temporary_files() as folder:
        with rounds.carrying(peer, site, places, tls=True):  # which asks the corpus, by HTTP and by HTTPS
            pids = peer.pids()
            assert pids
            for pid in pids:
                assert os.sched_getaffinity(pid) == {places.subject}
        assert peer.pids() == ()
        assert {*descendants(os.getpid())} <= {*before}
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert not any(is_listening("TCP", site.address, port) for port in (HTTP_PORT, HTTPS_PORT))
        assert not list(folder.glob(f"trafficplane-{name}-*"))


def test_ray_serves_proxy_alone_is_on_the_core_and_nothing_is_left(site: Site) -> None:
    peer, places = rounds.peers()["ray serve"], rounds.cores()
    if reason := peer.lacks():
        pytest.skip(reason)
    before = descendants(os.getpid())
    with rounds.carrying(peer, site, places, tls=False):
        (proxy,) = peer.pids()
        assert os.sched_getaffinity(proxy) == {places.subject}
        for pid in {*descendants(os.getpid())} - {proxy}:
            with contextlib.suppress(ProcessLookupError):  # Ray has some that end
                assert os.sched_getaffinity(pid) == {places.others}
        for path, size in (("/bytes/100", 100), ("/bytes/10240", 10_240)):
            with urlopen(f"http://{site.address}:{HTTP_PORT}{path}") as answer:
                assert len(answer.read()) == size
    assert {*descendants(os.getpid())} <= {*before}
    assert not is_listening("TCP", site.address, HTTP_PORT)


@pytest.mark.usefixtures("backends")
def test_an_ingress_that_answers_wrongly_is_an_error(
    plan: AddressPlan, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = site_of(plan, 3, ("path: /api\n", "path: /apples\n"))

    class Other(Asyncio):
        def start(self, site: Site, core: int) -> None:
            super().start(other, core)

    monkeypatch.setattr(rounds, "READY_S", 0.0)
    wrong = pytest.raises(PlaneError, match=r"GET http://shop\.example\.com/api/seen\?a=/b: answered by")
    with wrong, rounds.carrying(Other(), site, rounds.cores(), tls=False):
        pass


def test_another_program_in_the_place_of_an_ingress_is_an_error(site: Site) -> None:
    said = f"another program listens on {site.address}:{HTTP_PORT}; end that one"
    with (
        socket.create_server((site.address, HTTP_PORT)),
        pytest.raises(PlaneError, match=f"^{re.escape(said)}$"),
        rounds.carrying(Asyncio(), site, rounds.cores(), tls=False),
    ):
        pass


@pytest.mark.usefixtures("backends")
def test_the_compiled_client_counts_answers_and_finds_what_is_wrong(site: Site) -> None:
    where, hosts = site.rules[0].upstream.endpoints[0], ["shop.example.com"]
    with client.Client.of("compiled", rounds.cores()) as asking:
        for workload in (BY_NAME["post 10 KiB, 64"], BY_NAME["new 64"]):
            measured = asking.measure(workload, where, hosts, 1.0, [os.getpid()])
            assert measured.misses == {}
            assert measured.answered >= workload.connections
            assert 0 < measured.p50_ns <= measured.p99_ns <= measured.max_ns
            assert measured.duration_ns > 0
        short = asking.measure(replace(ONE, answer_bytes=4000), where, hosts, 0.6, [])
        assert set(short.misses) == {"too short"}
        nobody = asking.measure(ONE, (site.address, HTTP_PORT), hosts, 0.6, [])
        assert set(nobody.misses) == {"connect_refused"}


@pytest.mark.usefixtures("backends")
def test_an_answer_that_is_too_short_is_an_error_to_wrk(site: Site) -> None:
    if reason := client.lacks([ONE], "wrk"):
        pytest.skip(reason)
    with client.Client.of("wrk", rounds.cores()) as asking:
        where = site.rules[0].upstream.endpoints[0]
        assert set(asking.measure(replace(ONE, answer_bytes=4000), where, ["x"], 1, []).misses) == {"too short"}


def test_a_subject_carries_what_it_does_not_refuse() -> None:
    every = rounds.peers()
    assert len(rounds.carried(every["direct"], Effort())) == len(rounds.carried(every["ray serve"], Effort())) == 7
    assert all(set(rounds.carried(every[name], Effort())) == set(WORKLOADS) for name in ROUTING)


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    lacks = {name: peer.lacks() for name, peer in rounds.peers().items()}
    assert all("pip install 'trafficplane[peers]'" in lacks[name] for name in (*ROUTING[3:], "ray serve"))
    assert "apt install nginx-light" in lacks["nginx"]
    assert "get 100 B, 1; apt install wrk" in client.lacks([ONE], "wrk")
    assert client.lacks([ONE], "compiled") == ""
    assert "tls 64; apt install wrk" in client.lacks([ONE, BY_NAME["tls 64"]], "compiled")


# The command.


def invoke(tmp_path: Path, words: Sequence[str]) -> Any:
    return CliRunner().invoke(bench, ["peers", "ingress", "-f", str(CONFIGS), "--out", str(tmp_path), *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--only", "relay"),
            "'relay': choose from direct, trafficplane, trafficplane asyncio, nginx, haproxy, envoy, traefik, caddy, "
            "ray serve",
        ),
        (("--workload", "kept 64"), "'kept 64': choose from get 100 B, 1"),
        (("--seconds", "1.5"), "whole seconds"),
    ],
)
def test_bad_input_is_named_and_nothing_runs(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = invoke(tmp_path, words)
    assert result.exit_code == 2
    assert said in result.output
    assert not list(tmp_path.iterdir())


def test_a_quick_run_leaves_its_rows_and_its_table(tmp_path: Path) -> None:
    result = invoke(tmp_path, ("--quick", "--only", "direct", "--workload", ONE.name, "-o", "json"))
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    folder = Path(said["results"])
    with pa.ipc.open_file(folder / FILE) as reader:
        assert reader.schema.equals(SCHEMA)
    assert said["kind"] == "ingress"
    assert said["rows"][0]["rate"]["median"] > 0
    assert "× nginx" in (folder / "table.md").read_text()
    assert said["client"] == f"compiled for {ONE.name}; backends compiled"
