"""What must not break a node: idle and dead peers, resets, want of descriptors, killed nodes, ceaseless change.

Every test here has the process's descriptors and threads and the machine's listeners compared before and after, and
every relay its own tables once it has stopped.
"""

import contextlib
import itertools
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from kernels.layout import LC, RR, UDP
from plane import fib
from plane.addresses import AddressPlan, int_to_ip
from plane.model import Key, Object
from plane.proxy import Proxy
from plane.store import Store
from tests.loopback import (
    PATIENCE_S,
    Address,
    Pod,
    ask,
    dial,
    echo,
    eventually,
    leftovers,
    make_fib,
    receive,
    reset,
    saying,
)
from tests.processes import Process

pytestmark = [pytest.mark.syscalls, pytest.mark.usefixtures("nothing_is_left")]

MIB = 1 << 20
LONG_S = 60.0


@pytest.fixture
def start(plan: AddressPlan) -> Iterator[Callable[..., Proxy]]:
    """Starts a relay of node 1, or another."""
    started = []

    def start(node: int = 1, **options: float) -> Proxy:
        proxy = Proxy(plan, node, **options)  # type: ignore[arg-type]
        proxy.start()
        started.append(proxy)
        return proxy

    yield start
    for proxy in started:
        proxy.stop(0)
        assert leftovers(proxy) == []


@pytest.fixture
def proxy(start: Callable[..., Proxy]) -> Proxy:
    return start(connections=512)


_hosts = itertools.count(1)


@pytest.fixture
def vip(plan: AddressPlan) -> Address:
    """A ClusterIP that no other test uses."""
    return str(plan.cluster_ips[0x5000 + next(_hosts)]), 8080


def pod_address(plan: AddressPlan, number: int, port: int = 8080) -> Address:
    return str(plan.pods_of(1)[60 + number]), port


def clients(plan: AddressPlan, count: int) -> list[str]:
    return [str(plan.pods_of(2)[60 + number]) for number in range(count)]


@contextlib.contextmanager
def full(address: Address) -> Iterator[Address]:
    """An address where connections are neither taken nor refused: the queue is full, and Linux drops what asks."""
    with socket.create_server(address, backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(2):  # a queue of 0 holds one
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield address


def silent(connection: socket.socket) -> None:
    """A pod that accepts and never answers; it notices the end."""
    connection.settimeout(LONG_S)
    while connection.recv(65536):
        pass


def deaf(until: threading.Event) -> Callable[[socket.socket], None]:
    """A pod that accepts and does not even read."""

    def serve(_: socket.socket) -> None:
        until.wait(LONG_S)

    return serve


def stuff(client: socket.socket) -> None:
    """Send until nothing more goes, all the way to a pod that does not read."""
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(64 * MIB))
    client.settimeout(PATIENCE_S)


# Many connections.


def needs_descriptors(count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"a process may have {hard} open files here (ulimit -Hn), {count} are needed")


def test_ten_thousand_idle_connections_stay_served_and_so_do_new_ones(plan: AddressPlan, vip: Address) -> None:
    needs_descriptors(16_000)  # about 5,000 connections at each of two nodes, 10,000 sockets at the pod and the clients
    pod = pod_address(plan, 1)
    with contextlib.ExitStack() as stack:
        relays = [stack.enter_context(Process("relay", plan.instance, node)) for node in (1, 2)]
        stack.enter_context(Process("echo", pod))
        crowd = stack.enter_context(Process("crowd"))
        for relay in relays:
            assert relay.ask("install", 1, [[vip, [pod]]]) == []

        def live() -> int:
            return sum(relay.ask("live") for relay in relays)

        assert crowd.ask("open", 10_000, vip, clients(plan, 4)) == 10_000
        eventually(lambda: live() == 10_000)
        assert crowd.ask("say", 50) == 200
        for relay in relays:
            assert relay.ask("install", 2, [[vip, [pod]], [[vip[0], 8081], [pod]]]) == []
        assert crowd.ask("say", 40) == 250
        assert [ask(address) for address in (vip, (vip[0], 8081)) for _ in range(20)] == [b"?"] * 40

        assert crowd.ask("leave", 5_000) == 5_000
        eventually(lambda: live() == 5_000)
        assert crowd.ask("say", 50) == 100
        assert [relay.ask("stop") for relay in relays] == [[], []]
        assert crowd.ask("fates") == {"reset": 5_000}
        assert [relay.ask("ends")["STOPPED"] > 2_000 for relay in relays] == [True, True]


# Backends that do not do their part.


def test_a_backend_that_accepts_and_never_answers_holds_up_nobody_else(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    dead = (vip[0], 8081)
    with Pod(pod_address(plan, 1), silent) as mute, Pod(pod_address(plan, 2), echo) as well:
        proxy.install(make_fib(1, {dead: [mute.address], vip: [well.address]}))
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(dial(dead)) for _ in range(100)]
            for client in waiting:
                client.sendall(b"?")
            assert [ask(vip) for _ in range(50)] == [b"?"] * 50
            eventually(lambda: proxy.live() == 100)
            for client in waiting:  # they are not ended by us, however long they wait
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    client.recv(1)
            for client in waiting[:50]:
                reset(client)
            eventually(lambda: proxy.live() == 50)
            assert [ask(vip) for _ in range(50)] == [b"?"] * 50
        eventually(lambda: proxy.live() == 0)  # those that went by FIN, which the pod answers
        assert proxy.ends()["CLOSED"] == 150
        assert proxy.ends()["CLIENT_RESET"] == 50


def test_a_backend_that_never_reads_slows_its_own_clients_only(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    stuck, done = (vip[0], 8081), threading.Event()
    with Pod(pod_address(plan, 1), deaf(done)) as busy, Pod(pod_address(plan, 2), echo) as well:
        proxy.install(make_fib(1, {stuck: [busy.address], vip: [well.address]}))
        with contextlib.ExitStack() as stack:
            pushing = [stack.enter_context(dial(stuck)) for _ in range(20)]
            for client in pushing:
                stuff(client)
            assert [ask(vip) for _ in range(50)] == [b"?"] * 50
            for client in pushing:
                reset(client)
            eventually(lambda: proxy.ends()["CLIENT_RESET"] == 20)
        done.set()


def test_where_no_backend_takes_a_connection_three_are_tried_and_the_client_is_reset(
    start: Callable[..., Proxy], plan: AddressPlan, vip: Address
) -> None:
    proxy = start(connections=64, connect_timeout_s=0.2)
    others = (vip[0], 8081)
    with contextlib.ExitStack() as stack:
        stuck = [stack.enter_context(full(pod_address(plan, number))) for number in range(1, 5)]
        well = stack.enter_context(Pod(pod_address(plan, 9), echo))
        proxy.install(make_fib(1, {vip: stuck, others: [well.address]}))
        waiting = [stack.enter_context(dial(vip)) for _ in range(20)]
        assert ask(others) == b"?"
        for client in waiting:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert proxy.ends()["TIMEOUT"] == 20
        # The last of those that do not answer may be one that was offered a connection before: one is left for it.
        proxy.install(make_fib(2, {vip: [stuck[0], stuck[1], well.address], others: [well.address]}))
        assert [ask(vip) for _ in range(6)] == [b"?"] * 6


def test_a_backend_that_cannot_be_reached_is_passed_over(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    nowhere = "255.255.255.255", 8080  # connect(2) answers ENETUNREACH
    with Pod(pod_address(plan, 1), echo) as well:
        proxy.install(make_fib(1, {vip: [nowhere, well.address]}))
        assert [ask(vip) for _ in range(6)] == [b"?"] * 6
        proxy.install(make_fib(2, {vip: [nowhere]}))
        with pytest.raises(ConnectionResetError):
            ask(vip)
    assert proxy.ends()["REFUSED"] == 1


def test_counts_of_connections_hold_while_endpoints_change_and_ids_are_given_again(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    pods = [pod_address(plan, number) for number in range(1, 7)]
    chance = random.Random(3)
    with contextlib.ExitStack() as stack:
        for address in pods:
            stack.enter_context(Pod(address, echo))
        kept: list[socket.socket] = []
        for generation in range(1, 121):
            proxy.install(make_fib(generation, {vip: chance.sample(pods, chance.randint(1, 6))}, LC))
            kept += [dial(vip) for _ in range(3)]
            for client in kept[-3:]:
                client.sendall(b"?")
                assert client.recv(1) == b"?"
            while len(kept) > 20:
                gone = kept.pop(chance.randrange(len(kept)))
                gone.close() if chance.random() < 0.5 else reset(gone)
            left = len(kept)
            eventually(lambda left=left: proxy.live() == left)
            # Ids go by first mention, so each install gives them to others: only connections of this one count.
            active, rows = proxy._in_force.steering.active, proxy._in_force.relay.connections
            live = rows[rows["state"] != 0]["backend"]
            assert active.tolist()[1:] == np.bincount(live, minlength=len(active)).tolist()[1:]
            assert (active >= 0).all()
        for client in kept:
            client.close()
        eventually(lambda: proxy.live() == 0)


# Half-closed connections, with more in them than any buffer holds.


def test_a_client_that_ends_first_still_receives_megabytes(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    body = os.urandom(16 * MIB)

    def answer_after_the_end(connection: socket.socket) -> None:
        assert receive(connection, 1 << 30) == b"all I ask"
        connection.sendall(body)

    with Pod(pod_address(plan, 1), answer_after_the_end) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            client.sendall(b"all I ask")
            client.shutdown(socket.SHUT_WR)
            assert receive(client, 1 << 30) == body
        eventually(lambda: proxy.ends()["CLOSED"] == 1)


def test_a_server_that_ends_first_still_takes_megabytes(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    body, got = os.urandom(16 * MIB), []

    def end_and_listen(connection: socket.socket) -> None:
        connection.sendall(b"go on")
        connection.shutdown(socket.SHUT_WR)
        got.append(receive(connection, 1 << 30))

    with Pod(pod_address(plan, 1), end_and_listen) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            assert receive(client, 1 << 30) == b"go on"
            client.sendall(body)
        eventually(lambda: got)
        assert got == [body]
        eventually(lambda: proxy.ends()["CLOSED"] == 1)


def test_half_closed_connections_outlive_an_install_and_an_endpoints_removal(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    with Pod(pod_address(plan, 1), echo) as pod, Pod(pod_address(plan, 2), echo) as other:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            client.sendall(bytes(2 * MIB))
            client.shutdown(socket.SHUT_WR)
            proxy.install(make_fib(2, {vip: [other.address]}))
            proxy.install(make_fib(3, {}))
            assert len(receive(client, 1 << 30)) == 2 * MIB


# Resets.


def ending(ends: list[str]) -> Callable[[socket.socket], None]:
    """A pod that answers a byte with megabytes without an end, or takes what comes, and notes how that ended."""

    def serve(connection: socket.socket) -> None:
        try:
            if connection.recv(1) == b"d":
                while True:
                    connection.sendall(bytes(MIB))
            while connection.recv(65536):
                pass
            ends.append("end")
        except (ConnectionResetError, BrokenPipeError):
            ends.append("reset")

    return serve


@pytest.mark.parametrize("way", ["d", "u"], ids=["while it downloads", "while it uploads"])
def test_a_client_that_resets_mid_stream_resets_its_backend(
    proxy: Proxy, plan: AddressPlan, vip: Address, way: str
) -> None:
    ends: list[str] = []
    with Pod(pod_address(plan, 1), ending(ends)) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        for _ in range(20):
            client = dial(vip)
            client.sendall(way.encode())
            if way == "d":
                receive(client, MIB)
            else:
                client.sendall(bytes(MIB))
            reset(client)
        eventually(lambda: len(ends) == 20)
        assert ends == ["reset"] * 20
        eventually(lambda: proxy.ends()["CLIENT_RESET"] == 20)


def test_a_client_that_resets_while_the_backend_is_still_connecting_leaves_nothing(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    with full(pod_address(plan, 1)) as stuck:
        proxy.install(make_fib(1, {vip: [stuck]}))
        for wait in (False, True):
            waiting = [dial(vip) for _ in range(20)]
            if wait:
                eventually(lambda: proxy.live() == 20)
            for number, client in enumerate(waiting):
                if number % 2:
                    client.sendall(b"?")
                reset(client)
            eventually(lambda: proxy.live() == 0)
    assert proxy.ends()["CLIENT_RESET"] == proxy.outcomes()["NEW"] + proxy.outcomes()["TRACKED"]


def test_a_client_that_ends_while_the_backend_is_still_connecting_is_heard_once_it_has(
    start: Callable[..., Proxy], plan: AddressPlan, vip: Address
) -> None:
    proxy = start(connections=64, connect_timeout_s=0.2)
    with full(pod_address(plan, 1)) as stuck, Pod(pod_address(plan, 2), echo) as well:
        proxy.install(make_fib(1, {vip: [stuck, well.address]}))
        with dial(vip) as client:
            client.sendall(b"said before anybody listened")
            client.shutdown(socket.SHUT_WR)
            assert receive(client, 1 << 20) == b"said before anybody listened"


def breaking_off(at: threading.Event | None) -> Callable[[socket.socket], None]:
    """A pod that sends part of an answer and resets, after ``at`` where that is given."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"half an answ")
        if at is not None:
            at.wait(PATIENCE_S)
        reset(connection)

    return serve


def how_it_ended(client: socket.socket) -> str:
    """What a client sees: all that it reads, and then how that ends."""
    try:
        while client.recv(65536):
            pass
        return "end"
    except ConnectionResetError:
        return "reset"


def test_a_backend_that_resets_mid_stream_is_no_clean_end_to_its_client(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    with Pod(pod_address(plan, 1), breaking_off(None)) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        for _ in range(20):
            with dial(vip) as client:
                client.sendall(b"?")
                assert how_it_ended(client) == "reset"


def test_a_backend_that_resets_while_its_client_uploads_is_no_clean_end_either(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    for number in range(10):
        with Pod(pod_address(plan, 1 + number), breaking_off(answered := threading.Event())) as pod:
            proxy.install(make_fib(1 + number, {vip: [pod.address]}))
            with dial(vip) as client:
                client.sendall(b"?")
                assert receive(client, 12) == b"half an answ"
                stuff(client)
                answered.set()
                assert how_it_ended(client) == "reset"


def test_bytes_after_urgent_data_are_not_left_behind(
    start: Callable[..., Proxy], plan: AddressPlan, vip: Address
) -> None:
    proxy = start(connections=64, connect_timeout_s=0.2)
    with full(pod_address(plan, 1)) as stuck, Pod(pod_address(plan, 2), echo) as well:
        proxy.install(make_fib(1, {vip: [stuck, well.address]}))
        with dial(vip) as client:
            client.sendall(b"before ")  # all is there when the relay begins to read
            client.send(b"!", socket.MSG_OOB)
            client.sendall(b"after")
            assert receive(client, 12).replace(b"!", b"") == b"before after"


# Want of descriptors.


def test_a_relay_without_descriptors_pauses_and_serves_those_that_waited_once_it_has_some(
    plan: AddressPlan, vip: Address
) -> None:
    with Process("relay", plan.instance, 1) as relay, Pod(pod_address(plan, 1), echo) as pod:
        relay.ask("install", 1, [[vip, [pod.address]]])
        assert ask(vip) == b"?"
        eventually(lambda: relay.ask("live") == 0)
        relay.ask("leave_descriptors", 40)  # and one socket is ready for the next connection
        waiting = [dial(vip) for _ in range(200)]  # Linux accepts for it
        for client in waiting:
            client.sendall(b"?")
        served = waiting[:20]
        assert [client.recv(1) for client in served] == [b"?"] * 20
        for _ in range(10):  # those that it carries are served as before
            for client in served:
                client.sendall(b"!")
            assert [client.recv(1) for client in served] == [b"!"] * 20
        assert relay.ask("live") == 20
        assert relay.ask("install", 2, [[vip, [pod.address]]]) == [], "a change needs no descriptor"
        [problem] = relay.ask("install", 3, [[vip, [pod.address]], *([[vip[0], 8081], [pod.address]] for _ in "12")])
        assert "8081/TCP: Too many open files; raise the limit of open files" in problem
        assert relay.ask("live") == 20

        relay.ask("free_descriptors")
        assert [client.recv(1) for client in waiting[20:]] == [b"?"] * 180
        assert relay.ask("install", 4, [[vip, [pod.address]], [[vip[0], 8081], [pod.address]]]) == []
        assert ask((vip[0], 8081)) == b"?"
        for client in waiting:
            client.close()
        eventually(lambda: relay.ask("live") == 0)
        assert relay.ask("ends")["CLOSED"] == 202
        assert relay.ask("stop") == []


@pytest.mark.parametrize("left", [0, 1])
def test_a_relay_that_lacks_descriptors_to_start_says_so_and_starts_once_it_has_some(
    plan: AddressPlan, vip: Address, left: int
) -> None:
    with Process("relay", plan.instance, 1) as relay, Pod(pod_address(plan, 1), echo) as pod:
        assert relay.ask("stop") == []
        relay.ask("take_descriptors", left)
        problem = relay.ask("start")
        assert problem.endswith("cannot start: Too many open files; raise the limit of open files (ulimit -n)")
        relay.ask("give_descriptors_back")
        assert relay.ask("start") == ""
        assert relay.ask("install", 1, [[vip, [pod.address]]]) == []
        assert ask(vip) == b"?"
        assert relay.ask("stop") == []


# Nodes that are killed, and change without an end.


def test_a_node_killed_under_load_costs_the_connections_it_carries_and_no_other(
    plan: AddressPlan, vip: Address
) -> None:
    pod = pod_address(plan, 1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Process("echo", pod))
        relays = [stack.enter_context(Process("relay", plan.instance, node)) for node in (1, 2, 3)]
        for relay in relays:
            relay.ask("install", 1, [[vip, [pod]]])
        kept = [stack.enter_context(dial(vip)) for _ in range(90)]
        ports = [client.getsockname()[1] for client in kept]
        for client in kept:
            client.sendall(b"?")
            assert client.recv(1) == b"?"
        lost = set(relays[0].ask("carried"))
        load = stack.enter_context(Process("load", vip, 4))
        eventually(lambda: load.ask("answered") > 300)

        relays[0].kill()
        gone_ns, answered = time.monotonic_ns(), load.ask("answered")
        eventually(lambda: load.ask("answered") > answered + 300)
        result = load.ask("stop")
        others = {port for relay in relays[1:] for port in relay.ask("carried")}
        assert [failure for failure in result["failed"] if failure[0] > gone_ns] == []
        assert [failure for failure in result["failed"] if failure[2] in others] == []
        assert 0 < len(lost & set(ports)) < len(ports)
        for client, port in zip(kept, ports, strict=True):
            if port in lost:
                assert how_it_ended(client) in ("end", "reset")  # Linux closes for the dead, by FIN where all was read
            else:
                client.sendall(b"!")
                assert client.recv(1) == b"!"
            client.close()
        assert [relay.ask("stop") for relay in relays[1:]] == [[], []]


SERVICE: Object = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"ports": [{"port": 8080}]},
}


def slice_of(pods: Sequence[str]) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in pods],
    }


class Changing:
    """A Service whose endpoints come and go, on two nodes, each with a pod that is really there while it is listed.

    A pod that leaves is closed once no relay holds a connection to it. One that crashes is closed first; its endpoint
    goes with the next change.

    crashed  addresses of pods that have
    """

    def __init__(self, plan: AddressPlan, proxies: Sequence[Proxy]):
        self._proxies = proxies
        self._store = Store(plan)
        self._store.apply([SERVICE])
        self._random = random.Random(1)
        self._steady = [str(plan.pods_of(1)[10 + number]) for number in range(4)]
        self._passing = [str(plan.pods_of(2)[10 + number]) for number in range(12)]
        self._pods = {ip: Pod((ip, 8080), saying(b"?")) for ip in self._steady}
        self._listed: set[str] = set()
        self.crashed: set[str] = set()
        self._install()

    @property
    def address(self) -> Address:
        return self._store.get(Key("Service", "default", "web"))["spec"]["clusterIP"], 8080

    def change(self) -> None:
        """One endpoint more or fewer, in force on both nodes."""
        ip = self._random.choice(self._passing)
        if ip not in self._listed:
            if ip not in self._pods:
                self._pods[ip] = Pod((ip, 8080), saying(b"?"))
            self._listed.add(ip)
        else:
            if self._random.random() < 0.1:
                self.crashed.add(ip)
                self._pods.pop(ip).close()
            self._listed.discard(ip)
        self._install()

    def tidy(self) -> None:
        """Close the pods that have left and that nobody is connected to any more."""
        held = {int_to_ip(ip) for proxy in self._proxies for ip in proxy.open()["backend_ip"]}
        if "0.0.0.0" in held:  # a connection whose endpoint is gone: it may be anyone's
            return
        for ip in self._pods.keys() - self._listed - held - set(self._steady):
            self._pods.pop(ip).close()

    def close(self) -> None:
        for pod in self._pods.values():
            pod.close()

    def _install(self) -> None:
        self._store.update([slice_of(self._steady + sorted(self._listed))])
        compiled = fib.compile(self._store.snapshot, RR)
        for proxy in self._proxies:
            assert proxy.install(compiled) == (compiled.generation, ())


def backends_between(proxies: Sequence[Proxy], begun_ns: int, ended_ns: int, port: int) -> set[str]:
    """Where the connection of a client's port went that was accepted between two times.

    A relay takes the time of a pass before it accepts, so what is recorded may be a little earlier than the client's.
    """
    found = set()
    for proxy in proxies:
        rows = proxy.recorded()
        mine = (
            (rows["client_port"] == port) & (rows["opened_ns"] >= begun_ns - PASS_NS) & (rows["opened_ns"] <= ended_ns)
        )
        found |= {int_to_ip(ip) for ip in rows["backend_ip"][mine]}
    return found


RATE = 200  # changes a second
PASS_NS = 500_000_000  # of a relay, at most; ports of clients come back later than that


@pytest.mark.parametrize("seconds", [5, pytest.param(30, marks=pytest.mark.soak)])
def test_two_hundred_endpoint_changes_a_second_fail_no_request_but_of_crashed_pods(
    start: Callable[..., Proxy], plan: AddressPlan, seconds: int
) -> None:
    proxies = [start(node, records=1 << 20) for node in (1, 2)]
    changing = Changing(plan, proxies)
    first = proxies[0].generation
    try:
        with Process("load", changing.address, 4) as load:
            begun_s = time.monotonic()
            for number in range(seconds * RATE):
                time.sleep(max(0.0, begun_s + number / RATE - time.monotonic()))
                changing.change()
                if number % 20 == 0:
                    changing.tidy()
            result = load.ask("stop")
    finally:
        changing.close()
    assert [proxy.generation - first for proxy in proxies] == [seconds * RATE] * 2
    assert result["answered"] > seconds * RATE / 4
    assert changing.crashed
    for begun_ns, ended_ns, port, why in result["failed"]:
        assert backends_between(proxies, begun_ns, ended_ns, port) & changing.crashed, why


# Datagrams.


@contextlib.contextmanager
def udp_pod(address: Address) -> Iterator[socket.socket]:
    """A pod that sends each datagram back, until its socket is shut."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(address)

        def serve() -> None:
            while True:
                data, sender = bound.recvfrom(1 << 16)
                if sender == bound.getsockname():
                    return
                with contextlib.suppress(ConnectionRefusedError):
                    bound.sendto(data, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield bound
        finally:
            bound.sendto(b"", bound.getsockname())
            thread.join()


def udp_client(address: Address, source: str = "") -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE_S)
    client.bind((source, 0))
    client.connect(address)
    return client


def pinged(client: socket.socket, data: bytes = b"?") -> bytes:
    client.send(data)
    return client.recv(1 << 16)


def test_more_clients_than_flows_are_all_answered_and_the_quietest_make_room(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    with udp_pod(pod_address(plan, 1)) as pod:
        proxy.install(make_fib(1, {vip: [pod.getsockname()]}, proto=UDP))
        for number in range(5000):
            with udp_client(vip, f"127.1.{number >> 8}.{number & 255}") as client:
                assert pinged(client, b"%d" % number) == b"%d" % number
    assert proxy.live_flows() == 4096
    assert proxy.datagrams()["FORWARDED"] == proxy.datagrams()["ANSWERED"] == 5000
    assert proxy.datagrams()["TABLE_FULL"] == 0


def test_a_backend_that_goes_mid_flow_is_left_by_the_next_datagram_in_flight_or_not(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    with udp_pod(pod_address(plan, 2)) as well, contextlib.ExitStack() as stack:
        with udp_pod(pod_address(plan, 1)) as leaving:
            proxy.install(make_fib(1, {vip: [leaving.getsockname()]}, proto=UDP))
            flows = [stack.enter_context(udp_client(vip)) for _ in range(50)]
            assert [pinged(client) for client in flows] == [b"?"] * 50
            proxy.install(make_fib(2, {vip: [well.getsockname()]}, proto=UDP))
            assert proxy.live_flows() == 0
            assert [pinged(client) for client in flows] == [b"?"] * 50
        # This time nobody says so: the pod is gone, the machine refuses for it, and the flow is led elsewhere.
        both = [pod_address(plan, 1), well.getsockname()]
        proxy.install(make_fib(3, {vip: both}, proto=UDP))
        fresh = [stack.enter_context(udp_client(vip)) for _ in range(20)]
        for client in fresh:
            client.settimeout(0.05)
            eventually(lambda client=client: answered(client))
            client.settimeout(PATIENCE_S)
        assert [pinged(client) for client in fresh] == [b"?"] * 20


def answered(client: socket.socket) -> bool:
    """Whether one more datagram is answered; the one before, which was refused, is lost as on any network."""
    with contextlib.suppress(TimeoutError):
        return pinged(client) == b"?"
    return False


def test_garbage_and_refusals_harm_no_other_flow(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    nobody = (vip[0], 8081)
    chance = random.Random(2)
    with udp_pod(pod_address(plan, 1)) as pod, udp_client(vip) as client:
        proxy.install(make_fib(1, {vip: [pod.getsockname()], nobody: [pod_address(plan, 2)]}, proto=UDP))
        for _ in range(200):
            size = chance.choice((0, 1, 1472, 9000, 65507))
            assert pinged(client, data := chance.randbytes(size)) == data
            with udp_client(nobody) as lost:
                for _ in range(4):
                    lost.send(chance.randbytes(64))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:  # to the flow's own socket, and its pod
                [row] = np.flatnonzero(proxy.open()["frontend_port"] == vip[1])[:1]
                stranger.sendto(b"not from its backend", (client.getsockname()[0], int(row) + 1024))
    assert proxy.datagrams()["ANSWERED"] == 200
    assert proxy.live_flows() >= 1


def test_datagrams_from_port_0_cannot_be_answered_and_are_counted(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        pytest.skip("raw sockets need a privilege")
    with raw, udp_pod(pod_address(plan, 1)) as pod, udp_client(vip) as client:
        proxy.install(make_fib(1, {vip: [pod.getsockname()]}, proto=UDP))
        raw.bind((clients(plan, 1)[0], 0))
        for _ in range(50):
            raw.sendto(b"\0\0" + vip[1].to_bytes(2) + (9).to_bytes(2) + b"\0\0" + b"?", (vip[0], 0))
            assert pinged(client) == b"?"
        eventually(lambda: proxy.datagrams()["UNSENT"] == 50)
        assert proxy.datagrams()["ANSWERED"] == 50
