"""Policies that take a clock, a memory, a body or several endpoints: limits, passwords, timeouts, retries, affinity."""

import asyncio
import base64
import contextlib
import hashlib
import re
import socket

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane import routecompiler
from plane.affinity import endpoint_of
from plane.explain import explain
from plane.ingress.edge import Edge, networks
from plane.ingress.limits import Limits
from plane.model import Object, Snapshot
from plane.policies import Policies, Range
from tests.ingress.manifests import ingress, ingress_class, path, prefix, rule, service, slices, snapshot_of
from tests.ingress.policies import named
from tests.ingress.test_failures import GET, HEAD, POST, hanging_up, silent
from tests.ingress.test_streaming import SWITCHED, WEBSOCKET
from tests.ingress.wire import Address, Client, Endpoint, Message, ask, client, eventually, read_head, running, saying

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
CHUNKED = b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def annotated(*pods: Address, generation: int = 1, more: tuple[Object, ...] = (), **annotations: str) -> Snapshot:
    """All of ``example.com`` to the Service ``web``, by an Ingress with these annotations of ingress-nginx."""
    made = ingress("web", rule("example.com", prefix("/", "web")), annotations=named(**annotations))
    return snapshot_of(service("web"), *slices("web", pods), made, *more, generation=generation)


# Limits


def reference_bucket(rate: float, burst: float, times: list[float]) -> list[bool]:
    """NGINX's leaky bucket, told anew: what has drained is counted from the first request on, for each one apart."""
    let_through: list[float] = []
    said = []
    for now in times:
        level, before = 0.0, now
        for number, then in enumerate(let_through):
            level = 0.0 if number == 0 else max(0.0, level - rate * (then - before) + 1)
            before = then
        excess = max(0.0, level - rate * (now - before) + 1) if let_through else 0.0
        said.append(excess <= burst)
        if said[-1]:
            let_through.append(now)
    return said


@given(
    rps=st.integers(1, 4),
    burst=st.integers(1, 3),
    steps=st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 2.0]), max_size=40),
)
def test_a_limit_is_a_leaky_bucket(rps: int, burst: int, steps: list[float]) -> None:
    times = [sum(steps[:number]) for number in range(1, len(steps) + 1)]
    clock = iter(times)
    limits, policies = Limits(lambda: next(clock)), Policies(limit_key="a/b", limit_rps=rps, limit_burst=burst)
    said = [not limits.limited(policies, 7) for _ in times]
    assert said == reference_bucket(rps, rps * burst, times)


def test_limits_count_each_client_and_each_ingress_apart_and_not_those_who_are_free() -> None:
    limits = Limits(lambda: 0.0)
    one = Policies(limit_key="a/one", limit_rpm=1, limit_burst=1, unlimited=(Range(8, 0xFFFFFFFF),))
    two = Policies(limit_key="a/two", limit_rpm=1, limit_burst=1)
    assert [bool(limits.limited(one, 7)) for _ in range(3)] == [False, False, True]
    assert not limits.limited(two, 7)
    assert not limits.limited(one, 9)
    assert not any(limits.limited(one, 8) for _ in range(9))


def test_clients_that_limits_remember_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.ingress.limits.CLIENTS", 10)
    limits, policies = Limits(lambda: 0.0), Policies(limit_key="a/b", limit_rps=1, limit_burst=1)
    for address in range(1000):
        assert not limits.limited(policies, address)
    assert len(limits._buckets) == 10


async def test_limit_rpm_answers_503_and_outlives_an_install(vip: str, pods: list[Address]) -> None:
    said = {"limit_rpm": "1", "limit_burst_multiplier": "2"}
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, annotated(pods[0], **said)) as here,
        client(here.http) as one,
    ):
        assert [(await one.get()).status for _ in range(4)] == [200, 200, 200, 503]
        await here.install(annotated(pods[0], generation=2, **said))
        assert (await one.get()).status == 503
        assert len(endpoint.requests) == 3
        await here.install(annotated(pods[0], generation=3, limit_whitelist="127.0.0.0/8", **said))
        assert (await one.get()).status == 200


async def test_limit_connections_counts_requests_under_way(vip: str, pods: list[Address]) -> None:
    go = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            await go.wait()
            writer.write(saying(b"done"))

    async with (
        Endpoint(pods[0], serve=serve) as endpoint,
        running(vip, annotated(pods[0], limit_connections="1")) as here,
    ):
        async with client(here.http) as one:
            one.send(GET)
            await eventually(lambda: endpoint.requests)
            assert (await ask(here.http, GET)).status == 503
            go.set()
            assert (await one.answer()).status == 200
        for _ in range(3):
            assert (await ask(here.http, GET)).status == 200


# Bodies


@pytest.mark.parametrize("size", [10, 11])
@pytest.mark.parametrize("pieces", [1, 2])
async def test_proxy_body_size_holds_for_chunked_bodies(vip: str, pods: list[Address], size: int, pieces: int) -> None:
    async with (
        Endpoint(pods[0]),
        running(vip, annotated(pods[0], proxy_body_size="10")) as here,
        client(here.http) as one,
    ):
        one.send(CHUNKED + b"5\r\nabcde\r\n")
        if pieces == 2:
            await one.writer.drain()
            await asyncio.sleep(0)  # nothing waits for it: the body comes in one piece or in two
        one.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size - 5, b"x" * (size - 5)))
        assert (await one.answer()).status == (200 if size == 10 else 413)


async def test_a_body_that_grows_too_large_on_the_way_is_413(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, annotated(pods[0], proxy_body_size="10")) as here,
        client(here.http) as one,
    ):
        one.send(CHUNKED + b"5\r\nabcde\r\n")
        await eventually(lambda: endpoint.open)
        one.send(b"6\r\nfghijk\r\n")
        assert (await one.answer()).status == 413
        assert await one.at_end()
        await eventually(lambda: not endpoint.open)


@pytest.mark.parametrize(
    ("objects", "annotations", "status"),
    [
        pytest.param((), {}, 200, id="no class: no limit"),
        pytest.param((ingress_class("x", "k8s.io/ingress-nginx", default=True),), {}, 413, id="ingress-nginx: 1 MiB"),
        pytest.param(
            (ingress_class("x", "k8s.io/ingress-nginx", default=True),), {"proxy_body_size": "0"}, 200, id="0: no limit"
        ),
        pytest.param(
            (ingress_class("x", "k8s.io/ingress-nginx", default=True),),
            {"proxy_body_size": "2m"},
            200,
            id="another one",
        ),
        pytest.param((ingress_class("x", "trafficplane.dev/ingress", default=True),), {}, 200, id="our own class"),
    ],
)
async def test_the_limit_of_bodies_by_default(
    vip: str, pods: list[Address], objects: tuple[Object, ...], annotations: dict[str, str], status: int
) -> None:
    async with (
        Endpoint(pods[0]),
        running(vip, annotated(pods[0], more=objects, **annotations)) as here,
        client(here.http) as one,
    ):
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 1048577\r\n\r\n")
        if status == 200:
            one.send(b"x" * 1_048_577)
        assert (await one.answer()).status == status


# Passwords

SHA = "{SHA}" + base64.b64encode(hashlib.sha1(b"secret").digest()).decode()


def secret(name: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def basic(name: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}\r\n"


async def test_basic_auth_by_a_file_of_htpasswd(vip: str, pods: list[Address]) -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4, prefix=b"2b")).decode().replace("$2b$", "$2y$")
    users = secret("users", auth=f"# people\nada:{hashed}\neve:{SHA}:comment\n\nold:xyzrjQPb1Uvuo\n")
    said = {"auth_type": "basic", "auth_secret": "users", "auth_realm": "Authentication Required"}
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, annotated(pods[0], more=(users,), **said)) as here,
        client(here.http) as one,
    ):
        answer = await one.get()
        assert answer.status == 401
        assert answer.get("www-authenticate") == 'Basic realm="Authentication Required"'
        for fields in (
            basic("ada", "Secret"),
            basic("bob", "secret"),
            basic("old", "x"),
            "Authorization: Basic !\r\n",
        ):
            assert (await one.get(fields=fields)).status == 401
        for _ in range(2):  # the second time it is remembered
            assert (await one.get(fields=basic("ada", "secret"))).status == 200
        assert (await one.get(fields=basic("eve", "secret"))).status == 200
        assert endpoint.requests[-1].get("authorization") is None
        changed = secret("users", auth=f"eve:{SHA}\n")
        await here.install(annotated(pods[0], more=(changed,), generation=2, **said))
        assert (await one.get(fields=basic("ada", "secret"))).status == 401
        assert (await one.get(fields=basic("eve", "secret"))).status == 200


async def test_basic_auth_by_a_map(vip: str, pods: list[Address]) -> None:
    said = {"auth_type": "basic", "auth_secret": "default/users", "auth_secret_type": "auth-map"}
    async with Endpoint(pods[0]), running(vip, annotated(pods[0], more=(secret("users", ada=SHA),), **said)) as here:
        assert (await ask(here.http, GET)).status == 401
        async with client(here.http) as one:
            assert (await one.get(fields=basic("ada", "secret"))).status == 200


CRYPT = "$5$rounds=999999999$saltsalt$" + "x" * 43  # takes hours
LOOKED_UP = {"auth_type": "basic", "auth_secret": "users"}


async def test_passwords_are_looked_at_in_a_process_that_ends_with_the_ingress(vip: str, pods: list[Address]) -> None:
    users = secret("users", auth=f"ada:{SHA}\nslow:{CRYPT}\n")
    async with (
        Endpoint(pods[0]),
        running(vip, annotated(pods[0], more=(users,), **LOOKED_UP)) as here,
        client(here.http) as one,
        client(here.http) as other,
    ):
        assert here.ingress._hashing._process is None
        assert (await one.get(fields=basic("ada", "secret"))).status == 200
        process = here.ingress._hashing._process
        assert process is not None
        other.send(b"GET / HTTP/1.1\r\n" + HEAD + basic("slow", "x").encode() + b"\r\n")
        await eventually(lambda: here.ingress._hashing._waiting)
        assert (await one.get(fields=basic("ada", "secret"))).status == 200  # it is remembered
        assert (await one.get(fields=basic("nobody", "secret"))).status == 401  # there is nothing to look at
    assert process.returncode is not None


async def test_only_so_many_passwords_wait(vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.ingress.hashing.WAITING", 1)
    users = secret("users", auth=f"ada:{SHA}\nslow:{CRYPT}\n")
    async with (
        running(vip, annotated(pods[0], more=(users,), **LOOKED_UP)) as here,
        client(here.http) as one,
        client(here.http) as other,
    ):
        other.send(b"GET / HTTP/1.1\r\n" + HEAD + basic("slow", "x").encode() + b"\r\n")
        await eventually(lambda: here.ingress._hashing._waiting)
        assert (await one.get(fields=basic("ada", "secret"))).status == 503


async def test_a_hash_that_takes_too_long_is_left(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plane.ingress.hashing.PATIENCE_S", 1.0)
    users = secret("users", auth=f"ada:{SHA}\nslow:{CRYPT}\n")
    async with (
        Endpoint(pods[0]),
        running(vip, annotated(pods[0], more=(users,), **LOOKED_UP)) as here,
        client(here.http) as one,
    ):
        assert (await one.get(fields=basic("slow", "x"))).status == 503
        assert (await one.get(fields=basic("ada", "secret"))).status == 200


# Timeouts and retries


async def test_proxy_read_timeout(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=silent), running(vip, annotated(pods[0], proxy_read_timeout="1")) as here:
        assert (await ask(here.http, GET)).status == 504


async def test_proxy_connect_timeout(vip: str, pods: list[Address]) -> None:
    with socket.create_server(pods[0], backlog=0) as full, socket.create_connection(pods[0]):
        async with running(vip, annotated(pods[0], proxy_connect_timeout="1", proxy_next_upstream_tries="1")) as here:
            answer = await ask(here.http, GET)
            assert answer.status == 504
            assert b"within 1 s" in answer.body
        assert full


async def test_proxy_send_timeout(vip: str, pods: list[Address]) -> None:
    async def deaf(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        await asyncio.Event().wait()

    said = {"proxy_send_timeout": "1", "proxy_read_timeout": "3600"}
    async with (
        Endpoint(pods[0], serve=deaf),
        running(vip, annotated(pods[0], **said)) as here,
        client(here.http) as one,
    ):
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 100000000\r\n\r\n")
        sending = asyncio.create_task(pour(one))
        assert (await one.answer()).status == 504
        sending.cancel()


async def pour(one: Client) -> None:
    while True:
        one.send(bytes(1 << 20))
        await one.writer.drain()


async def statuses(here_address: Address, raw: bytes, count: int = 4) -> list[int]:
    return [(await ask(here_address, raw)).status for _ in range(count)]


@pytest.mark.parametrize(
    ("conditions", "raw", "expected"),
    [
        pytest.param("error timeout", GET, [503, 200] * 2, id="an answer is an answer, unless the policy says"),
        pytest.param("error http_503", GET, [200] * 4, id="http_503"),
        pytest.param("http_502", GET, [503, 200] * 2, id="another status"),
        pytest.param("http_503", POST, [503, 200, 200, 200], id="what may be done already is not repeated"),
        pytest.param("http_503 non_idempotent", POST, [200] * 4, id="unless the policy says so"),
    ],
)
async def test_proxy_next_upstream_after_a_status(
    vip: str, pods: list[Address], conditions: str, raw: bytes, expected: list[int]
) -> None:
    snapshot = annotated(*pods[:2], proxy_next_upstream=conditions)
    async with Endpoint(pods[0], BUSY), Endpoint(pods[1]), running(vip, snapshot) as here:
        assert await statuses(here.http, raw) == expected


async def test_the_last_answer_counts_where_no_other_endpoint_is_left(vip: str, pods: list[Address]) -> None:
    snapshot = annotated(*pods[:2], proxy_next_upstream="http_503")
    async with Endpoint(pods[0], BUSY) as one, Endpoint(pods[1], BUSY) as other, running(vip, snapshot) as here:
        answer = await ask(here.http, GET)
        assert (answer.status, answer.body) == (503, b"busy")
        assert len(one.requests) == len(other.requests) == 1


@pytest.mark.parametrize(
    ("annotations", "raw", "first", "expected"),
    [
        pytest.param({"proxy_next_upstream": "off"}, GET, None, [502, 200, 200, 200], id="off: a refused one stays so"),
        pytest.param({"proxy_next_upstream": "timeout"}, GET, None, [502, 200, 200, 200], id="no error among them"),
        pytest.param({"proxy_next_upstream_tries": "1"}, GET, None, [502, 200, 200, 200], id="one try"),
        pytest.param({"proxy_next_upstream_tries": "0"}, GET, None, [200] * 4, id="0 tries are any number"),
        pytest.param({"proxy_next_upstream": "error"}, GET, hanging_up, [200] * 4, id="error"),
        pytest.param(
            {"proxy_next_upstream": "error"}, POST, hanging_up, [502, 200, 200, 200], id="error, not idempotent"
        ),
        pytest.param(
            {"proxy_next_upstream": "error non_idempotent"},
            POST,
            hanging_up,
            [200] * 4,
            id="error, not idempotent, allowed",
        ),
    ],
)
async def test_proxy_next_upstream_after_an_error(
    vip: str, pods: list[Address], annotations: dict[str, str], raw: bytes, first: object, expected: list[int]
) -> None:
    async with Endpoint(pods[1]), running(vip, annotated(*pods[:2], **annotations)) as here:
        if first is None:
            assert await statuses(here.http, raw) == expected
        else:
            async with Endpoint(pods[0], serve=first):  # type: ignore[arg-type]
                assert await statuses(here.http, raw) == expected


async def test_proxy_next_upstream_after_a_timeout(vip: str, pods: list[Address]) -> None:
    snapshot = annotated(*pods[:2], proxy_next_upstream="timeout", proxy_read_timeout="1")
    async with Endpoint(pods[0], serve=silent), Endpoint(pods[1]), running(vip, snapshot) as here:
        assert (await ask(here.http, GET)).status == 200


@pytest.mark.parametrize(("within", "status"), [("1", 504), ("60", 200)])
async def test_proxy_next_upstream_timeout_ends_the_tries(
    vip: str, pods: list[Address], within: str, status: int
) -> None:
    said = {"proxy_next_upstream": "timeout", "proxy_read_timeout": "1", "proxy_next_upstream_timeout": within}
    snapshot = annotated(*pods[:2], **said)
    async with Endpoint(pods[0], serve=silent), Endpoint(pods[1]), running(vip, snapshot) as here:
        assert (await ask(here.http, GET)).status == status


async def test_affinity_to_an_endpoint_that_is_gone_does_not_try_it_forever(vip: str, pods: list[Address]) -> None:
    said = {"affinity": "cookie", "affinity_mode": "persistent", "proxy_next_upstream_tries": "0"}
    async with running(vip, annotated(*pods[:2], **said)) as here:
        async with Endpoint(pods[0], saying(b"0")):
            cookie = (await served(here.http, ""))[1]
        async with client(here.http) as one:
            assert (await one.get(fields=f"Cookie: {cookie}\r\n")).status == 502


async def test_a_request_without_a_host_cannot_be_redirected(vip: str, pods: list[Address]) -> None:
    made = ingress("web", rule("", prefix("/", "web")), annotations=named(force_ssl_redirect="true"))
    async with running(vip, snapshot_of(service("web"), made)) as here:
        assert (await ask(here.http, b"GET / HTTP/1.0\r\n\r\n")).status == 400


# Affinity


def cookie_of(answer: Message) -> str:
    """``name=value`` of the cookie that an answer sets, empty where it sets none."""
    return (answer.get("set-cookie") or "").partition(";")[0]


async def served(here_address: Address, cookie: str) -> tuple[str, str]:
    """(who answers a client with that cookie, the cookie it gets)."""
    async with client(here_address) as one:
        answer = await one.get(fields=f"Cookie: a=b; {cookie}\r\n" if cookie else "")
        return answer.body.decode(), cookie_of(answer)


@pytest.mark.parametrize("mode", ["balanced", "persistent"])
async def test_affinity_keeps_a_client_at_its_endpoint(vip: str, pods: list[Address], mode: str) -> None:
    def snapshot(*there: Address, generation: int) -> Snapshot:
        return annotated(*there, generation=generation, affinity="cookie", affinity_mode=mode)

    async with (
        Endpoint(pods[0], saying(b"0")),
        Endpoint(pods[1], saying(b"1")),
        running(vip, snapshot(*pods[:2], generation=1)) as here,
    ):
        clients = [await served(here.http, "") for _ in range(12)]
        assert all(cookie for _, cookie in clients)
        assert {who for who, _ in clients} == {"0", "1"}
        for who, cookie in clients:
            assert await served(here.http, cookie) == (who, "")
        await here.install(snapshot(pods[1], generation=2))
        for who, cookie in clients:
            answered, renewed = await served(here.http, cookie)
            assert answered == "1"
            assert bool(renewed) == (mode == "persistent" and who == "0")
        assert (await served(here.http, "INGRESSCOOKIE=forged|x"))[1]


async def test_the_attributes_of_the_cookie(vip: str, pods: list[Address]) -> None:
    said = {
        "affinity": "cookie",
        "session_cookie_name": "stickounet",
        "session_cookie_expires": "172800",
        "session_cookie_max_age": "3600",
        "session_cookie_path": "/app",
        "session_cookie_domain": "example.com",
        "session_cookie_samesite": "strict",
        "session_cookie_secure": "true",
    }
    async with Endpoint(pods[0]), running(vip, annotated(pods[0], **said)) as here, client(here.http) as one:
        found = (await one.get()).get("set-cookie") or ""
    assert re.fullmatch(
        r"stickounet=[0-9a-f]{16}\|[0-9a-f]{16}; Expires=\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT; Max-Age=3600; "
        r"Domain=example.com; Path=/app; Secure; HttpOnly; SameSite=Strict",
        found,
    )
    async with Endpoint(pods[0]), running(vip, annotated(pods[0], affinity="cookie")) as here, client(here.http) as one:
        found = (await one.get()).get("set-cookie") or ""
    assert re.fullmatch(r"INGRESSCOOKIE=\w+\|\w+; Path=/; HttpOnly", found)


@pytest.mark.parametrize("change", ["true", "false"])
async def test_session_cookie_change_on_failure(vip: str, pods: list[Address], change: str) -> None:
    said = {"affinity": "cookie", "affinity_mode": "persistent", "session_cookie_change_on_failure": change}
    async with Endpoint(pods[1], saying(b"1")), running(vip, annotated(*pods[:2], **said)) as here:
        async with Endpoint(pods[0], saying(b"0")):
            cookies = dict([await served(here.http, "") for _ in range(2)])
        answered, renewed = await served(here.http, cookies["0"])
        assert (answered == "1", bool(renewed)) == (change == "true", change == "true")


@given(
    st.lists(st.text("0123456789", min_size=1, max_size=3), min_size=2, max_size=8, unique=True), st.text(max_size=9)
)
def test_an_endpoint_that_goes_moves_no_session_but_its_own(addresses: list[str], key: str) -> None:
    found = endpoint_of(key, addresses, persistent=False)
    assert found is not None
    for gone in range(len(addresses)):
        rest = addresses[:gone] + addresses[gone + 1 :]
        now = endpoint_of(key, rest, persistent=False)
        assert now is not None
        assert gone == found or rest[now] == addresses[found]


@pytest.mark.parametrize(
    ("by", "same", "other"),
    [
        ("$request_uri", [("/{}?x", "")], "/{}?y"),
        ("$uri", [("/{}?x", ""), ("/./{}?y", "")], "/{}/z"),
        ("$arg_page", [("/?page={}", ""), ("/x?a=b&Page={}", "")], "/?page=-{}"),
        ("$http_x_user$args", [("/", "X-User: {}\r\n"), ("/x", "x-user: {}\r\n")], "/?{}"),
        ("$cookie_id", [("/", "Cookie: id={}\r\n"), ("/x", "Cookie: a=b; id={}\r\n")], "/"),
    ],
)
async def test_upstream_hash_by_sends_equal_requests_to_one_endpoint(
    vip: str, pods: list[Address], by: str, same: list[tuple[str, str]], other: str
) -> None:
    snapshot = annotated(*pods[:3], upstream_hash_by=by)
    async with contextlib.AsyncExitStack() as stack:
        for number, address in enumerate(pods[:2]):  # and the third is not there
            await stack.enter_async_context(Endpoint(address, saying(b"%d" % number)))
        here = await stack.enter_async_context(running(vip, snapshot))
        one = await stack.enter_async_context(client(here.http))
        met = set()
        for key in range(24):
            found = {
                (await one.get(path.format(key), fields=fields.format(key))).body
                for path, fields in same
                for _ in range(2)
            }
            gone = explain(
                snapshot, f"http://example.com{same[0][0].format(key)}", headers=sent(same[0][1].format(key))
            )
            assert gone.chosen is not None
            if gone.chosen["ip"] == pods[2][0]:
                assert found <= {b"0", b"1"}
            else:
                assert found == {b"%d" % [ip for ip, _ in pods].index(gone.chosen["ip"])}
                met |= found
        assert met == {b"0", b"1"}
        assert (await one.get(other)).status == 200


def sent(fields: str) -> list[tuple[str, str]]:
    """Fields as explain takes them."""
    return [(name, value) for name, _, value in (row.partition(": ") for row in fields.splitlines())]


async def test_a_path_that_does_not_fit_into_a_cookie_is_not_put_there(vip: str, pods: list[Address]) -> None:
    made = ingress(
        "web",
        rule("example.com", path("ImplementationSpecific", "/a\r\nX-Evil: y", "web"), prefix("/", "web")),
        annotations=named(affinity="cookie"),
    )
    table = routecompiler.compile(snapshot_of(service("web"), *slices("web", pods[:1]), made))
    paths = {table.policy(row).cookie_path for row in range(len(table.policies.policies))}
    assert paths == {"", "/"}


# Canaries


def with_canary(*addresses: Address, main: dict[str, str], **annotations: str) -> Snapshot:
    """``web`` at the first address, its canary at the second."""
    return snapshot_of(
        service("web"),
        service("new"),
        *slices("web", addresses[:1]),
        *slices("new", addresses[1:]),
        ingress("web", rule("example.com", prefix("/", "web")), annotations=named(**main)),
        ingress("new", rule("example.com", prefix("/", "new")), annotations=named(canary="true", **annotations)),
    )


async def test_a_canary_gets_its_weight_and_is_recorded(vip: str, pods: list[Address]) -> None:
    snapshot = with_canary(*pods[:2], main={}, canary_weight="30")
    async with (
        Endpoint(pods[0]) as web_pod,
        Endpoint(pods[1]) as new_pod,
        running(vip, snapshot, recording=True) as here,
        client(here.http) as one,
    ):
        for _ in range(400):
            assert (await one.get()).status == 200
        assert len(web_pod.requests) + len(new_pod.requests) == 400
        assert 60 < len(new_pod.requests) < 180  # five standard deviations and more on either side
        rows = await here.ingress.records()
        names = [rows["routes"][number] for number in rows["route"]]
        assert names.count("default/new example.com /") == len(new_pod.requests)
        assert names.count("default/web example.com /") == len(web_pod.requests)


async def test_affinity_holds_for_the_choice_of_the_canary_too(vip: str, pods: list[Address]) -> None:
    snapshot = with_canary(*pods[:2], main={"affinity": "cookie"}, canary_weight="50", canary_by_header="X-Canary")
    async with Endpoint(pods[0], saying(b"web")), Endpoint(pods[1], saying(b"new")), running(vip, snapshot) as here:
        clients = dict([await served(here.http, "") for _ in range(30)])
        assert clients.keys() == {"web", "new"}
        for who, cookie in clients.items():
            assert {(await served(here.http, cookie))[0] for _ in range(10)} == {who}


# Upgrades


async def test_policies_hold_for_an_upgrade(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        writer.write(SWITCHED + b"hello")
        await reader.read()

    made = ingress(
        "web",
        rule("example.com", {**prefix("/ws(/|$)(.*)", "web"), "pathType": "ImplementationSpecific"}),
        annotations=named(rewrite_target="/$2", enable_cors="true", affinity="cookie"),
    )
    snapshot = snapshot_of(service("web"), *slices("web", pods[:1]), made)
    async with Endpoint(pods[0], serve=serve) as endpoint, running(vip, snapshot) as here, client(here.http) as one:
        one.send(b"GET /ws/chat HTTP/1.1\r\n" + HEAD + WEBSOCKET)
        answer = await one.answer()
        assert (answer.status, answer.get("access-control-allow-origin")) == (101, "*")
        assert cookie_of(answer)
        assert await one.reader.readexactly(5) == b"hello"
        assert endpoint.requests[0].start == "GET /chat HTTP/1.1"


async def test_cors_fields_of_the_endpoint_are_replaced(vip: str, pods: list[Address]) -> None:
    said = saying(b"x").replace(b"\r\n\r\n", b"\r\nAccess-Control-Allow-Origin: https://evil.org\r\n\r\n")
    async with Endpoint(pods[0], said), running(vip, annotated(pods[0], enable_cors="true")) as here:
        assert (await ask(here.http, GET)).get("access-control-allow-origin") == "*"


@pytest.mark.parametrize("name", ["Origin", "Cookie", "Authorization", "X-Canary"])
async def test_bytes_that_are_no_text_harm_nobody(vip: str, pods: list[Address], name: str) -> None:
    made = with_canary(
        *pods[:2],
        main={"enable_cors": "true", "cors_allow_origin": "https://a.com", "affinity": "cookie"},
        canary_by_header="X-Canary",
        canary_by_header_pattern="a+",
        canary_by_cookie="try",
    )
    async with Endpoint(pods[0]), Endpoint(pods[1]), running(vip, made) as here, client(here.http) as one:
        known = (await served(here.http, ""))[1].partition("|")[2].encode()
        for value in (b"\xff", b"INGRESSCOOKIE=\xff|" + known, b"\xe2\x82\xac|x; try=\xff", b"Basic \xfc"):
            one.send(b"GET / HTTP/1.1\r\n" + HEAD + name.encode() + b": " + value + b"\r\n\r\n")
            assert (await one.answer()).status == 200


@pytest.mark.parametrize("token", [b"Basic \xff", b"Basic /w==", b"Basic Og==", b"Basic", b"Digest x", b"basic YTpi"])
async def test_credentials_that_are_none_get_401(vip: str, pods: list[Address], token: bytes) -> None:
    said = {"auth_type": "basic", "auth_secret": "users"}
    made = annotated(pods[0], more=(secret("users", auth=f"a:{SHA}"),), **said)
    async with running(vip, made) as here, client(here.http) as one:
        one.send(b"GET / HTTP/1.1\r\n" + HEAD + b"Authorization: " + token + b"\r\n\r\n")
        assert (await one.answer()).status == 401


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "a stranger"])
async def test_policies_go_by_what_a_trusted_proxy_says(vip: str, pods: list[Address], trusted: bool) -> None:
    edge = Edge(networks("127.0.0.0/8")) if trusted else Edge()
    said = {"force_ssl_redirect": "true", "allowlist_source_range": "192.0.2.0/24"}
    fields = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: shop.org\r\n"
    async with (
        Endpoint(pods[0]),
        running(vip, annotated(pods[0], **said), edge=edge) as here,
        client(here.http) as one,
    ):
        answer = await one.get("/x", fields=fields)
        assert answer.get("location") == f"https://{'shop.org' if trusted else 'example.com'}/x"
        assert (await one.get(fields=f"{fields}X-Forwarded-Proto: https\r\n")).status == (200 if trusted else 308)
        other = "X-Forwarded-For: 192.0.3.7\r\nX-Forwarded-Proto: https\r\n"
        assert (await one.get(fields=other)).status == (403 if trusted else 308)
        nobody = "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\n"
        assert (await one.get(fields=nobody)).status == (403 if trusted else 308)


@pytest.mark.parametrize(
    ("said", "status"),
    [("https, http", 200), ("wss", 200), ("HTTPS", 200), ("http, https", 308), ("ws", 308), ("http", 308)],
)
async def test_https_is_what_a_trusted_proxy_says_first(vip: str, pods: list[Address], said: str, status: int) -> None:
    edge = Edge(networks("127.0.0.0/8"))
    async with (
        Endpoint(pods[0]),
        running(vip, annotated(pods[0], force_ssl_redirect="true"), edge=edge) as here,
        client(here.http) as one,
    ):
        assert (await one.get(fields=f"X-Forwarded-Proto: {said}\r\n")).status == status


async def test_a_host_that_a_proxy_says_is_in_no_redirect_unless_it_is_one(vip: str, pods: list[Address]) -> None:
    edge = Edge(networks("127.0.0.0/8"))
    async with (
        running(vip, annotated(pods[0], force_ssl_redirect="true"), edge=edge) as here,
        client(here.http) as one,
    ):
        answer = await one.get("/x", fields="X-Forwarded-Host: evil.org/?\r\n")
        assert answer.get("location") == "https://example.com/x"


@pytest.mark.parametrize(
    ("ranges", "address", "status"),
    [
        ("2001:db8::/32", "2001:db8::1", 403),
        ("2001:db8::/32", "2001:db9::1", 403),
        ("2001:db8::/32", "192.0.2.1", 200),
        ("192.0.2.0/24", "2001:db8::1", 200),
        ("192.0.2.0/24", "::ffff:192.0.2.1", 403),
    ],
)
async def test_a_denylist_of_ipv6_denies_it_as_a_whole(
    vip: str, pods: list[Address], ranges: str, address: str, status: int
) -> None:
    edge = Edge(networks("127.0.0.0/8"))
    async with (
        Endpoint(pods[0]),
        running(vip, annotated(pods[0], denylist_source_range=ranges), edge=edge) as here,
        client(here.http) as one,
    ):
        assert (await one.get(fields=f"X-Forwarded-For: {address}\r\n")).status == status


async def test_all_of_ipv4_does_not_allow_ipv6(vip: str, pods: list[Address]) -> None:
    edge = Edge(networks("127.0.0.0/8"))
    async with (
        running(vip, annotated(pods[0], allowlist_source_range="0.0.0.0/0"), edge=edge) as here,
        client(here.http) as one,
    ):
        assert (await one.get(fields="X-Forwarded-For: 2001:db8::1\r\n")).status == 403


async def test_limits_tell_clients_of_ipv6_apart(vip: str, pods: list[Address]) -> None:
    edge = Edge(networks("127.0.0.0/8"))
    said = {"limit_rpm": "1", "limit_burst_multiplier": "1"}
    async with Endpoint(pods[0]), running(vip, annotated(pods[0], **said), edge=edge) as here, client(here.http) as one:
        for address in ("2001:db8::1", "2001:db8::2"):
            found = [(await one.get(fields=f"X-Forwarded-For: {address}\r\n")).status for _ in range(3)]
            assert found == [200, 200, 503]


async def test_policies_hold_for_an_external_name(vip: str, pods: list[Address]) -> None:
    made = ingress(
        "web",
        rule("example.com", prefix("/", "out")),
        annotations=named(affinity="cookie", upstream_vhost="inside.local"),
    )
    outside = service("out", type="ExternalName", externalName=pods[0][0])
    outside["spec"]["ports"][0]["port"] = pods[0][1]
    made["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"]["number"] = pods[0][1]
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, snapshot_of(outside, made)) as here,
        client(here.http) as one,
    ):
        answer = await one.get()
        assert answer.status == 200
        assert endpoint.requests[0].get("host") == "inside.local"
        cookie = cookie_of(answer)
        again = await one.get(fields=f"Cookie: {cookie}\r\n")
        assert (again.status, cookie_of(again), bool(cookie)) == (200, "", True)


async def test_https_of_another_port_is_found_by_those_who_named_one(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]),
        running(vip, annotated(pods[0], force_ssl_redirect="true")) as here,
        client(here.http) as one,
    ):
        answer = await one.get("/x", host=f"example.com:{here.http[1]}")
        assert answer.get("location") == f"https://example.com:{here.https[1]}/x"
        assert (await one.get("/x")).get("location") == "https://example.com/x"
