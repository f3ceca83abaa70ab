"""External authentication: somebody is asked whether a request goes on, on real sockets, and nobody gets by it."""

import asyncio
import ssl
from collections.abc import Callable

import pytest
import trustme

from plane.dialects import nginx
from plane.explain import explain
from plane.externalauth import ExternalAuth
from plane.ingress import subrequest
from plane.ingress.edge import Edge, networks
from plane.ingress.subrequest import Decision, Decisions
from plane.ingress.timeouts import Timeouts
from plane.model import Object, Snapshot
from plane.policies import Policies
from plane.routes import Origin
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.ingress.policies import named
from tests.ingress.test_failures import GET, HEAD, hanging_up, silent
from tests.ingress.test_streaming import SWITCHED, WEBSOCKET
from tests.ingress.wire import (
    Address,
    Endpoint,
    Message,
    Serve,
    ask,
    client,
    eventually,
    read_body,
    read_head,
    running,
    saying,
)

YES = saying(b"yes")


def said(status: int, *fields: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status} Said", *fields, "Content-Length: 3", "", "may")).encode()


def bare(status: int) -> bytes:
    return f"HTTP/1.1 {status} Said\r\n\r\n".encode()


def deciding(answer: Callable[[Message], bytes]) -> Serve:
    """Reads questions whole and gives each its answer."""

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_head(reader)
            request.body = await read_body(reader, request)
            endpoint.requests.append(request)
            writer.write(answer(request))

    return serve


def guarded(pod: Address, url: str, *more: Object, generation: int = 1, **annotations: str) -> Snapshot:
    """All of ``example.com`` to the Service ``web``, once whoever is at ``url`` lets it in."""
    made = ingress("web", rule("example.com", prefix("/", "web")), annotations=named(auth_url=url, **annotations))
    return snapshot_of(service("web"), *slices("web", [pod]), made, *more, generation=generation)


def at(address: Address, path: str = "/check") -> str:
    return f"http://{address[0]}:{address[1]}{path}"


async def test_what_is_asked_is_what_ingress_nginx_asks(vip: str, pods: list[Address]) -> None:
    fields = (
        "Cookie: a=b\r\nAuthorization: Bearer x\r\nX-Mine: y\r\nX-Request-ID: one\r\nX-Forwarded-For: 192.0.2.1\r\n"
        "X-Forwarded-Host: evil\r\nX-Original-URL: http://evil/\r\nX-Original-URI: /evil\r\nX-Scheme: evil\r\n"
        "X-Original-Method: EVIL\r\nX-Auth-Request-Redirect: /evil\r\nTE: trailers\r\nConnection: TE\r\n"
    )
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], YES) as asked,
        running(vip, guarded(pods[0], at(pods[1]))) as here,
        client(here.http) as one,
    ):
        assert (await one.get("/x?y=z", fields=fields)).body == b"hello"
        question = asked.requests[0]
        assert (question.start, question.body) == ("GET /check HTTP/1.1", b"")
        assert sorted(question.fields) == [
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("host", pods[1][0]),
            ("x-auth-request-redirect", "/x?y=z"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-mine", "y"),
            ("x-original-method", "GET"),
            ("x-original-url", "http://example.com/x?y=z"),
            ("x-real-ip", "127.0.0.1"),
            ("x-request-id", "one"),
            ("x-sent-from", "nginx-ingress-controller"),
        ]
        assert web.requests[0].get("authorization") == "Bearer x"
        assert web.requests[0].get("x-request-id") == "one"


async def test_a_trusted_proxy_is_believed_in_questions_too(vip: str, pods: list[Address]) -> None:
    fields = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n"
    async with (
        Endpoint(pods[0]),
        Endpoint(pods[1], YES) as asked,
        running(vip, guarded(pods[0], at(pods[1])), edge=Edge(trusted=networks("127.0.0.0/8"))) as here,
        client(here.http) as one,
    ):
        assert (await one.get(fields=fields)).status == 200
        names = ("x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-original-url")
        found = [asked.requests[0].get(name) for name in names]
        assert found == ["192.0.2.7", "192.0.2.7", "shop.example", None, "https://shop.example/"]


async def test_auth_method_asks_by_another_method(vip: str, pods: list[Address]) -> None:
    snapshot = guarded(pods[0], at(pods[1]), auth_method="POST", auth_request_redirect="/back")
    async with (
        Endpoint(pods[0]),
        Endpoint(pods[1], YES) as asked,
        running(vip, snapshot) as here,
        client(here.http) as one,
    ):
        for _ in range(2):
            assert (await one.get("/x", method="DELETE")).status == 200
        question = asked.requests[0]
        assert question.start == "POST /check HTTP/1.1"
        names = ("content-length", "x-original-uri", "x-original-method", "x-scheme", "x-auth-request-redirect")
        assert [question.get(name) for name in names] == ["0", "/x", "DELETE", "http", "/back"]


async def test_the_url_may_hold_variables(vip: str, pods: list[Address]) -> None:
    url = at(pods[1], "/check/$host?of=$escaped_request_uri&by=$request_method&user=$http_x_user")
    async with (
        Endpoint(pods[0]),
        Endpoint(pods[1], YES) as asked,
        running(vip, guarded(pods[0], url)) as here,
        client(here.http) as one,
    ):
        assert (await one.get("/a?b=c", fields="X-User: a b\u00fc\r\n")).status == 200
        start = "GET /check/example.com?of=%2Fa%3Fb%3Dc&by=GET&user=a%20b%C3%BC HTTP/1.1"
        assert asked.requests[0].start == start


async def test_a_config_map_says_more_to_whom_is_asked(vip: str, pods: list[Address]) -> None:
    data = {"X-Forwarded-Proto": "https", "X-Real-IP": "", "X-Host": "$host"}
    fields = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "f", "namespace": "default"}, "data": data}
    async with (
        Endpoint(pods[0]),
        Endpoint(pods[1], YES) as asked,
        running(vip, guarded(pods[0], at(pods[1]), fields, auth_proxy_set_headers="f")) as here,
        client(here.http) as one,
    ):
        assert (await one.get(fields="X-Host: evil\r\n")).status == 200
        names = ("x-forwarded-proto", "x-real-ip", "x-host")
        assert [asked.requests[0].get(name) for name in names] == ["https", None, "example.com"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (said(200), 200),
        (bare(204), 200),
        (said(299), 200),
        (said(401, "WWW-Authenticate: Basic realm=x"), 401),
        (said(403), 403),
        (said(302, "Location: /in"), 500),
        (bare(304), 500),
        (said(404), 500),
        (said(500), 500),
        (said(503), 500),
        (b"nonsense\r\n\r\n", 500),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 500),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + said(403), 403),
    ],
    ids=["200", "204", "299", "401", "403", "302", "304", "404", "500", "503", "no HTTP", "101", "100 and 403"],
)
async def test_only_2xx_lets_in(vip: str, pods: list[Address], answer: bytes, status: int) -> None:
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], answer),
        running(vip, guarded(pods[0], at(pods[1]))) as here,
        client(here.http) as one,
    ):
        found = await one.get()
        assert found.status == status
        assert bool(web.requests) == (status == 200)
        assert found.get("www-authenticate") == ("Basic realm=x" if status == 401 else None)


async def half(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says yes, but not to the end."""
    endpoint.requests.append(await read_head(reader))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nyes")
    await writer.drain()


async def trickling(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never comes to an end, and is never silent for long."""
    endpoint.requests.append(await read_head(reader))
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)  # nothing waits for it: this is how slow it is


@pytest.mark.parametrize("serve", [silent, hanging_up, half, trickling])
async def test_whoever_does_not_answer_lets_nobody_in(
    vip: str, pods: list[Address], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subrequest, "WITHIN_S", 0.6)
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], serve=serve) as asked,
        running(vip, guarded(pods[0], at(pods[1])), timeouts=Timeouts(read_s=0.3)) as here,
    ):
        answer = await ask(here.http, GET)
        assert (answer.status, b"external authentication" in answer.body) == (500, True)
        assert asked.connections
        assert not web.connections


@pytest.mark.parametrize(
    "url", ["http://nobody.invalid/", "http://auth.default.svc.cluster.local/", "https://$host/", "http://127.0.0.1:1"]
)
async def test_whoever_is_not_there_lets_nobody_in(vip: str, pods: list[Address], url: str) -> None:
    async with Endpoint(pods[0]) as web, running(vip, guarded(pods[0], url)) as here:
        assert (await ask(here.http, GET)).status == 500
        assert not web.connections


async def test_fields_of_the_answer_go_on_and_no_other_of_their_name(vip: str, pods: list[Address]) -> None:
    def answer(question: Message) -> bytes:
        if question.get("cookie") == "who=ada":
            return said(200, "X-User: ada", "X-Group: a", "X-Group: b", "X-Secret: s", "Authorization: Bearer t")
        return said(200)

    mine = "X-User: root\r\nx-user: root\r\nX_User: root\r\nX-Group: wheel\r\nAuthorization: me\r\nX-Secret: mine\r\n"
    names = ("x-user", "x-group", "authorization", "x-missing", "x-secret", "x_user")
    asking = guarded(pods[0], at(pods[1]), auth_response_headers="X-User,X-Group, Authorization, X-Missing")
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], serve=deciding(answer)),
        running(vip, asking) as here,
        client(here.http) as one,
    ):
        assert (await one.get(fields=mine + "Cookie: who=ada\r\n")).status == 200
        assert [web.requests[0].get(name) for name in names] == ["ada", "a, b", "Bearer t", None, "mine", None]
        assert (await one.get(fields=mine)).status == 200
        assert [web.requests[1].get(name) for name in names] == [None, None, None, None, "mine", None]


COOKIES = ("Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT")
BOTH = [line.partition(": ")[2] for line in COOKIES]


@pytest.mark.parametrize(
    ("decided", "status", "annotations", "expected"),
    [
        (200, 200, {}, ["own=1", *BOTH]),
        (200, 404, {}, ["own=1"]),
        (200, 404, {"auth_always_set_cookie": "true"}, ["own=1", *BOTH]),
        (401, 0, {}, []),
        (401, 0, {"auth_always_set_cookie": "true"}, BOTH),
        (401, 0, {"auth_signin": "https://in.example/"}, BOTH),
    ],
    ids=["of a success", "not of a failure", "always", "not of a refusal", "of a refusal, always", "where to sign in"],
)
async def test_cookies_of_the_answer_go_to_the_client(
    vip: str, pods: list[Address], decided: int, status: int, annotations: dict[str, str], expected: list[str]
) -> None:
    async with (
        Endpoint(pods[0], said(status, "Set-Cookie: own=1")),
        Endpoint(pods[1], said(decided, *COOKIES)),
        running(vip, guarded(pods[0], at(pods[1]), **annotations)) as here,
        client(here.http) as one,
    ):
        answer = await one.get()
        assert [value for name, value in answer.fields if name == "set-cookie"] == expected


async def test_who_has_not_signed_in_is_sent_where_that_is_done(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], said(401, "WWW-Authenticate: Bearer")),
        running(vip, guarded(pods[0], at(pods[1]), auth_signin="https://in.example/start")) as here,
        client(here.http) as one,
    ):
        answer = await one.get("/a%20b?c=d")
        where = "https://in.example/start?rd=http://example.com%2Fa%2520b%3Fc%3Dd"
        assert (answer.status, answer.get("location")) == (302, where)
        assert not web.connections


async def test_questions_go_by_kept_connections_and_a_stale_one_is_no_refusal(vip: str, pods: list[Address]) -> None:
    stale = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            if stale.is_set() and endpoint.connections == 1:
                return  # as one does whose time was over while the question was under way
            writer.write(YES)

    async with (
        Endpoint(pods[0]),
        Endpoint(pods[1], serve=serve) as asked,
        running(vip, guarded(pods[0], at(pods[1]))) as here,
        client(here.http) as one,
    ):
        for _ in range(5):
            assert (await one.get()).status == 200
        assert asked.connections == 1
        stale.set()
        assert (await one.get()).status == 200
        assert (asked.connections, len(asked.requests)) == (2, 7)


async def test_https_asks_for_the_name_that_the_url_says(vip: str, pods: list[Address]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("auth.example").configure_cert(tls)
    names: list[str | None] = []
    tls.sni_callback = lambda _, name, __: names.append(name)
    asked: list[Message] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked.append(await read_head(reader))
                writer.write(YES)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/in"
    async with server, Endpoint(pods[0]):
        async with running(vip, guarded(pods[0], url)) as here, client(here.http) as one:
            assert [(await one.get()).status for _ in range(2)] == [200, 200]
        assert [(one.start, one.get("host")) for one in asked] == [("GET /in HTTP/1.1", "localhost")] * 2
        assert names == ["localhost"]


async def test_a_route_of_this_ingress_may_be_asked_and_asks_nobody_itself(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], YES) as asked,
        running(vip, guarded(pods[0], "http://none.invalid")) as here,
    ):
        url = at((vip, here.http[1]), "/oauth2/check")
        auth = (service("auth"), *slices("auth", [pods[1]]))
        route = rule(vip, prefix("/oauth2", "auth"))
        await here.install(guarded(pods[0], url, ingress("in", route), *auth, generation=2))
        assert (await ask(here.http, GET)).status == 200
        assert asked.requests[0].get("x-original-url") == "http://example.com/"
        closed = ingress("in", route, annotations=named(auth_url=url))
        await here.install(guarded(pods[0], url, closed, *auth, generation=3))
        assert (await ask(here.http, GET)).status == 500
        assert (len(web.requests), len(asked.requests)) == (1, 1)


async def test_no_byte_of_a_body_goes_on_before_the_decision(vip: str, pods: list[Address]) -> None:
    go = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            await go.wait()
            writer.write(YES)

    body = b"x" * 1_000_000
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], serve=serve) as asked,
        running(vip, guarded(pods[0], at(pods[1]))) as here,
        client(here.http) as one,
    ):
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await eventually(lambda: asked.requests)
        assert asked.requests[0].get("content-length") is None
        assert not web.connections
        go.set()
        assert (await one.answer()).status == 200
        assert web.requests[0].body == body


async def test_who_is_refused_is_not_told_to_send_a_body(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[1], said(403)),
        running(vip, guarded(pods[0], at(pods[1]))) as here,
        client(here.http) as one,
    ):
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert (await one.answer()).status == 403
        assert await one.at_end()


@pytest.mark.parametrize("status", [200, 403])
async def test_an_upgrade_needs_a_decision_too(vip: str, pods: list[Address], status: int) -> None:
    async with (
        Endpoint(pods[0], SWITCHED) as web,
        Endpoint(pods[1], said(status)) as asked,
        running(vip, guarded(pods[0], at(pods[1]))) as here,
        client(here.http) as one,
    ):
        one.send(b"GET / HTTP/1.1\r\n" + HEAD + WEBSOCKET)
        assert (await one.answer()).status == (101 if status == 200 else 403)
        assert asked.requests[0].get("upgrade") is None
        assert bool(web.requests) == (status == 200)


async def test_a_client_that_leaves_takes_its_question_back(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1], serve=silent) as asked, running(vip, guarded(pods[0], at(pods[1]))) as here:
        async with client(here.http) as one:
            one.send(GET)
            await eventually(lambda: asked.open)
        await eventually(lambda: not asked.open)


async def test_answers_are_kept_by_what_they_are_told_apart_by(vip: str, pods: list[Address]) -> None:
    def answer(question: Message) -> bytes:
        who = question.get("authorization")
        return said(200, f"X-User: {who}") if who else said(401)

    url, kept = at(pods[1]), {"auth_cache_key": "$http_authorization", "auth_response_headers": "X-User"}
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], serve=deciding(answer)) as asked,
        running(vip, guarded(pods[0], url, **kept)) as here,
        client(here.http) as one,
    ):
        for _ in range(3):
            assert (await one.get(fields="Authorization: ada\r\n")).status == 200
            assert (await one.get(fields="Authorization: bob\r\n")).status == 200
            assert (await one.get()).status == 401
        assert [request.get("x-user") for request in web.requests] == ["ada", "bob"] * 3
        assert len(asked.requests) == 3
        await here.install(guarded(pods[0], url, generation=2, **kept))
        assert (await one.get()).status == 401
        assert len(asked.requests) == 3
        await here.install(guarded(pods[0], url, generation=3, auth_cache_duration="403 1m", **kept))
        for _ in range(2):
            assert (await one.get()).status == 401
        assert len(asked.requests) == 5


def test_a_kept_answer_ends_with_its_time_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subrequest, "KEPT", 2)
    now, here = [0.0], Origin("default", "web", 0, 0)
    decisions, yes = Decisions(lambda: now[0]), Decision(200, ())
    for name in "abc":
        decisions.keep((here, name), yes, 10)
    assert [bool(decisions.get((here, name))) for name in "abc"] == [False, True, True]
    assert decisions.get((Origin("default", "web", 0, 1), "b")) is None
    now[0] = 10.0
    assert decisions.get((here, "b")) is None


@pytest.mark.parametrize(
    ("durations", "status", "field", "kept_s"),
    [
        ("200 202 401 5m", 200, "X: y", 300),
        ("200 202 401 5m", 403, "X: y", 0),
        ("200 1h 30m, 401 30s", 200, "X: y", 5400),
        ("200 1h 30m, 401 30s", 401, "X: y", 30),
        ("any 10s", 500, "X: y", 10),
        ("10s", 200, "X: y", 10),
        ("10s", 401, "X: y", 0),
        ("200 5m", 200, "Set-Cookie: a=b", 0),
        ("200 5m", 200, "Cache-Control: private", 0),
        ("200 5m", 200, "cache-control: No-Store", 0),
        ("200 5m", 200, "Cache-Control: public, max-age=7", 7),
        ("200 5m", 200, "Cache-Control: max-age=0", 0),
        ("200 5m", 200, "Vary: Cookie", 0),
    ],
)
def test_how_long_an_answer_is_kept(durations: str, status: int, field: str, kept_s: float) -> None:
    told, unfit = nginx.read(named(auth_url="http://a", auth_cache_key="$remote_user", auth_cache_duration=durations))
    assert not unfit
    auth = ExternalAuth(Policies(auth_cache_key="$remote_user", auth_cache=told["auth-cache-duration"]))
    assert auth.kept_s(status, [field.encode()]) == kept_s


@pytest.mark.parametrize(
    "said",
    [
        {"auth_url": "auth.example/check"},
        {"auth_url": "ftp://auth.example"},
        {"auth_url": "http://$http_host/"},
        {"auth_url": "http://auth$host_name/"},
        {"auth_url": "http://user@auth.example/"},
        {"auth_url": "http://auth.example/$nonsense"},
        {"auth_url": "http://auth.example/$uri"},
        {"auth_url": "http://auth.example/a b"},
        {"auth_method": "CONNECT"},
        {"auth_response_headers": "X-User, X-Forwarded-For"},
        {"auth_response_headers": "Content-Length"},
        {"auth_response_headers": "X:User"},
        {"auth_signin": "javascript:alert(1)"},
        {"auth_cache_key": "all"},
        {"auth_cache_key": "$remote_user", "auth_cache_duration": "5 minutes"},
    ],
)
def test_what_cannot_be_honoured_is_refused_and_in_a_dump_lets_nobody_in(said: dict[str, str]) -> None:
    annotations = named(**{"auth_url": "http://auth.example", **said})
    _, unfit = nginx.read(annotations)
    assert len(unfit) == 1
    web = ingress("web", rule("example.com", prefix("/", "web")), annotations=annotations)
    snapshot = snapshot_of(service("web"), *slices("web", [("127.244.1.2", 8080)]), web)
    assert explain(snapshot, "http://example.com/").status == 503


def test_explain_and_check_say_who_decides_and_ask_nobody() -> None:
    url = "http://auth.default.svc/$host?x=$request_uri"
    auth = service("auth"), *slices("auth", [("127.244.1.3", 8080)])
    found = explain(guarded(("127.244.1.2", 8080), url, *auth), "http://example.com/y")
    assert found.status == 200
    assert found.decided_by == "http://auth.default.svc/example.com?x=/y"
    assert "if        http://auth.default.svc/example.com?x=/y lets it in\n" in found.render()
    assert "is not asked here" in found.reasons[0]


async def test_what_was_let_in_counts_for_its_route_and_host_also_after_an_install(
    vip: str, pods: list[Address]
) -> None:
    def routes(host: str, *paths: str, generation: int) -> Snapshot:
        said = named(auth_url=at(pods[1]), auth_cache_key="$http_authorization", auth_cache_duration="200 5m")
        made = ingress("web", rule(host, *(prefix(path, "web") for path in paths)), annotations=said)
        return snapshot_of(service("web"), *slices("web", pods[:1]), made, generation=generation)

    def decide(request: Message) -> bytes:
        return YES if request.get("x-original-url") == "http://example.com/" else said(403)

    async def status(host: str, path: str) -> int:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer x\r\n\r\n"
        return (await ask(here.http, head.encode())).status

    first = routes("example.com", "/", generation=1)
    async with (
        Endpoint(pods[0]),
        Endpoint(pods[1], serve=deciding(decide)) as asked,
        running(vip, first) as here,
    ):
        assert [await status("example.com", "/") for _ in range(2)] == [200, 200]
        assert len(asked.requests) == 1
        await here.install(routes("example.com", "/admin", "/", generation=2))  # which is the first rule now
        assert await status("example.com", "/admin") == 403
        assert await status("example.com", "/") == 200
        await here.install(routes("other.com", "/", generation=3))
        assert await status("other.com", "/") == 403


async def test_what_comes_behind_a_request_while_somebody_is_asked_does_not_break_it(
    vip: str, pods: list[Address], caplog: pytest.LogCaptureFixture
) -> None:
    behind = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        await behind.wait()
        writer.write(YES)

    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], serve=serve) as asked,
        running(vip, guarded(pods[0], at(pods[1]))) as here,
        client(here.http) as one,
    ):
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\nhello")
        await eventually(lambda: asked.requests)
        one.send(b"\x00garbage\r\n\r\n")
        await asyncio.sleep(0.05)
        behind.set()
        assert (await one.answer()).status == 200
        assert [request.body for request in web.requests] == [b"hello"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
