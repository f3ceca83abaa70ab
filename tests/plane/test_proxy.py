"""The Service proxy on real sockets: who gets a connection, and what is told of it."""

import contextlib
import socket
import time
from collections import Counter

import numpy as np
import pytest

from kernels.layout import DRAINING, DROP, LC, NEW, P2C, RANDOM, RANGE, RECORD, RR, Fib, freeze
from kernels.lb.frontends import build_index
from plane.addresses import AddressPlan, int_to_ip, ip_to_int
from plane.fib import compile
from plane.proxy import Proxy
from tests.loopback import Address, Pod, ask, dial, echo, eventually, make_fib, receive, saying
from tests.plane.proxied import assert_reset_at_once, client_ip, pod_address
from tests.plane.test_fib import HTTP, endpoint, service, slice_of, snapshot_of

pytestmark = pytest.mark.syscalls


def test_bytes_go_through_both_ways(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            for size in (1, 100, 32768, 100_000):
                client.sendall(bytes(size))
                assert receive(client, size) == bytes(size)


def test_pod_sees_the_clients_own_address(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        assert ask(vip, source=client_ip(plan)) == b"?"
        assert [ip for ip, _ in pod.peers] == [client_ip(plan)]


def test_pod_reaches_itself_through_its_service(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        assert ask(vip, source=pod.address[0]) == b"?"
        assert pod.peers[0][0] == pod.address[0]


def test_round_robin_spreads_connections_evenly(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with (
        Pod(pod_address(plan, 1), saying(b"1")) as one,
        Pod(pod_address(plan, 2), saying(b"2")) as two,
        Pod(pod_address(plan, 3), saying(b"3")) as three,
    ):
        proxy.install(make_fib(1, {vip: [one.address, two.address, three.address]}))
        assert Counter(ask(vip) for _ in range(30)) == {b"1": 10, b"2": 10, b"3": 10}


def test_random_reaches_every_backend(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), saying(b"1")) as one, Pod(pod_address(plan, 2), saying(b"2")) as two:
        proxy.install(make_fib(1, {vip: [one.address, two.address]}, RANDOM))
        assert {ask(vip) for _ in range(64)} == {b"1", b"2"}


def test_round_robin_keeps_its_turn_over_an_install(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), saying(b"1")) as one, Pod(pod_address(plan, 2), saying(b"2")) as two:
        answers = []
        other = (vip[0], 8081)
        for generation in range(1, 9):
            frontends = {vip: [one.address, two.address], other: [one.address]}
            ordered = frontends if generation % 2 else dict(reversed(frontends.items()))
            proxy.install(make_fib(generation, ordered))
            answers.append(ask(vip))
        assert answers == [b"1", b"2"] * 4


def test_frontend_without_endpoint_is_refused_by_the_machine_and_listens_once_it_has_one(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    proxy.install(make_fib(1, {vip: []}))
    with pytest.raises(ConnectionRefusedError):
        dial(vip)
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(2, {vip: [pod.address]}))
        assert ask(vip) == b"?"
    proxy.install(make_fib(3, {vip: []}))
    with pytest.raises(ConnectionRefusedError):
        dial(vip)


def test_client_that_is_not_allowed_in_is_reset_at_once(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(open_to(make_fib(1, {vip: [pod.address]}), client_ip(plan)))
        assert ask(vip, source=client_ip(plan)) == b"?"
        assert_reset_at_once(vip)
    assert proxy.outcomes()["DROP"] == 1


def open_to(fib: Fib, ip: str) -> Fib:
    """The Fib with its first frontend open to one client only."""
    frontends = fib.frontends.copy()
    frontends[1]["ranges"] = 1
    ranges = np.array([(ip_to_int(ip), ip_to_int(ip), 0, 0)], RANGE)
    index = build_index(frontends)  # which says whether a flow goes by policy
    return fib._replace(frontends=freeze(frontends), frontend_index=index, ranges=freeze(ranges))


def test_another_nodes_node_port_is_not_listened_on(proxy: Proxy, plan: AddressPlan) -> None:
    own, other = (plan.node(1), 30123), (plan.node(2), 30123)
    with Pod(pod_address(plan, 1), echo) as pod:
        fib = make_fib(1, {own: [pod.address], other: [pod.address]})
        frontends = fib.frontends.copy()
        frontends["node"][1:] = 1, 2
        proxy.install(fib._replace(frontends=freeze(frontends)))
        assert ask(own) == b"?"
        with pytest.raises(ConnectionRefusedError):
            dial(other)


def test_an_address_of_another_machine_is_left_to_it(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(1, {("192.0.2.77", 80): [pod.address], vip: [pod.address]}))
        assert ask(vip) == b"?"


def test_least_connections_counts_those_that_are_open(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), saying(b"1")) as one, Pod(pod_address(plan, 2), saying(b"2")) as two:

        def ask_when_there_are(live: int) -> bytes:
            eventually(lambda: proxy.live() == live)
            return ask(vip)

        proxy.install(make_fib(1, {vip: [one.address, two.address]}, LC))
        with dial(vip) as kept:
            kept.sendall(b"?")
            assert kept.recv(1) == b"1"
            assert [ask_when_there_are(1) for _ in range(3)] == [b"2"] * 3
            proxy.install(make_fib(2, {vip: [one.address, two.address]}, LC))
            assert [ask_when_there_are(1) for _ in range(3)] == [b"2"] * 3
        assert ask_when_there_are(0) == b"1"


def test_frontend_that_is_gone_refuses(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            client.sendall(b"?")
            assert client.recv(1) == b"?"
            proxy.install(make_fib(2, {}))
            with pytest.raises(ConnectionRefusedError):
                dial(vip)
            client.sendall(b"!")
            assert client.recv(1) == b"!", "a connection outlives its frontend"


def test_dead_backend_resets_at_once(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    proxy.install(make_fib(1, {vip: [pod_address(plan, 1)]}))
    assert_reset_at_once(vip)
    eventually(lambda: proxy.ends()["REFUSED"] == 1)


def test_connection_that_a_pod_refuses_is_offered_to_others_and_its_record_says_who_took_it(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    dead = [pod_address(plan, number) for number in (1, 2)]
    with Pod(pod_address(plan, 3), echo) as pod:
        proxy.install(make_fib(1, {vip: [*dead, pod.address]}))
        for _ in range(6):  # whoever's turn it is
            with dial(vip) as client:
                client.sendall(bytes(100_000))  # sent before anybody is there to read it
                assert receive(client, 100_000) == bytes(100_000)
        eventually(lambda: proxy.live() == 0)
    assert {int_to_ip(ip) for ip in proxy.recorded()["backend_ip"]} == {pod.address[0]}
    assert proxy.ends()["REFUSED"] == 0


def test_connection_is_offered_to_three_pods_at_most(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 4), echo) as pod:
        proxy.install(make_fib(1, {vip: [*(pod_address(plan, number) for number in (1, 2, 3)), pod.address]}))
        assert_reset_at_once(vip)  # the first in turn, and the two after it
        assert ask(vip) == b"?"


def test_pod_that_does_not_answer_is_given_up_for_another(plan: AddressPlan, vip: Address) -> None:
    proxy = Proxy(plan, 1, connect_timeout_s=0.3)
    proxy.start()
    try:
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.create_server(pod_address(plan, 1), backlog=0))
            for _ in range(2):  # a queue of 0 holds one; from then on Linux drops what asks to connect
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            pod = stack.enter_context(Pod(pod_address(plan, 2), saying(b"2")))
            proxy.install(make_fib(1, {vip: [full.getsockname(), pod.address]}))
            assert ask(vip) == b"2"
            assert proxy.ends()["TIMEOUT"] == 0
    finally:
        proxy.stop(0)


def test_pod_that_is_dead_and_dials_itself_is_refused(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    proxy.install(make_fib(1, {vip: [pod_address(plan, 1)]}))
    assert_reset_at_once(vip, source=pod_address(plan, 1)[0])


def test_backend_that_does_not_answer_resets_after_the_timeout(plan: AddressPlan, vip: Address) -> None:
    proxy = Proxy(plan, 1, connect_timeout_s=0.3)
    proxy.start()
    address = pod_address(plan, 1)
    try:
        with socket.create_server(address, backlog=0) as full, socket.socket() as first, socket.socket() as second:
            for filler in (first, second):  # a queue of 0 holds one; from then on Linux drops what asks to connect
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            proxy.install(make_fib(1, {vip: [address]}))
            begun = time.monotonic()
            with pytest.raises(ConnectionResetError), dial(vip) as client:
                client.recv(1)
            assert 0.25 < time.monotonic() - begun < 20
            assert proxy.ends()["TIMEOUT"] == 1
    finally:
        proxy.stop(0)


def test_200_connections_at_once(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        clients = [dial(vip) for _ in range(200)]
        for number, client in enumerate(clients):
            client.sendall(b"%03d" % number)
        assert [receive(client, 3) for client in clients] == [b"%03d" % number for number in range(200)]
        assert proxy.live() == 200
        for client in clients:
            client.close()
        eventually(lambda: proxy.live() == 0)
        assert proxy.ends()["CLOSED"] == 200


@pytest.mark.parametrize("algorithm", [LC, P2C, RANDOM, RR], ids=["lc", "p2c", "random", "rr"])
def test_slow_start_keeps_load_from_an_endpoint_that_has_just_come(
    proxy: Proxy, plan: AddressPlan, vip: Address, algorithm: int
) -> None:
    """Scaled up under load: the others are at work, the one that comes has no connection yet."""
    with (
        Pod(pod_address(plan, 1), saying(b"1")) as one,
        Pod(pod_address(plan, 2), saying(b"2")) as two,
        Pod(pod_address(plan, 3), saying(b"3")) as new,
        contextlib.ExitStack() as load,
    ):
        proxy.install(make_fib(1, {vip: [one.address, two.address]}, algorithm, slow_start_s=3600))
        for _ in range(60):  # connections that last
            load.enter_context(dial(vip))
        # The first two are an hour old when the third comes.
        proxy._between_breaths(lambda: np.subtract.at(proxy._in_force.steering.ready_ns, [1, 2], 3600 * 10**9))
        proxy.install(make_fib(2, {vip: [one.address, two.address, new.address]}, algorithm, slow_start_s=3600))
        answers = Counter(ask(vip) for _ in range(120))
        # A fair share is 40, and a tenth of it 4; p2c draws it twice as often. Seven standard deviations are allowed.
        assert answers[b"3"] <= (27 if algorithm == P2C else 18)
        assert answers.total() == 120
        # And once its time is over, it has what its algorithm gives.
        proxy.install(make_fib(3, {vip: [one.address, two.address, new.address]}, algorithm, slow_start_s=1))
        eventually(lambda: time.monotonic_ns() > proxy._in_force.steering.warm_ns[0])
        answers = Counter(ask(vip) for _ in range(120))
        assert answers[b"3"] >= 13  # a fair share is 40: five standard deviations are allowed


def test_an_endpoint_is_new_since_it_became_ready_whatever_is_installed_meanwhile(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    def ready_ns() -> list[int]:
        return proxy._between_breaths(lambda: proxy._in_force.steering.ready_ns.tolist())

    first, second, third = (pod_address(plan, number) for number in (1, 2, 3))
    fibs = [make_fib(generation, {vip: [first, second]}, slow_start_s=9) for generation in range(1, 6)]
    away = fibs[2].backends.copy()
    away["state"][2] = DRAINING
    other = fibs[4].backends.copy()
    other["ip"][2] = ip_to_int(third[0])
    fibs[2], fibs[4] = fibs[2]._replace(backends=freeze(away)), fibs[4]._replace(backends=freeze(other))
    seen = []
    for fib in fibs:
        proxy.install(fib)
        seen.append(ready_ns())
    assert {row[0] for row in seen} == {0}
    assert len({row[1] for row in seen}) == 1, "the first was ready throughout"
    came, still, gone, again, replaced = (row[2] for row in seen)
    assert came == still == seen[0][1]
    assert gone == 0
    assert still < again < replaced, "ready again after it had drained; then its id had another endpoint"


def test_records_say_who_was_sent_where(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    begun_ns = time.monotonic_ns()
    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(open_to(make_fib(3, {vip: [pod.address]}), client_ip(plan)))
        with dial(vip, client_ip(plan)) as client:
            client_port = client.getsockname()[1]
            client.sendall(b"?")
            client.recv(1)
        assert_reset_at_once(vip)
    rows = proxy.recorded()
    assert set(rows) == set(RECORD.names or ()) - {"spare"}
    assert [int_to_ip(ip) for ip in rows["frontend_ip"]] == [vip[0], vip[0]]
    assert rows["frontend_port"].tolist() == [8080, 8080]
    assert int_to_ip(rows["client_ip"][0]) == client_ip(plan)
    assert rows["client_port"][0] == client_port
    assert (int_to_ip(rows["backend_ip"][0]), rows["backend_port"][0], rows["backend"][0]) == (*pod.address, 1)
    assert (rows["backend_ip"][1], rows["backend_port"][1], rows["backend"][1]) == (0, 0, 0)
    assert rows["outcome"].tolist() == [NEW, DROP]
    assert rows["generation"].tolist() == [3, 3]
    assert begun_ns < rows["opened_ns"][0] <= rows["opened_ns"][1] < time.monotonic_ns()


def test_records_are_the_last_ones_in_order(plan: AddressPlan, vip: Address) -> None:
    proxy = Proxy(plan, 1, records=8)
    proxy.start()
    try:
        proxy.install(make_fib(1, {vip: [pod_address(plan, 1)]}))  # where nobody listens
        for _ in range(11):
            assert_reset_at_once(vip)
        opened = proxy.recorded()["opened_ns"].tolist()
        assert len(opened) == 8
        assert opened == sorted(opened)
    finally:
        proxy.stop(0)


@pytest.mark.parametrize("members", [2, 1], ids=["as before", "of which the slow one has gone"])
def test_another_pod_is_tried_also_where_tables_have_changed_meanwhile(
    plan: AddressPlan, vip: Address, members: int
) -> None:
    proxy = Proxy(plan, 1, connect_timeout_s=0.5)
    proxy.start()
    slow, other = pod_address(plan, 1), (vip[0], vip[1] + 1)
    with contextlib.ExitStack() as stack:
        stack.callback(proxy.stop, 0)
        full = stack.enter_context(socket.create_server(slow, backlog=0))
        for _ in range(2):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(full.getsockname())
        pod = stack.enter_context(Pod(pod_address(plan, 2), saying(b"2")))
        proxy.install(make_fib(1, {vip: [slow, pod.address]}))
        client = stack.enter_context(dial(vip))
        eventually(lambda: proxy.live() == 1)
        proxy.install(make_fib(2, {vip: [slow, pod.address][-members:], other: [pod.address]}))
        client.sendall(b"?")
        assert receive(client, 1) == b"2"


def test_turns_go_on_where_a_service_comes_to_be_reached_at_one_more_address(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    more = [str(plan.cluster_ips[310 + number]) for number in range(4)]
    with Pod(pod_address(plan, 1), saying(b"1")) as one, Pod(pod_address(plan, 2), saying(b"2")) as two:
        answers = []
        for count in range(4):
            made = service("web", vip[0], (HTTP,), "rr", externalIPs=more[:count])
            rows = slice_of("web", endpoint(one.address[0]), endpoint(two.address[0]))
            proxy.install(compile(snapshot_of(made, rows, generation=1 + count)))
            answers.append(ask((vip[0], 80)))
        assert answers == [b"1", b"2"] * 2
