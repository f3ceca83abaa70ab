"""Loads by HTTPS: whom they trust, what their rows say of the handshake, and a scenario's own certificates."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from harness import certificates, scenario, targets
from harness.certificates import Certificate
from harness.drivers import compiled
from harness.drivers.compiled import CompiledStream
from harness.drivers.http import Destination
from harness.drivers.process import LoadProcess
from harness.drivers.stream import Stream, Task
from harness.drivers.tls import Tls
from harness.recorder import ERRORS, NEVER, Recorded
from harness.scenario import ScenarioError
from harness.targets import Surroundings
from harness.workload import Workload
from plane import manifests, offline
from plane.addresses import AddressPlan
from plane.model import Object
from tests.harness.subjects import MS, OK, Handler, answering, head, in_turn, open_loop
from tests.harness.test_http_driver import Threaded
from tests.harness.test_scenario import changed, problems

MADE = certificates.issued([Certificate(secret="shop-tls", hosts=["shop.example", "*.wild.example"])])
SHOP = Tls("shop.example", MADE.authority, only=True)


@asynccontextmanager
async def secured(
    handler: Handler, names: list[str | None] | None = None, version: ssl.TLSVersion | None = None
) -> AsyncIterator[Destination]:
    """A server by TLS with the certificate of ``MADE``; the names that clients ask for are put into the list."""
    pem = MADE.secrets[0]["stringData"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.LeafCert(pem["tls.key"].encode(), pem["tls.crt"].encode(), []).configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    context.sni_callback = lambda _, name, __: names.append(name) if names is not None else None
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    try:
        yield Destination(*server.sockets[0].getsockname(), tls=SHOP)
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(params=["asyncio", pytest.param("compiled", marks=pytest.mark.syscalls)])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A test that takes it holds both drivers to the same."""
    if request.param == "compiled":
        compiled.prepare()  # before anything is due
        monkeypatch.setattr(request.module, "Stream", Threaded)
    return str(request.param)


async def run(task: Task) -> Recorded:
    return await Stream(task).run(time.monotonic_ns() + 10 * MS)


def texts(recorded: Recorded) -> list[str]:
    return [ERRORS[code] for code in recorded.requests["error"]]


async def test_a_handshake_is_a_part_of_the_first_request_of_a_connection(driver: str) -> None:
    names: list[str | None] = []
    async with secured(answering(OK), names) as server:
        recorded = await run(in_turn(server, 50, 80))
    rows = recorded.requests
    assert texts(recorded) == [""] * 4
    assert names == ["shop.example"]
    assert rows["reused"].tolist() == [0, 1, 1, 1]
    assert set(rows["bytes_in"]) == {len(OK)}
    assert (rows["tls_done_ns"] == NEVER).tolist() == [False, True, True, True]
    times = [int(rows[name][0]) for name in ("start_ns", "connected_ns", "tls_done_ns", "sent_ns", "done_ns")]
    assert times == sorted(times)
    assert (recorded.generator.driver, recorded.generator.busy is not None) == (driver, True)


@pytest.mark.usefixtures("driver")
async def test_without_keep_alive_each_request_has_a_handshake() -> None:
    async with secured(answering(OK)) as server:
        recorded = await run(in_turn(server, 50, 80, workload=Workload("shop.example", keep_alive=False)))
    assert texts(recorded) == [""] * 4
    assert (recorded.requests["tls_done_ns"] > recorded.requests["connected_ns"]).all()
    assert recorded.requests["connection"].tolist() == [0, 1, 2, 3]


OTHER = trustme.CA().cert_pem.bytes().decode()


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("tls", "error"),
    [
        (Tls("a.wild.example", MADE.authority), ""),
        (Tls("shop.example", OTHER, only=True), "tls_failed"),
        (Tls("shop.example"), "tls_failed"),
        (Tls("other.example", MADE.authority), "tls_failed"),
        (Tls("other.example", insecure=True), ""),
    ],
    ids=["signed for a wildcard", "signed by another", "not by the system's", "for another name", "not looked at"],
)
async def test_who_is_not_trusted_is_an_error_of_the_request(tls: Tls, error: str) -> None:
    async with secured(answering(OK)) as server:
        recorded = await run(in_turn(replace(server, tls=tls), 50, 60))
    assert texts(recorded) == [error] * 3
    assert (recorded.requests["sent_ns"] == NEVER).all() == bool(error)
    assert recorded.requests["connected_ns"][0] != NEVER


@pytest.mark.usefixtures("driver")
async def test_who_never_shakes_hands_is_a_timeout_and_leaves_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with listener:
        place = Destination(*listener.sockets[0].getsockname(), tls=SHOP)
        began = time.monotonic()
        recorded = await run(open_loop(place, 50, 60, timeout_ns=150 * MS))
    assert texts(recorded) == ["timeout"] * 3
    assert time.monotonic() - began < 30


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("size", [1, 16_384, 3_000_000])
async def test_answers_and_requests_of_many_records_are_whole(size: int) -> None:
    came: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            came.append(len(await reader.readexactly(size)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
            await writer.drain()

    async with secured(handler) as server:
        workload = Workload("shop.example", method="PUT", body="y" * size)
        recorded = await run(in_turn(server, 50, 60, workload=workload))
    assert texts(recorded) == [""] * 3
    assert came == [size] * 3
    assert set(recorded.requests["bytes_in"]) == {len(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n") + size}
    assert len(recorded.connections["began_ns"]) == 1


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("surplus", [b"junk", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_a_secured_connection_with_bytes_nobody_asked_for_is_not_used_again(surplus: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            writer.get_extra_info("ssl_object").write(OK)
            writer.write(surplus)  # a record of its own, but sent with the other

    async with secured(handler) as server:
        recorded = await run(in_turn(server, 20, 150))
    assert texts(recorded) == [""] * 3
    assert recorded.requests["connection"].tolist() == [0, 1, 2]


@pytest.mark.usefixtures("driver")
async def test_a_secured_connection_that_was_closed_costs_an_idempotent_request_one_more_attempt() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(OK)
        await head(reader)

    async with secured(handler) as server:
        recorded = await run(in_turn(server, 50, 60))
    assert texts(recorded) == [""] * 3
    assert recorded.requests["attempts"].tolist() == [1, 2, 2]


@pytest.mark.syscalls
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("resume", [False, True])
async def test_a_session_is_resumed_where_that_is_asked_for(version: ssl.TLSVersion, resume: bool) -> None:
    compiled.prepare()
    reused: list[bool] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secured = writer.get_extra_info("ssl_object")
        assert secured.version() == version.name.replace("_", ".")
        await head(reader)
        reused.append(secured.session_reused)
        writer.write(OK)

    async with secured(handler, version=version) as server:
        place = replace(server, tls=replace(SHOP, resume=resume))
        task = in_turn(place, 50, 80, workload=Workload("shop.example", keep_alive=False))
        recorded = await Threaded(task).run(time.monotonic_ns() + 10 * MS)
    assert texts(recorded) == [""] * 4
    assert reused == [False, resume, resume, resume]
    assert recorded.generator.resumed == 3 * resume


@pytest.mark.syscalls
async def test_without_openssl_for_compiled_code_asyncio_runs_the_load_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = open_loop(Destination("127.0.0.1", 9, tls=SHOP), 1, 1)
    assert isinstance(LoadProcess(task)._stream, CompiledStream)
    monkeypatch.setattr(compiled.openssl, "CLIENT_FUNCTIONS", ("SSL_no_such_function",))
    stream = LoadProcess(task)._stream
    assert isinstance(stream, Stream)
    recorded = await stream.run(time.monotonic_ns())
    assert (recorded.generator.driver, recorded.generator.reason) == (
        "asyncio",
        "Python's OpenSSL does not show its functions to compiled code; no session is resumed",
    )


INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  tls: [{hosts: [shop.example], secretName: shop-tls}]
  rules:
  - host: shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}
"""
BENCH = """
apiVersion: trafficplane.dev/v1alpha1
kind: Scenario
metadata: {name: bench}
spec:
  manifests: [x]
  certificates: [{secret: shop-tls, hosts: [shop.example]}]
  loads: [{name: a, target: {url: "https://shop.example/p"}, arrivals: {rate: 1/s}, duration: 1s}]
"""


def resolved(target: dict[str, Any], folder: Path = Path()) -> Destination:
    document = yaml.safe_load(BENCH)
    document["spec"]["loads"][0]["target"].update(target)
    asked = scenario.parse(yaml.safe_dump(document))
    objects: list[Object] = [yaml.safe_load(INGRESS), *MADE.secrets]
    plan = AddressPlan(5, 8000)
    settled = offline.settled(objects, nodes=1, plan=plan)
    around = Surroundings(settled, plan, ("127.205.0.1", 8080), 8443, MADE.authority)
    return targets.resolve(asked, str(folder / "bench.yaml"), around)[0].destination


def test_a_host_of_an_ingress_is_asked_at_its_port_of_https(tmp_path: Path) -> None:
    assert resolved({}) == Destination("127.205.0.1", 8443, tls=Tls("shop.example", MADE.authority))
    assert resolved({"tls": {"insecure": True}}).tls == Tls("shop.example", MADE.authority, insecure=True)
    assert resolved({"url": "https://127.0.0.1/"}) == Destination(
        "127.0.0.1", 443, tls=Tls("127.0.0.1", MADE.authority)
    )
    assert resolved({"url": "http://shop.example/"}).tls is None
    (tmp_path / "ca.pem").write_text(OTHER)
    assert resolved({"tls": {"ca": "ca.pem"}}, tmp_path).tls == Tls("shop.example", OTHER, only=True)


def test_the_scenario_of_tls_is_one_of_its_own_certificates() -> None:
    configs = Path(__file__).parents[2] / "configs"
    asked, _ = scenario.read(configs / "tls.yaml")
    made = certificates.issued(asked.spec.certificates)
    objects = [row.object for row in manifests.load([str(configs / "tls")]).objects]
    plan = AddressPlan(5)
    settled = offline.settled([*objects, *made.secrets], nodes=1, plan=plan)
    around = Surroundings(settled, plan, (plan.vip(1), 80), authority=made.authority)
    kept, each, resumed, plain = (target.destination for target in targets.resolve(asked, "tls.yaml", around))
    assert kept == each == Destination(plan.vip(1), 443, tls=Tls("shop.example", made.authority))
    assert resumed == replace(each, tls=replace(kept.tls, resume=True))
    assert plain == Destination(plan.vip(1), 80)


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "there is no .*/ca.pem$"), ("no certificate", ".*ca.pem holds no certificates in PEM")],
)
def test_an_authority_that_is_none_is_named(tmp_path: Path, text: str | None, why: str) -> None:
    if text:
        (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(ScenarioError, match=rf"spec.loads\[0\].target.tls.ca: {why}"):
        resolved({"tls": {"ca": "ca.pem"}}, tmp_path)


def test_a_certificate_whose_secret_is_there_is_named() -> None:
    twice = problems(changed(lambda spec: spec.update(certificates=[{"secret": "a", "hosts": ["a.example"]}] * 2)))
    assert twice == {"spec.certificates[1].secret": "Secret default/a is another one, too: give it all hosts"}
    secret = {"kind": "Secret", "metadata": {"name": "shop-tls"}}
    asked = [Certificate(secret=name, hosts=["a.example"]) for name in ("other", "shop-tls")]
    assert list(certificates.clashes(asked, [secret])) == [
        ("spec.certificates[1].secret", "Secret default/shop-tls is in the manifests, too: leave one of them out")
    ]
    assert not list(certificates.clashes(asked, [{**secret, "kind": "ConfigMap"}]))


def test_what_is_wrong_with_tls_is_named() -> None:
    def change(spec: Any) -> None:
        spec["loads"][0]["target"]["tls"] = {"insecure": True, "ca": "x"}
        spec["certificates"] = [{"secret": "a", "hosts": []}, {"secret": "b", "hosts": ["*.a.*"]}]

    found = problems(changed(change))
    assert found.keys() == {
        "spec.loads[0].target.tls",
        "spec.certificates[0].hosts",
        "spec.certificates[1].hosts[0]",
    }
    assert "write a name, as shop.example or *.shop.example" in found["spec.certificates[1].hosts[0]"]
    idle = problems(
        changed(lambda spec: spec["loads"][0]["target"].update(url="https://a.example/", tls={"insecure": False}))
    )
    assert idle == {"spec.loads[0].target.tls.insecure": "false is what holds without it: leave tls out, or write true"}
    alone = problems(changed(lambda spec: spec["loads"][0]["target"].update(tls={"insecure": True})))
    assert alone == {"spec.loads[0].target.tls": "goes with a url that begins with https://"}
