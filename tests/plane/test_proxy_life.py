"""The Service proxy from start to stop, on real sockets: installs, listeners, what it runs out of, what it leaves."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kernels.net import relay as kernel
from kernels.net.relay import PIPES
from kernels.reference import Reference
from plane.addresses import AddressPlan, unprivileged_port_start
from plane.errors import PlaneError
from plane.fib import compile, equal
from plane.proxy import Proxy
from tests.loopback import (
    PATIENCE_S,
    Address,
    Pod,
    ask,
    dial,
    echo,
    eventually,
    make_fib,
    open_descriptors,
    receive,
    reset,
    saying,
)
from tests.plane.proxied import pod_address, refuses
from tests.plane.test_fib import HTTP, endpoint, service, slice_of, snapshot_of

pytestmark = pytest.mark.syscalls


def test_no_request_fails_while_fibs_are_swapped(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), saying(b"1")) as one, Pod(pod_address(plan, 2), saying(b"2")) as two:
        proxy.install(make_fib(1, {vip: [one.address]}))
        stop = threading.Event()

        def keep_asking() -> list[bytes]:
            answers = []
            while not stop.is_set():
                answers.append(ask(vip))
            return answers

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(keep_asking) for _ in range(4)]
            for generation in range(2, 102):
                other = (vip[0], 9000 + generation)
                pods = [one.address] if generation % 2 else [one.address, two.address]
                assert proxy.install(make_fib(generation, {other: pods, vip: pods})).generation == generation
            stop.set()
            answers = [answer for future in asking for answer in future.result()]
        assert set(answers) == {b"1", b"2"}
        assert proxy.outcomes()["NEW"] == len(answers)


def test_older_generation_is_refused(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        assert proxy.install(make_fib(7, {vip: [pod.address]})).generation == 7
        assert proxy.install(make_fib(6, {})).generation == 7
        assert ask(vip) == b"?"


def test_installs_from_many_threads_end_with_the_newest(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod, ThreadPoolExecutor(8) as pool:
        fibs = [make_fib(generation, {vip: [pod.address]}) for generation in range(1, 41)]
        in_force = list(pool.map(proxy.install, reversed(fibs)))
        assert all(now.generation >= asked for now, asked in zip(in_force, range(40, 0, -1), strict=True))
        assert proxy.generation == 40
        assert ask(vip) == b"?"


def test_port_that_is_taken_is_named_and_the_others_are_served(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    other = (vip[0], 8081)
    with Pod(pod_address(plan, 1), echo) as pod:
        wanted = {vip: [pod.address], other: [pod.address], (vip[0], 8082): [pod.address]}
        with socket.create_server(other):
            [problem] = proxy.install(make_fib(2, wanted)).problems
            assert f"{vip[0]}:8081/TCP: Address already in use; stop what has it" in problem
            assert proxy.generation == 2
            assert ask(vip) == ask((vip[0], 8082)) == b"?"
        assert proxy.install(make_fib(3, wanted)).problems == ()
        assert ask(other) == b"?"


def test_ports_are_shifted_by_the_plans_offset(plan: AddressPlan, vip: Address) -> None:
    if unprivileged_port_start() <= 80:
        pytest.skip("no port needs a privilege here")
    proxy = Proxy(AddressPlan(plan.instance, 8000), 1)
    proxy.start()
    try:
        with Pod(pod_address(plan, 1, 8080), echo) as pod:
            proxy.install(make_fib(1, {(vip[0], 80): [pod.address]}))
            assert ask((vip[0], 8080)) == b"?"
            assert proxy.recorded()["frontend_port"].tolist() == [80]
            wanted = {(vip[0], 80): [pod.address], (vip[0], 8080): [pod.address]}
            [problem] = proxy.install(make_fib(2, wanted)).problems
            assert "8080/TCP for port 8080: port 80 of the same address is bound to it" in problem
    finally:
        proxy.stop(0)


def test_connections_beyond_the_table_wait_for_their_turn(plan: AddressPlan, vip: Address) -> None:
    proxy = Proxy(plan, 1, connections=4)
    proxy.start()
    try:
        with Pod(pod_address(plan, 1), echo) as pod:
            proxy.install(make_fib(1, {vip: [pod.address]}))
            serve_in_turn([dial(vip) for _ in range(12)], at_once=4)
            eventually(lambda: proxy.ends()["CLOSED"] == 12)
    finally:
        proxy.stop(0)


def serve_in_turn(clients: list[socket.socket], at_once: int) -> None:
    """All ask, only the first ``at_once`` are answered, and each of the others as soon as one before it has ended."""
    for client in clients:
        client.sendall(b"?")
    for client in clients[:at_once]:
        assert client.recv(1) == b"?"
    for client in clients[at_once:]:
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE_S)
        clients[clients.index(client) - at_once].close()
        assert client.recv(1) == b"?"
    for client in clients:
        client.close()


FEW_DESCRIPTORS = """
import os, resource, sys
from tests.loopback import eventually, make_fib
from plane.addresses import AddressPlan
from plane.proxy import Proxy

proxy = Proxy(AddressPlan(int(sys.argv[1])), 1)
proxy.start()
proxy.install(make_fib(1, {(sys.argv[2], 8080): [(sys.argv[3], 8080)]}))
limit = room = 0
while room < 9:
    try:
        os.fstat(limit)
    except OSError:
        room += 1
    limit += 1
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
print("ready", flush=True)
sys.stdin.read()
eventually(lambda: proxy.live() == 0)
print(proxy.ends())
proxy.stop(0)
"""


def test_running_out_of_descriptors_pauses_accepting_and_recovers(plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        command = [sys.executable, "-c", FEW_DESCRIPTORS, str(plan.instance), vip[0], pod.address[0]]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            serve_in_turn([dial(vip) for _ in range(12)], at_once=4)
            output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert "'CLOSED': 12" in output


def test_stop_lets_connections_end(plan: AddressPlan, vip: Address) -> None:
    proxy = Proxy(plan, 1)
    proxy.start()
    with Pod(pod_address(plan, 1), echo) as pod, dial_after(proxy, make_fib(1, {vip: [pod.address]}), vip) as client:
        stopping = threading.Thread(target=proxy.stop, args=(PATIENCE_S,))
        stopping.start()
        eventually(lambda: refuses(vip))
        client.sendall(b"last words")
        assert receive(client, 10) == b"last words"
        client.close()
        stopping.join(PATIENCE_S / 2)
        assert not stopping.is_alive()
    assert sum(proxy.ends().values()) == proxy.ends()["CLOSED"]


def dial_after(proxy: Proxy, fib: object, address: Address) -> socket.socket:
    """A connection that has been served once."""
    proxy.install(fib)  # type: ignore[arg-type]
    client = dial(address)
    client.sendall(b"?")
    assert client.recv(1) == b"?"
    return client


def test_stop_resets_what_is_left_after_its_grace_and_leaves_nothing(plan: AddressPlan, vip: Address) -> None:
    before = open_descriptors()
    proxy = Proxy(plan, 1)
    proxy.start()
    with Pod(pod_address(plan, 1), echo) as pod:
        with dial_after(proxy, make_fib(1, {vip: [pod.address]}), vip) as client:
            proxy.stop(0.05)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert proxy.live() == 0
        assert proxy.ends()["STOPPED"] == 1
        with pytest.raises(PlaneError, match="not running"):
            proxy.install(make_fib(2, {}))
    assert open_descriptors() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("relay")]


def test_waiting_connections_are_served_before_their_listener_closes(plan: AddressPlan, vip: Address) -> None:
    proxy = Proxy(plan, 1)
    proxy.start()
    try:
        with Pod(pod_address(plan, 1), echo) as pod:
            for generation in range(1, 41, 2):
                proxy.install(make_fib(generation, {vip: [pod.address]}))
                with dial(vip) as client:
                    proxy.install(make_fib(generation + 1, {}))
                    client.sendall(b"?")
                    assert client.recv(1) == b"?"
    finally:
        proxy.stop(0)


def test_whatever_clients_and_pods_do_nothing_is_left(plan: AddressPlan, vip: Address) -> None:
    def whim(connection: socket.socket) -> None:
        """End in one of four ways, which the first byte says."""
        way = connection.recv(1)
        connection.sendall(bytes(500_000))
        if way == b"r":
            reset(connection)
        elif way == b"h":
            connection.shutdown(socket.SHUT_WR)
            receive(connection, 100_000)
        elif way == b"e":
            receive(connection, 1 << 30)

    def visit(number: int) -> None:
        with contextlib.suppress(OSError), dial(vip) as client:  # a reset may come at any step
            client.sendall(b"rhec"[number % 4 : number % 4 + 1] + bytes(number % 7 * 50_000))
            if number % 3 == 0:
                receive(client, number % 5 * 100_000)
            if number % 5 == 0:
                client.shutdown(socket.SHUT_WR)
            if number % 11 == 0:
                reset(client)

    before = open_descriptors()
    proxy = Proxy(plan, 1, connections=16)
    proxy.start()
    try:
        with Pod(pod_address(plan, 1), whim) as pod, ThreadPoolExecutor(32) as pool:
            proxy.install(make_fib(1, {vip: [pod.address]}))
            list(pool.map(visit, range(420)))
            eventually(lambda: proxy.live() == 0)
            assert sum(proxy.ends().values()) == proxy.outcomes()["NEW"] + proxy.outcomes()["TRACKED"] == 420
    finally:
        proxy.stop(0)
    relay, conntrack = proxy._in_force.relay, proxy._in_force.steering.conntrack
    assert sorted(relay.free) == list(range(1, 17))
    assert sorted(relay.pipes.free) == list(range(1, PIPES + 1))
    assert relay.pipes.left[0] == PIPES
    assert not relay.connections["state"].any()
    assert relay.loop[0]["connecting"] == 0
    assert conntrack.counts[0] == 0
    assert open_descriptors() == before


def test_a_relay_that_fails_says_so_and_lets_go(plan: AddressPlan, vip: Address) -> None:
    proxy = Proxy(plan, 1)
    proxy.start()
    proxy.install(make_fib(1, {vip: []}))
    proxy._in_force.relay.loop[0]["epoll"] = -1
    with pytest.raises(PlaneError, match=r"has failed: .*Bad file descriptor"):
        eventually(lambda: proxy.live())
    assert refuses(vip)
    proxy.stop(0)


def test_whoever_waits_for_a_failure_is_called(plan: AddressPlan) -> None:
    failed = threading.Event()
    proxy = Proxy(plan, 1, failed=failed.set)
    proxy.start()
    proxy.check()
    proxy._in_force.relay.loop[0]["epoll"] = -1
    assert failed.wait(10)
    with pytest.raises(PlaneError, match="Bad file descriptor"):
        proxy.check()
    proxy.stop(0)


def test_a_port_that_takes_the_shifted_place_of_another_is_listened_on_at_once(
    plan: AddressPlan, vip: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plane.addresses.unprivileged_port_start", lambda: 1024)
    shifted = AddressPlan(plan.instance, 8000)
    proxy = Proxy(shifted, 1)
    proxy.start()
    try:
        with Pod(pod_address(plan, 1), saying(b"1")) as pod:
            for generation, port in enumerate((80, 8080, 80), start=1):
                assert proxy.install(make_fib(generation, {(vip[0], port): [pod.address]})).problems == ()
                assert ask((vip[0], 8080)) == b"1"
    finally:
        proxy.stop(0)


@pytest.mark.parametrize("place", ["plane.proxy.Proxy._remembered", "plane.proxy.udpflows.live"])
def test_an_install_that_fails_half_way_leaves_nothing_and_the_next_one_is_whole(
    proxy: Proxy, plan: AddressPlan, vip: Address, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    others = [(vip[0], vip[1] + number) for number in range(1, 4)]
    with Pod(pod_address(plan, 1), saying(b"1")) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        before = open_descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(place, lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
            for generation in (2, 3, 4):
                with pytest.raises(MemoryError):
                    proxy.install(make_fib(generation, {each: [pod.address] for each in (vip, *others)}))
        assert open_descriptors() == before
        assert equal(proxy._in_force.fib, make_fib(1, {vip: [pod.address]}))
        assert ask(vip) == b"1"
        assert proxy.install(make_fib(5, {each: [pod.address] for each in (vip, *others)})).generation == 5
        assert [ask(each) for each in (vip, *others)] == [b"1"] * 4


def test_warming_up_compiles_all_that_is_called_live(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    kernel.warm()
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        assert ask(vip) == b"?"
        proxy.install(make_fib(2, {}))
        proxy.stop(0)
    for entry in (kernel.breath, kernel.attend, kernel.watch, kernel.end_all):
        by_python = [given for given in entry.signatures if not any(isinstance(each, Reference) for each in given)]
        assert len(by_python) == 1, entry


def test_where_two_services_claim_an_address_only_the_one_that_is_reached_has_a_listener(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    def objects(*endpoints_of: str) -> list[dict[str, object]]:
        made = [
            service(name, str(plan.cluster_ips[300 + number]), (HTTP,), externalIPs=[vip[0]])
            for number, name in enumerate(("a", "b"))
        ]
        return [*made, *(slice_of(name, endpoint(pod_address(plan, 1)[0])) for name in endpoints_of)]

    external = vip[0], 80
    with Pod(pod_address(plan, 1), saying(b"?")):
        proxy.install(compile(snapshot_of(*objects("b"))))
        with pytest.raises(ConnectionRefusedError):  # "a" has it, and no endpoint
            dial(external)
        proxy.install(compile(snapshot_of(*objects("a", "b"), generation=2)))
        with dial(external) as client:
            client.sendall(b"?")
            assert client.recv(1) == b"?"
