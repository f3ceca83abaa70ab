"""Many Services on one port: one listener for them all, and what it does to those who are no Service."""

import asyncio
import contextlib
import itertools
import select
import selectors
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from kernels.layout import REJECT, SHARED_SEGMENT_BYTES, TCP, UDP, Fib, freeze
from kernels.lb.frontends import build_index
from plane import listeners
from plane.addresses import AddressPlan, ip_to_int, unprivileged_port_start
from plane.ingress.connection import UnansweredError
from plane.ingress.timeouts import Timeouts
from plane.ingress.upstream import Pool
from plane.listeners import Frontend
from plane.pods.probes import ProbeError, Prober
from plane.proxy import Proxy
from plane.sharing import SHARE_FROM, SHARE_UNTIL, bind_alone, ensure_accepted, refuser
from tests.loopback import PATIENCE_S, Address, Pod, ask, dial, echo, eventually, make_fib, open_descriptors, saying
from tests.plane.proxied import assert_reset_at_once, refuses

pytestmark = pytest.mark.syscalls

MANY = 3 * SHARE_FROM
KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
SHARES_UDP = refuser() is not None
needs_refuser = pytest.mark.skipif(not SHARES_UDP, reason="needs CAP_NET_RAW: without it no UDP port is shared")
both_protocols = pytest.mark.parametrize("proto", [TCP, pytest.param(UDP, marks=needs_refuser)], ids=["tcp", "udp"])

_ports = itertools.count(7100)


@pytest.fixture
def port() -> int:
    """A port that no other test uses."""
    return next(_ports)


@contextlib.contextmanager
def running(plan: AddressPlan, node: int = 1) -> Iterator[Proxy]:
    proxy = Proxy(plan, node, connections=512)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop(0)


@pytest.fixture
def proxy(plan: AddressPlan) -> Iterator[Proxy]:
    with running(plan) as proxy:
        yield proxy


def vips(plan: AddressPlan, port: int, count: int = MANY) -> list[Address]:
    return [(str(plan.cluster_ips[2048 + number]), port) for number in range(count)]


def pod_address(plan: AddressPlan, number: int, port: int) -> Address:
    return str(plan.pods_of(1 + number // 200)[2 + number % 200]), port


def stray(plan: AddressPlan, port: int) -> Address:
    """An address of the range for Services that is none."""
    return str(plan.cluster_ips[9000]), port


def own_pods(plan: AddressPlan, services: Sequence[Address], port: int) -> dict[Address, list[Address]]:
    """Each Service over a pod of its own, all on one port."""
    return {vip: [pod_address(plan, number, port)] for number, vip in enumerate(services)}


def over(services: Iterable[Address], *pods: Address) -> dict[Address, list[Address]]:
    """All Services over the same pods."""
    return {vip: list(pods) for vip in services}


def shared_ports(proxy: Proxy) -> set[tuple[int, int]]:
    return {(each.port, each.proto) for each in proxy._listeners if each.ip == 0}


class Crowd:
    """Many pods on one thread, each of which answers by its own address whatever it is sent."""

    def __init__(self, pods: Sequence[Address], proto: int = TCP):
        self._selector = selectors.DefaultSelector()
        self._stopping, self._told = socket.socketpair()
        self._selector.register(self._told, selectors.EVENT_READ)
        for pod in pods:
            listener = socket.socket(socket.AF_INET, KINDS[proto] | socket.SOCK_NONBLOCK)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(proto == TCP))
            bind_alone(listener, *pod)
            if proto == TCP:
                listener.listen(64)
            self._selector.register(listener, selectors.EVENT_READ, listener if proto == TCP else None)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._told:
                    return
                assert isinstance(key.fileobj, socket.socket)
                self._turn(key.fileobj, listens=key.data is key.fileobj)

    def _turn(self, ready: socket.socket, listens: bool) -> None:
        if listens:
            connection, _ = ready.accept()
            self._selector.register(connection, selectors.EVENT_READ)
        elif ready.type == socket.SOCK_DGRAM:
            _, client = ready.recvfrom(64)
            ready.sendto(ready.getsockname()[0].encode(), client)
        elif ready.recv(64):
            ready.sendall(ready.getsockname()[0].encode())
        else:
            self._selector.unregister(ready)
            ready.close()

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


def query(address: Address, proto: int, source: str = "") -> str:
    """What the pod says that a Service leads to; the answer is heard from the Service's own address only."""
    with socket.socket(socket.AF_INET, KINDS[proto]) as client:
        client.settimeout(PATIENCE_S)
        if source:
            client.bind((source, 0))
        client.connect(address)
        client.send(b"?")
        return client.recv(64).decode()


@both_protocols
def test_many_services_cost_one_listener_and_each_is_answered_by_its_own_pod(
    proxy: Proxy, plan: AddressPlan, port: int, proto: int
) -> None:
    wanted = own_pods(plan, vips(plan, port), port)
    with Crowd([pod for [pod] in wanted.values()], proto):
        before = len(open_descriptors())
        assert proxy.install(make_fib(1, wanted, proto=proto)).problems == ()
        assert len(open_descriptors()) - before == 2  # the listener, and the claim of its port
        assert shared_ports(proxy) == {(port, proto)}
        assert {vip: query(vip, proto) for vip in wanted} == {vip: pod for vip, [(pod, _)] in wanted.items()}
        assert set(proxy.recorded()["frontend_ip"]) == {ip_to_int(ip) for ip, _ in wanted}


def test_names_of_strangers_may_be_any_bytes(proxy: Proxy, plan: AddressPlan, port: int) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(b"\0\xff\xfe\n trafficplane-shares-\xff")
        proxy.install(make_fib(1, own_pods(plan, vips(plan, port), port)))
        assert shared_ports(proxy) == {(port, TCP)}


@both_protocols
def test_few_services_have_a_listener_each(proxy: Proxy, plan: AddressPlan, port: int, proto: int) -> None:
    wanted = own_pods(plan, vips(plan, port, SHARE_FROM - 1), port)
    proxy.install(make_fib(1, wanted, proto=proto))
    assert len(proxy._listeners) == SHARE_FROM - 1
    with socket.socket(socket.AF_INET, KINDS[proto]) as stranger:  # whom nothing stands in the way
        stranger.bind(("127.0.0.1", port))


def test_address_that_is_no_frontend_is_reset_at_once_and_counted(proxy: Proxy, plan: AddressPlan, port: int) -> None:
    proxy.install(make_fib(1, own_pods(plan, vips(plan, port), port)))
    for address in (stray(plan, port), ("127.0.0.1", port), (plan.node(1), port)):
        assert_reset_at_once(address)
    assert proxy.outcomes()["NO_FRONTEND"] == 3
    assert len(proxy.recorded()["outcome"]) == 0
    assert refuses((stray(plan, port)[0], port + 1000))


def test_frontend_without_endpoint_is_reset_at_once_and_recorded(proxy: Proxy, plan: AddressPlan, port: int) -> None:
    empty, *others = vips(plan, port)
    proxy.install(make_fib(1, {empty: [], **own_pods(plan, others, port)}))
    assert_reset_at_once(empty)
    assert proxy.recorded()["outcome"].tolist() == [REJECT]


@needs_refuser
def test_datagram_to_nobody_is_refused_at_once(proxy: Proxy, plan: AddressPlan, port: int) -> None:
    empty, *others = vips(plan, port)
    proxy.install(make_fib(1, {empty: [], **own_pods(plan, others, port)}, proto=UDP))
    for address in (empty, stray(plan, port), ("127.0.0.1", port)):
        with pytest.raises(ConnectionRefusedError):
            query(address, UDP, source=str(plan.pods_of(2)[7]))
    assert proxy.outcomes()["NO_FRONTEND"] == 2
    assert proxy.datagrams()["NO_BACKEND"] == 3
    assert proxy.live_flows() == 0


def test_pod_that_comes_later_has_its_port_and_nobody_else_the_same(proxy: Proxy, plan: AddressPlan, port: int) -> None:
    proxy.install(make_fib(1, own_pods(plan, vips(plan, port), port)))
    address = pod_address(plan, 0, port)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as pod, socket.socket(socket.AF_INET, kind) as twin:
            bind_alone(pod, *address)
            if kind == socket.SOCK_STREAM:
                pod.listen()
            with pytest.raises(OSError, match="Address already in use"):
                bind_alone(twin, *address)
    with Crowd([address]):
        assert query(address, TCP) == query(vips(plan, port)[0], TCP) == address[0]


def test_connection_to_a_pod_that_is_dead_is_offered_to_another(proxy: Proxy, plan: AddressPlan, port: int) -> None:
    """Where the machine would refuse it, the shared listener takes it: the relay knows that from a pod."""
    dead, alive, *_ = (pod_address(plan, number, port) for number in range(3))
    with Crowd([alive]):
        proxy.install(make_fib(1, over(vips(plan, port), dead, alive)))
        assert {query(vip, TCP) for vip in vips(plan, port, 20) for _ in range(2)} == {alive[0]}
    assert proxy.ends()["REFUSED"] == 0


@needs_refuser
def test_datagram_to_a_pod_that_is_dead_has_its_flow_picked_again(proxy: Proxy, plan: AddressPlan, port: int) -> None:
    dead, alive, *_ = (pod_address(plan, number, port) for number in range(3))
    vip, *_ = vips(plan, port)
    with Crowd([alive], UDP), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        proxy.install(make_fib(1, over(vips(plan, port), dead, alive), proto=UDP))
        client.settimeout(0.1)
        client.connect(vip)

        def is_answered() -> bool:
            client.send(b"?")
            with contextlib.suppress(TimeoutError):
                return client.recv(64) == alive[0].encode()
            return False

        eventually(is_answered)


async def test_ingress_and_probes_are_refused_by_a_pod_that_is_dead(proxy: Proxy, plan: AddressPlan, port: int) -> None:
    dead, alive, *_ = (pod_address(plan, number, port) for number in range(3))
    vip, *_ = vips(plan, port)
    with Crowd([alive]):
        proxy.install(make_fib(1, over(vips(plan, port), alive)))
        pool, prober = Pool(Timeouts()), Prober(plan.node(1))
        await pool.connection(pool.endpoint(alive))
        await pool.connection(pool.endpoint(vip))
        with pytest.raises(UnansweredError) as failure:
            await pool.connection(pool.endpoint(dead))
        assert failure.value.unsent
        await prober._tcp_socket(*alive)
        with pytest.raises(ProbeError, match=r"dial tcp .*: connection re(fused|set by peer)"):
            await prober._tcp_socket(*dead)
        pool.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("shared", [False, True], ids=["pod", "shared"])
async def test_connection_whose_reset_is_here_already_has_met_a_pod_or_a_shared_listener(shared: bool) -> None:
    """Whom a pod accepts and leaves at once has reached it, as the kubelet sees it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if shared:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SHARED_SEGMENT_BYTES)
        listener.listen()
        _, writer = await asyncio.open_connection(*listener.getsockname())
        writer.transport.pause_reading()
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        hung_up = select.poll()
        hung_up.register(writer.get_extra_info("socket"), 0)
        accepted.close()
        assert hung_up.poll(1000 * PATIENCE_S)
        with pytest.raises(ConnectionResetError) if shared else contextlib.nullcontext():
            ensure_accepted(writer.transport)
        assert writer.transport.is_closing() == shared
        writer.transport.abort()


async def test_connection_that_the_loop_has_closed_already_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, writer = await asyncio.open_connection(*listener.getsockname())
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ConnectionResetError):
            ensure_accepted(writer.transport)


@both_protocols
def test_stranger_on_the_port_keeps_it_and_the_services_have_listeners_of_their_own(
    proxy: Proxy, plan: AddressPlan, port: int, proto: int
) -> None:
    wanted = own_pods(plan, vips(plan, port), port)
    vip, [(pod, _)] = next(iter(wanted.items()))
    with Crowd([pod for [pod] in wanted.values()], proto):
        with socket.socket(socket.AF_INET, KINDS[proto]) as stranger:
            stranger.bind(("127.0.0.1", port))
            if proto == TCP:
                stranger.listen()
            assert proxy.install(make_fib(1, wanted, proto=proto)).problems == ()
            assert len(proxy._listeners) == MANY
            assert query(vip, proto) == pod
            with socket.socket(socket.AF_INET, KINDS[proto]) as client:
                client.connect(stranger.getsockname())
        proxy.install(make_fib(2, wanted, proto=proto))
        assert len(proxy._listeners) == 1
        assert query(vip, proto) == pod


@both_protocols
def test_stranger_who_comes_later_can_have_the_port_beside_a_shared_listener(
    proxy: Proxy, plan: AddressPlan, port: int, proto: int
) -> None:
    proxy.install(make_fib(1, own_pods(plan, vips(plan, port), port), proto=proto))
    with socket.socket(socket.AF_INET, KINDS[proto]) as stranger, pytest.raises(OSError, match="already in use"):
        stranger.bind(("127.0.0.1", port))
    address = "127.0.0.1", port
    with Crowd([address], proto):  # by SO_REUSEPORT
        assert query(address, proto) == "127.0.0.1"


def test_two_planes_do_not_get_each_others_connections(plan: AddressPlan, port: int) -> None:
    other_plan = AddressPlan((plan.instance + 1) % 6, plan.port_offset)
    wanted, others = (own_pods(each, vips(each, port), port) for each in (plan, other_plan))
    pods = [pod for pods in (*wanted.values(), *others.values()) for pod in pods]
    answers = {vip: pod for vip, [(pod, _)] in (wanted | others).items()}
    with Crowd(pods), running(other_plan) as other:
        with running(plan) as first, running(plan, 2) as second:
            for proxy in (first, second):
                proxy.install(make_fib(1, wanted))
            assert other.install(make_fib(1, others)).problems == ()
            assert [len(each._listeners) for each in (first, second, other)] == [1, 1, MANY]
            assert {vip: query(vip, TCP) for vip in answers} == answers
            first.stop(0)
            other.install(make_fib(2, others))
            assert len(other._listeners) == MANY, "the second node of the first plane shares the port still"
            assert {vip: query(vip, TCP) for vip in answers} == answers
        other.install(make_fib(3, others))
        assert len(other._listeners) == 1
        assert {vip: query(vip, TCP) for vip in others} == {vip: answers[vip] for vip in others}


def test_nodes_share_a_port_and_one_that_stops_takes_nothing_with_it(plan: AddressPlan, port: int) -> None:
    wanted = own_pods(plan, vips(plan, port), port)
    with Crowd([pod for [pod] in wanted.values()]), running(plan) as one, running(plan, 2) as two:
        for proxy in (one, two):
            proxy.install(make_fib(1, wanted))
        for vip in wanted:
            query(vip, TCP)
        assert one.outcomes()["NEW"] > 0
        assert two.outcomes()["NEW"] > 0
        one.stop(0)
        assert {vip: query(vip, TCP) for vip in wanted} == {vip: pod for vip, [(pod, _)] in wanted.items()}


def edited(fib: Fib, row: int, **columns: int) -> Fib:
    """The Fib with one frontend changed."""
    frontends = fib.frontends.copy()
    for name, value in columns.items():
        frontends[name][row] = value
    return fib._replace(frontends=freeze(frontends), frontend_index=build_index(frontends))


def test_affinity_and_a_nodes_own_address_keep_listeners_of_their_own(
    proxy: Proxy, plan: AddressPlan, port: int
) -> None:
    sticky, *others = vips(plan, port)
    mine, theirs = (plan.node(1), port), (plan.node(2), port)
    wanted = own_pods(plan, [sticky, mine, theirs, *others], port)
    fib = edited(make_fib(1, wanted), 1, affinity=7, affinity_s=60)
    fib = edited(edited(fib, 2, node=1), 3, node=2)
    with Crowd([pod for [pod] in wanted.values()]):
        proxy.install(fib)
        assert set(proxy._listeners) == {
            Frontend(0, port, TCP),
            Frontend(ip_to_int(sticky[0]), port, TCP),
            Frontend(ip_to_int(mine[0]), port, TCP),
        }
        for vip in (sticky, mine, others[0]):
            assert query(vip, TCP) == wanted[vip][0][0]
        assert_reset_at_once(theirs)
        assert proxy.outcomes()["NO_FRONTEND"] == 1
        proxy.install(edited(make_fib(2, wanted), 3, node=2))
        assert query(sticky, TCP) == wanted[sticky][0][0], "the shared one has it now"
        assert len(proxy._listeners) == 1


def test_frontend_that_is_gone_is_reset_while_the_shared_listener_stays(
    proxy: Proxy, plan: AddressPlan, port: int
) -> None:
    gone, *others = vips(plan, port)
    with Pod((str(plan.pods_of(2)[2]), 9000), echo) as pod:
        proxy.install(make_fib(1, over([gone, *others], pod.address)))
        with dial(gone) as client:
            client.sendall(b"?")
            assert client.recv(1) == b"?"
            proxy.install(make_fib(2, over(others, pod.address)))
            assert_reset_at_once(gone)
            client.sendall(b"!")
            assert client.recv(1) == b"!", "a connection outlives its frontend"


@needs_refuser
def test_flows_end_with_their_frontend_while_the_shared_listener_stays(
    proxy: Proxy, plan: AddressPlan, port: int
) -> None:
    gone, *others = vips(plan, port)
    pod = pod_address(plan, 0, 9000)
    with Crowd([pod], UDP):
        proxy.install(make_fib(1, over([gone, *others], pod), proto=UDP))
        assert query(gone, UDP) == query(others[0], UDP) == pod[0]
        assert proxy.live_flows() == 2
        proxy.install(make_fib(2, over(others, pod), proto=UDP))
        assert proxy.live_flows() == 1
        with pytest.raises(ConnectionRefusedError):
            query(gone, UDP)


@both_protocols
def test_a_port_stays_as_it_is_between_the_two_thresholds(
    proxy: Proxy, plan: AddressPlan, port: int, proto: int
) -> None:
    services = vips(plan, port)

    def shares(count: int) -> bool:
        wanted = own_pods(plan, services[:count], port)
        proxy.install(make_fib(proxy.generation + 1, wanted, proto=proto))
        return shared_ports(proxy) == {(port, proto)}

    counts = (SHARE_FROM - 1, SHARE_FROM, SHARE_UNTIL + 1, SHARE_UNTIL, SHARE_UNTIL + 1, SHARE_FROM)
    assert [shares(count) for count in counts] == [False, True, True, False, False, True]
    assert not shares(0)
    assert proxy._listeners == {}


@pytest.mark.parametrize("nodes", [1, 2], ids=["one node", "two nodes"])
def test_no_connection_is_lost_while_a_port_comes_to_be_shared_and_back(
    plan: AddressPlan, port: int, nodes: int
) -> None:
    few, many = vips(plan, port, 8), vips(plan, port)
    stop = threading.Event()
    answers: list[bytes] = []

    def keep_asking(vip: Address) -> None:
        while not stop.is_set():
            answers.append(ask(vip))

    with contextlib.ExitStack() as stack:
        pod = stack.enter_context(Pod((str(plan.pods_of(2)[2]), 9000), saying(b"1")))
        proxies = [stack.enter_context(running(plan, 1 + number)) for number in range(nodes)]
        pool = stack.enter_context(ThreadPoolExecutor(8))

        def install(services: Sequence[Address]) -> None:
            fib = make_fib(proxies[0].generation + 1, over(services, pod.address))
            for proxy in proxies:
                assert proxy.install(fib).problems == ()

        install(few)
        asking = [pool.submit(keep_asking, vip) for vip in few]
        try:
            for crossings in itertools.count():
                install(many)
                assert all(len(proxy._listeners) == 1 for proxy in proxies)
                install(few)
                assert all(len(proxy._listeners) == len(few) for proxy in proxies)
                if (crossings >= 20 and len(answers) >= 200) or any(future.done() for future in asking):
                    break
        finally:
            stop.set()
        for future in asking:
            future.result()
        assert set(answers) == {b"1"}
        assert sum(proxy.outcomes()["NEW"] + proxy.outcomes()["TRACKED"] for proxy in proxies) == len(answers)


@needs_refuser
def test_flows_keep_their_backend_while_a_port_comes_to_be_shared_and_back(
    proxy: Proxy, plan: AddressPlan, port: int
) -> None:
    pods = [pod_address(plan, number, 9000) for number in range(3)]
    few, many = vips(plan, port, 8), vips(plan, port)

    def install(services: Sequence[Address]) -> None:
        proxy.install(make_fib(proxy.generation + 1, over(services, *pods), proto=UDP))

    with Crowd(pods, UDP), contextlib.ExitStack() as stack:
        install(few)
        clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in few]
        for client, vip in zip(clients, few, strict=True):
            client.settimeout(PATIENCE_S)
            client.connect(vip)
        answers: list[list[bytes]] = []
        for services in (few, many, few, many):
            install(services)
            for client in clients:
                client.send(b"?")
            answers.append([client.recv(64) for client in clients])
        assert answers == [answers[0]] * 4
        assert proxy.outcomes()["NEW"] == len(clients)
        assert proxy.live_flows() == len(clients)


def test_shifted_ports_are_shared_and_two_of_one_address_are_told_apart(plan: AddressPlan) -> None:
    if unprivileged_port_start() <= 80:
        pytest.skip("no port needs a privilege here")
    shifted = AddressPlan(plan.instance, 8000)
    low, high = vips(plan, 80), vips(plan, 8080, 1)
    pod = pod_address(plan, 0, 9000)
    with Crowd([pod]), running(shifted) as proxy:
        proxy.install(make_fib(1, over(low, pod)))
        assert shared_ports(proxy) == {(80, TCP)}
        assert query((low[5][0], 8080), TCP) == pod[0]
        assert proxy.recorded()["frontend_port"].tolist() == [80]
        apart = str(plan.cluster_ips[8000]), 8080
        [problem] = proxy.install(make_fib(2, over([*low, *high, apart], pod))).problems
        assert f"{high[0][0]}:8080/TCP for port 8080: port 80 of the same address is bound to it" in problem
        assert query(apart, TCP) == query((high[0][0], 8080), TCP) == pod[0]
        assert proxy.recorded()["frontend_port"].tolist() == [80, 8080, 80]


def test_ten_thousand_services_are_one_listener_and_planned_at_once(plan: AddressPlan, port: int) -> None:
    services = vips(plan, port, 10_000)
    fib = make_fib(1, over(services, pod_address(plan, 0, port)))
    wanted = listeners.wanted(fib.frontends, 1, plan, ())
    assert wanted.own == {}
    assert {frontend: sorted(ips.tolist()) for frontend, ips in wanted.shared.items()} == {
        Frontend(0, port, TCP): sorted(ip_to_int(ip) for ip, _ in services)
    }


def test_what_cannot_be_refused_is_not_shared(plan: AddressPlan, port: int) -> None:
    fib = make_fib(1, own_pods(plan, vips(plan, port), port), proto=UDP)
    assert listeners.wanted(fib.frontends, 1, plan, (), share_udp=False).shared == {}
    assert len(listeners.wanted(fib.frontends, 1, plan, (), share_udp=False).own) == MANY


def test_addresses_beyond_loopback_keep_listeners_of_their_own(plan: AddressPlan, port: int) -> None:
    elsewhere = [(f"192.0.2.{number}", port) for number in range(1, 1 + SHARE_FROM)]
    fib = make_fib(1, own_pods(plan, elsewhere, port))
    assert listeners.wanted(fib.frontends, 1, plan, ()).shared == {}


def test_nothing_is_left_of_shared_listeners(plan: AddressPlan, port: int) -> None:
    before = open_descriptors()
    with running(plan) as proxy:
        proxy.install(make_fib(1, own_pods(plan, vips(plan, port), port)))
    assert open_descriptors() == before
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
