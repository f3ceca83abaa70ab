"""What must not break an ingress: ceaseless change, killed pods, nodes and ingresses, crowds of idle or slow clients.

After each test there are no more sockets and tasks than before (``conftest``), nor threads and listeners.
"""

import asyncio
import contextlib
import functools
import itertools
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
import trustme

from plane.addresses import AddressPlan
from plane.descriptors import allow_descriptors
from plane.ingress import gateway, terminator
from plane.ingress.records import FAST, SLOW
from plane.ingress.timeouts import Timeouts
from plane.model import Object, Snapshot
from tests.ingress.manifests import exact, ingress, prefix, rule, secret, service, slices, snapshot_of, web
from tests.ingress.wire import (
    PATIENCE_S,
    Address,
    Client,
    Endpoint,
    client,
    eventually,
    goes_by_gateway,
    read_body,
    read_head,
    running,
    saying,
)
from tests.loopback import dial, listening, reset
from tests.loopback import eventually as soon
from tests.processes import Process

HOST = "example.com"
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
SOAK = functools.partial(pytest.param, marks=pytest.mark.soak)


@pytest.fixture(autouse=True)
async def no_thread_or_listener_is_left(plan: AddressPlan, nothing_is_left: None) -> AsyncIterator[None]:
    def held() -> tuple[list[str], list[str]]:
        return [thread.name for thread in threading.enumerate()], listening(plan)

    before = held()
    yield
    await eventually(lambda: held() == before)


# Change.


class Tunnel:
    """A WebSocket's bytes both ways, through one connection."""

    def __init__(self, one: Client):
        self._one = one

    async def open(self) -> None:
        fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
        assert (await self._one.get("/chat", fields=fields)).status == 101

    async def says(self, word: bytes) -> bool:
        self._one.send(word)
        async with asyncio.timeout(PATIENCE_S):
            return await self._one.reader.readexactly(len(word)) == word


class Events:
    """Server-sent events: the endpoint sends one whenever ``go`` is called."""

    def __init__(self, one: Client):
        self._one = one

    async def open(self) -> None:
        self._one.send(b"GET /events HTTP/1.1\r\nHost: example.com\r\nAccept: text/event-stream\r\n\r\n")
        head = await read_head(self._one.reader)
        assert (head.status, head.get("content-type")) == (200, "text/event-stream")

    async def hears(self, word: bytes) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            return (await self._one.reader.readuntil(b"\n\n\r\n")).endswith(b"data: " + word + b"\n\n\r\n")


class Streams:
    """An endpoint of plain answers, of tunnels that echo, and of events."""

    def __init__(self) -> None:
        self._hearing: set[asyncio.StreamWriter] = set()

    async def serve(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_head(reader)
            request.body = await read_body(reader, request)
            if "/chat" in request.start:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                while piece := await reader.read(1 << 16):
                    writer.write(piece)
                return
            if "/events" in request.start:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                self._hearing.add(writer)
                await reader.read()
                return
            writer.write(endpoint.answer)

    def send(self, word: bytes) -> None:
        for writer in self._hearing:
            writer.write(b"data: " + word + b"\n\n")


def sites(pods: list[Address], certificates: list[Object], number: int) -> Snapshot:
    """The ``number``-th of many Snapshots: endpoints come and go, and so do rules, annotations and certificates."""
    more = [exact(f"/x{number % 7}", "web"), prefix(f"/{number % 5}/", "web")][: number % 3]
    annotations = {"nginx.ingress.kubernetes.io/enable-cors": "true"} if number % 2 else {}
    served = ingress(
        "web",
        rule(HOST, prefix("/", "web"), *more),
        tls=[{"hosts": [HOST], "secretName": "cert"}],
        annotations=annotations | {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
    )
    others = [ingress(f"other-{number % 11}", rule(f"{number % 13}.com", prefix("/", "web")), default="web")]
    used = [pods[0], *(pods[1:] if number % 4 < 2 else pods[2:])]
    return snapshot_of(
        service("web"),
        *slices("web", used),
        served,
        *others[: number % 2],
        certificates[number % len(certificates)],
        generation=number,
    )


@pytest.mark.parametrize("changes", [300, SOAK(20_000)])
async def test_changes_under_load_fail_no_request_and_close_no_websocket_and_no_stream_of_events(
    vip: str, pods: list[Address], changes: int
) -> None:
    authority = trustme.CA()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    certificates = [issued(authority) for _ in range(3)]
    streams, answers, done = Streams(), Counter[int](), asyncio.Event()

    async def asking(address: Address, **options: object) -> None:
        async with client(address, **options) as one:  # type: ignore[arg-type]
            while not done.is_set():
                method, fields = ("POST", "Content-Length: 0\r\n") if answers.total() % 3 else ("GET", "")
                answers[(await one.get(method=method, fields=fields)).status] += 1

    async def shaking_hands(address: Address) -> None:
        while not done.is_set():
            async with client(address, trusting, HOST) as one:
                answers[(await one.get()).status] += 1

    async with contextlib.AsyncExitStack() as stack:
        for pod in pods[:3]:
            await stack.enter_async_context(Endpoint(pod, serve=streams.serve))
        here = await stack.enter_async_context(running(vip, sites(pods[:3], certificates, 1)))
        ways = [(here.http, None, None), (here.https, trusting, HOST)]
        tunnels = [Tunnel(await stack.enter_async_context(client(*way))) for way in ways]
        events = [Events(await stack.enter_async_context(client(*way))) for way in ways]
        for each in (*tunnels, *events):
            await each.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(asking(here.http))
            group.create_task(asking(here.https, tls=trusting, name=HOST))
            group.create_task(shaking_hands(here.https))
            for number in range(2, changes + 2):
                seen = answers.total()
                await here.install(sites(pods[:3], certificates, number))
                while answers.total() == seen:  # a client's turn
                    await asyncio.sleep(0)
                if number % 50 == 0:
                    streams.send(b"%d" % number)
                    assert all([await each.says(b"%d" % number) for each in tunnels])
                    assert all([await each.hears(b"%d" % number) for each in events])
            done.set()
        assert here.ingress.generation == changes + 1
        assert answers.keys() == {200}
        assert answers.total() >= changes


def issued(authority: trustme.CA) -> Object:
    certificate = authority.issue_cert(HOST)
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    return secret("cert", chain, certificate.private_key_pem.bytes())


# Death.

POD = """
import asyncio, sys
async def serve(reader, writer):
    while head := await reader.readuntil(b"\\r\\n\\r\\n"):
        await asyncio.sleep(0.002)
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(name), name))
async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]), reuse_address=True)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
name = sys.argv[1].encode()
asyncio.run(main())
"""


class Pods:
    """Pods in processes of their own, which can be killed as a node's are: all at once."""

    def __init__(self) -> None:
        self._processes: dict[Address, asyncio.subprocess.Process] = {}

    async def start(self, *addresses: Address) -> None:
        for ip, port in addresses:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", POD, ip, str(port)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert process.stdout
            assert await process.stdout.readline() == b"ready\n"
            self._processes[ip, port] = process

    async def kill(self, *addresses: Address) -> None:
        dead = [self._processes.pop(address) for address in addresses]
        for process in dead:
            process.kill()
        for process in dead:
            await process.communicate()

    async def __aenter__(self) -> "Pods":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill(*self._processes)


class Asking:
    """Clients that ask over and over, each on its own connection; a new one where that breaks.

    answers  how often which body, or status where it is not 200
    broken   how often a request got no answer at all
    """

    def __init__(self, address: Address, clients: int, method: str = "GET"):
        self.answers: Counter[str] = Counter()
        self.broken = 0
        self._address = address
        self._clients = clients
        self._method = method
        self._renewed = 0
        self._done = asyncio.Event()

    async def more(self, answers: int = 40) -> None:
        """Returns once there are so many more answers."""
        seen = self.answers.total()
        await eventually(lambda: self.answers.total() >= seen + answers)

    def begin(self) -> None:
        """Count anew."""
        self.answers.clear()
        self.broken = 0

    def renew(self) -> None:
        """Have each client take a new connection."""
        self._renewed += 1

    async def _ask(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(OSError):
                async with client(self._address) as one:
                    await self._ask_on(one)

    async def _ask_on(self, one: Client) -> None:
        renewed = self._renewed
        while not self._done.is_set() and renewed == self._renewed:
            try:
                answer = await one.get(method=self._method, fields="Content-Length: 0\r\n")
            except (OSError, asyncio.IncompleteReadError):
                self.broken += 1
                return
            self.answers[answer.body.decode() if answer.status == 200 else str(answer.status)] += 1

    async def __aenter__(self) -> "Asking":
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._done.set()
        await asyncio.gather(*self._tasks)


async def test_a_killed_pod_and_a_killed_node_fail_only_what_they_had_in_flight(vip: str, pods: list[Address]) -> None:
    clients = 8
    names = [ip for ip, _ in pods[:3]]
    async with contextlib.AsyncExitStack() as stack:
        processes = await stack.enter_async_context(Pods())
        await processes.start(*pods[:3])  # before anybody asks: who has failed is left out for a while
        here = await stack.enter_async_context(running(vip, web(*pods[:3]), timeouts=Timeouts(out_s=1)))
        reading = await stack.enter_async_context(Asking(here.http, clients))
        writing = await stack.enter_async_context(Asking(here.http, clients, "POST"))
        for dying in (pods[:1], pods[1:3]):
            for each in (reading, writing):
                each.renew()  # whom an endpoint has failed the gateway has handed over, for good
            await asyncio.gather(reading.more(), writing.more())
            await eventually(lambda: here.ingress._gateway is None or here.ingress._gateway.clients > clients)
            for each in (reading, writing):
                each.begin()
            await processes.kill(*dying)
            await asyncio.gather(reading.more(), writing.more())
            left = {ip for ip, _ in pods[:3] if (ip, 8080) not in dying}
            dead = set(names) - left
            assert reading.answers.keys() - dead == left, "what may be asked again is"
            assert writing.answers.keys() - dead <= {*left, "502"}
            # Each client had one in flight at each, or sends one more before the ingress has heard of it.
            assert writing.answers["502"] <= 2 * clients * len(dying)
            assert reading.broken + writing.broken <= 2 * clients, "all of them under way"
            await processes.start(*dying)
            for each in (reading, writing):
                each.begin()
            await eventually(lambda: reading.answers.keys() & writing.answers.keys() >= set(names))
            assert not {"502", "503", "504"} & (reading.answers.keys() | writing.answers.keys())


@pytest.mark.one_loop
async def test_a_killed_ingress_fails_only_what_it_had_in_flight_and_another_takes_its_place(
    vip: str, pods: list[Address]
) -> None:
    """By compiled code they have two threads each, and both lose what they had."""
    clients, threads, way = (40, 2, FAST) if goes_by_gateway() else (40, 0, SLOW)
    async with Endpoint(pods[0]), contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(running(vip, web(pods[0])))

        def another() -> Process:
            process = stack.enter_context(Process("ingress", vip, here.http[1], threads))
            assert process.ask("install", 1, pods[:1]) == here.http[1]
            return process

        def at_work(process: Process) -> bool:
            """Whether it has clients, each of its threads some, and has answered."""
            by_asyncio, *compiled = process.ask("clients")
            return all(compiled or [by_asyncio]) and process.ask("answered")[way] > 0

        first = another()
        load = await stack.enter_async_context(Asking(here.http, clients))
        await load.more()
        await eventually(lambda: at_work(first))
        load.begin()
        first.kill()
        await load.more()
        assert load.answers.keys() == {"hello"}
        assert load.broken <= 2 * clients, "one in flight there each, and one under way"
        second = another()
        load.begin()
        for _ in range(60):
            async with client(here.http) as one:
                assert (await one.get()).status == 200
        answered = second.ask("answered")
        assert answered[way] == sum(answered) > 0
        assert second.ask("stop") == []


# Crowds.


def needs_descriptors(count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"a process may have {hard} open files here (ulimit -Hn), {count} are needed")
    allow_descriptors(count)


@pytest.mark.parametrize(("threads", "count"), [(1, 500), SOAK(1, 10_000), SOAK(0, 10_000)])
def test_idle_clients_stay_served_and_so_do_new_ones(vip: str, pods: list[Address], threads: int, count: int) -> None:
    """By compiled code, a thread of which has room for all of them, or by asyncio."""
    needs_descriptors(count + 1_000)
    if threads:  # so that the process that has them need not compile anything
        gateway.warm()
        terminator.warm()
    sources = [f"127.1.0.{number}" for number in range(1, 5)]
    with contextlib.ExitStack() as stack:
        pod = stack.enter_context(Process("http", *pods[0]))
        assert pod
        process = stack.enter_context(Process("ingress", vip, 0, threads))
        port = process.ask("install", 1, pods[:1])
        with contextlib.ExitStack() as crowd:
            kept = [crowd.enter_context(dial((vip, port), sources[n % len(sources)])) for n in range(count)]
            assert all(served(connection) for connection in kept)
            assert process.ask("clients") == ([0, count] if threads else [count])
            for one in kept[::20]:
                assert served(one)
                with dial((vip, port)) as new:
                    assert served(new)
        soon(lambda: not any(process.ask("clients")))
        assert process.ask("answered")[SLOW if threads else FAST] == 0
        assert process.ask("stop") == []


def served(connection: socket.socket) -> bool:
    connection.sendall(GET)
    said = b""
    while not said.endswith(b"\r\n\r\nwell"):
        piece = connection.recv(4096)
        assert piece, said
        said += piece
    return said.startswith(b"HTTP/1.1 200 ")


POST = b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 12\r\n\r\na slow  body"
CHUNKED = b"PUT / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n6\r\na slow\r\n0\r\n\r\n"
PAGE = bytes(64 * 1024)


@pytest.mark.parametrize("count", [200, SOAK(1_000)])
async def test_slow_clients_get_their_answers_and_hold_nobody_up(vip: str, pods: list[Address], count: int) -> None:
    """A byte at a time in, heads and bodies, but for some of them, and a small piece at a time out."""
    needs_descriptors(5 * count)
    slow, at_once = Counter[str](), [GET]

    async def trickling(address: Address, pieces: list[bytes]) -> None:
        async with client(address) as one:
            for piece in pieces:
                one.send(piece)
                await asyncio.sleep(0.001)
            head = await read_head(one.reader)
            left = int(head.get("content-length") or 0)
            while left:
                left -= len(await one.reader.readexactly(min(left, 2048)))
                await asyncio.sleep(0.001)
            slow[head.start] += 1

    async with Endpoint(pods[0], saying(PAGE)) as endpoint, running(vip, web(pods[0]), recording=True) as here:
        kinds = at_once, *([bytes([byte]) for byte in request] for request in (GET, POST, CHUNKED))
        async with asyncio.TaskGroup() as crowd:
            for request in itertools.islice(itertools.cycle(kinds), count):
                crowd.create_task(trickling(here.http, request))
            async with client(here.http) as quick:
                for _ in range(20):
                    assert (await quick.get()).body == PAGE
                    assert slow.total() < count
        assert slow == {"HTTP/1.1 200 OK": count}
        bodies = Counter(request.body for request in endpoint.requests)
        assert bodies[b"a slow  body"] == len(range(2, count, 4))
        assert bodies[b"a slow"] == len(range(3, count, 4))
        if here.ingress._gateway is not None:
            assert here.ingress._gateway.punts().keys() <= {"a request that does not come at once"}
            by_compiled_code = int(((await here.ingress.records())["path"] == FAST).sum())
            assert by_compiled_code >= 20 + len(range(0, count, 4))


LEAVING = {
    "within a head": b"GET / HTTP/1.1\r\nHost: exam",
    "within a body": b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000),
    "within a chunk": b"PUT / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"
    + bytes(5_000),
    "within an answer": b"GET /large HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "within events": b"GET /events HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "within a WebSocket": GET[:-2].replace(b"/", b"/chat", 1)
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    "behind a request": GET + GET + b"GET /",
}


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["by RST", "by FIN"])
@pytest.mark.parametrize("sent", LEAVING.values(), ids=LEAVING.keys())
async def test_clients_that_leave_anywhere_leave_nothing_behind(
    vip: str, pods: list[Address], sent: bytes, leave: Callable[[socket.socket], None]
) -> None:
    streams = Streams()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/large" in sent:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(4_000_000))
            await reader.read()
        else:
            await streams.serve(endpoint, reader, writer)

    async with Endpoint(pods[0], serve=serve) as endpoint, running(vip, web(pods[0])) as here:
        gone = [socket.create_connection(here.http) for _ in range(20)]
        for number, each in enumerate(gone):
            each.sendall(sent)
            if number % 2:  # these are there until something has come of it, if it does
                each.setblocking(False)
                with contextlib.suppress(TimeoutError, BlockingIOError):
                    await asyncio.wait_for(asyncio.get_running_loop().sock_recv(each, 1000), 0.02)
            leave(each)
        compiled = here.ingress._gateway
        await eventually(lambda: not here.ingress._front.connections and not (compiled and compiled.clients))
        await eventually(lambda: endpoint.open == here.ingress.idle_connections)
        await eventually(lambda: not here.ingress._at_work and not (compiled and compiled.at_work))
