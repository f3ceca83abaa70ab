"""The relay's UDP half on real sockets. One thread plays everybody, pass by pass, so nothing has to be waited for."""

import contextlib
import errno
import resource
import select
import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest

from kernels.jit import kernel
from kernels.layout import (
    BACKEND_STATES,
    CROWDED_OUT,
    DRAINING,
    FATES,
    FLOW_ENDS,
    GONE,
    IDLE,
    READY,
    RR,
    TURNED_AWAY,
    UDP,
    UNREADY,
    Fib,
)
from kernels.lb.forward import create_steering
from kernels.net import datagrams, relay, syscalls, udpflows
from plane.addresses import AddressPlan, ip_to_int
from tests.batches import Backend, Frontend, fib_of
from tests.loopback import Address, eventually, open_descriptors

pytestmark = pytest.mark.syscalls

PORT = 5353
IP_LOCAL_PORT_RANGE = 51  # <linux/in.h>


@kernel
def end(steering, table, row, how):
    """What compiled code alone can call."""
    udpflows.end(steering, table, row, how)


def udp(address: Address, room: int = 1 << 22) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    opened.bind(address)
    return opened


def drain(source: socket.socket) -> list[tuple[bytes, Address]]:
    """All that waits in a socket, and where it came from."""
    found = []
    while True:
        try:
            found.append(source.recvfrom(1 << 16))
        except BlockingIOError:
            return found


class Stage:
    """A relay that listens at one VIP over pods 1 … n, round robin, and is breathed by the test.

    pods  backend id: its socket
    """

    def __init__(self, plan: AddressPlan, pods: int, flows: int):
        self.plan = plan
        self.vip = (str(plan.cluster_ips[900]), PORT)
        self.pods = {number: udp((str(plan.pods_of(1)[40 + number]), PORT)) for number in range(1, pods + 1)}
        self.backends = {number: self.backend(number) for number in self.pods}
        self.epoll = select.epoll()
        self.relay = datagrams.with_listeners(relay.create(4, 512, ip_to_int(plan.node(1)), 10**9, flows), 2)
        self.relay.loop[0]["epoll"] = self.epoll.fileno()
        self.fib = self.compiled(1)
        self.steering = create_steering(self.fib, 1024)
        self.listener = udp(self.vip)
        self.listen(1, self.listener, self.vip)

    @property
    def frontend(self) -> tuple[np.uint32, np.uint16]:
        return np.uint32(ip_to_int(self.vip[0])), np.uint16(self.vip[1])

    @property
    def own(self) -> np.ndarray:
        """The scalars of the datagrams' part."""
        return self.relay.datagrams.loop[0]

    def backend(self, number: int, state: int = READY) -> Backend:
        return Backend(ip_to_int(self.pods[number].getsockname()[0]), PORT, state)

    def compiled(self, generation: int) -> Fib:
        ready = [number for number, backend in self.backends.items() if backend.state == READY]
        return fib_of([Frontend(ip_to_int(self.vip[0]), PORT, UDP, RR, ready)], self.backends, generation=generation)

    def listen(self, row: int, listener: socket.socket, address: Address) -> None:
        entry = self.relay.datagrams.listeners[row]
        assert datagrams.watch(self.relay, listener.fileno(), row, int(entry["serial"])) == 0
        entry["ip"], entry["port"], entry["fd"] = ip_to_int(address[0]), address[1], listener.fileno()

    def put(self, number: int, state: int) -> None:
        """Another state for one backend, in force from the next breath on."""
        self.backends[number] = self.backends[number]._replace(state=state)
        self.fib = self.compiled(self.fib.generation + 1)

    def breathe(self, times: int = 1) -> None:
        for _ in range(times):
            assert relay.breath(self.fib, self.steering, self.relay, 0) == 0

    def client(self, place: int = 0) -> socket.socket:
        """A client at an address of its own, connected to the VIP so that it hears no one else."""
        client = udp((str(self.plan.pods_of(2)[10 + place % 200]), 0))
        client.connect(self.vip)
        return client

    def heard(self) -> dict[int, list[bytes]]:
        """What came to each pod, after a breath."""
        self.breathe()
        heard = {number: [data for data, _ in drain(pod)] for number, pod in self.pods.items()}
        return {number: data for number, data in heard.items() if data}

    def echo(self, times: int = 1) -> None:
        """To the pods and back again."""
        for _ in range(times):
            self.breathe()
            for pod in self.pods.values():
                for data, sender in drain(pod):
                    pod.sendto(data, sender)
            self.breathe()

    def turn(self, client: socket.socket, data: bytes = b"?") -> int:
        """The pod that the client's next datagram goes to."""
        client.send(data)
        (number,) = self.heard()
        return number

    def fates(self) -> dict[str, int]:
        counts = self.relay.datagrams.fates
        return {FATES[fate]: int(counts[fate]) for fate in np.flatnonzero(counts)}

    def ends(self) -> dict[str, int]:
        counts = self.relay.datagrams.ends
        return {FLOW_ENDS[how]: int(counts[how]) for how in np.flatnonzero(counts)}

    @property
    def live(self) -> int:
        return udpflows.live(self.relay.datagrams)

    def is_consistent(self) -> bool:
        """Whether rows, index, conntrack and counts tell the same story."""
        table = self.relay.datagrams
        live = np.flatnonzero(table.flows["fd"] >= 0)
        tracked = self.steering.conntrack.entries["key"]
        counted = np.bincount(udpflows.backends_in_use(table), minlength=len(self.steering.active))
        return (
            sorted(table.flow_index[table.flow_index != 0]) == live.tolist()
            and sorted(table.free[: table.loop[0]["free"]].tolist() + live.tolist()) == list(range(1, len(table.flows)))
            and set(tracked[tracked != 0]) == set(table.flows["key"][live])
            and (counted[1:] == self.steering.active[1:]).all()
            and all(self.finds(row) == row for row in live.tolist())
        )

    def finds(self, row: int) -> int:
        flow = self.relay.datagrams.flows[row]
        client, frontend = ((flow[f"{side}_ip"], flow[f"{side}_port"]) for side in ("client", "frontend"))
        return int(udpflows.find(self.relay.datagrams, flow["key"], client, frontend))

    def close(self) -> None:
        relay.end_all(self.steering, self.relay)
        self.epoll.close()
        for each in (self.listener, *self.pods.values()):
            each.close()


def stage(plan: AddressPlan, pods: int = 3, flows: int = 64) -> Iterator[Stage]:
    before = open_descriptors()
    stage = Stage(plan, pods, flows)
    try:
        yield stage
        assert stage.is_consistent()
    finally:
        stage.close()
    assert stage.live == 0
    assert not stage.steering.active.any()
    assert open_descriptors() == before


three = pytest.fixture(stage, name="three")


@pytest.fixture
def one(plan: AddressPlan) -> Iterator[Stage]:
    yield from stage(plan, pods=1)


@pytest.fixture
def wide(plan: AddressPlan) -> Iterator[Stage]:
    yield from stage(plan, pods=3, flows=1024)


def test_an_echo_comes_back_from_the_frontends_address(three: Stage) -> None:
    with udp((str(three.plan.pods_of(2)[10]), 0)) as client:
        client.sendto(b"hello", three.vip)
        three.echo()
        assert drain(client) == [(b"hello", three.vip)]
    assert three.fates() == {"FORWARDED": 1, "ANSWERED": 1}
    assert three.live == 1


def test_the_pod_sees_the_clients_own_address(one: Stage) -> None:
    with one.client() as client:
        client.send(b"who am I")
        one.breathe()
        ((_, sender),) = drain(one.pods[1])
        assert sender[0] == client.getsockname()[0]


def test_a_client_from_elsewhere_comes_from_the_nodes_address(one: Stage) -> None:
    table = one.relay.datagrams
    elsewhere = np.uint32(ip_to_int("192.0.2.1")), np.uint16(9)
    row = udpflows.begin(table, np.uint64(77), elsewhere, one.frontend, 1, 0)
    udpflows.lead(one.fib, one.steering, one.relay, row, 1, True)
    assert udpflows.find(table, np.uint64(77), elsewhere, one.frontend) == row
    upstream = socket.socket(fileno=int(table.flows[row]["fd"]))
    assert upstream.getsockname()[0] == one.plan.node(1)
    assert upstream.getpeername() == one.pods[1].getsockname()
    upstream.detach()
    end(one.steering, one.relay.datagrams, row, IDLE)


def test_a_flow_keeps_its_backend_and_new_ones_spread(three: Stage) -> None:
    clients = [three.client(place) for place in range(6)]
    chosen = [three.turn(client) for client in clients]
    assert sorted(chosen) == [1, 1, 2, 2, 3, 3]
    assert [three.turn(client) for client in clients] == chosen
    assert three.steering.active.tolist() == [0, 2, 2, 2]
    assert three.is_consistent()
    for client in clients:
        client.close()


def test_many_clients_each_get_their_own_answers(wide: Stage) -> None:
    clients = [wide.client(place) for place in range(500)]
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    wide.echo(times=8)
    for number, client in enumerate(clients):
        assert [data for data, _ in drain(client)] == [b"%d" % number]
        client.close()
    assert wide.live == 500
    assert wide.is_consistent()


def test_a_burst_keeps_its_order_both_ways(three: Stage) -> None:
    wanted = [b"%d" % number for number in range(150)]  # more than two batches
    with three.client() as client, three.client(1) as other:
        for data in wanted:
            client.send(data)
            other.send(data)
        three.echo(times=6)
        assert [data for data, _ in drain(client)] == wanted
        assert [data for data, _ in drain(other)] == wanted
    assert three.live == 2
    assert three.steering.outcomes.sum() == 2, "asked once for each flow"


def test_large_and_empty_datagrams_pass_whole(one: Stage) -> None:
    sizes = (0, 1, 60_000, 65_507, 1472, 0, 9000)
    with one.client() as client:
        for number, size in enumerate(sizes):
            client.send(bytes([number]) * size)
        one.echo()
        assert [data for data, _ in drain(client)] == [bytes([number]) * size for number, size in enumerate(sizes)]


def test_bytes_are_counted_both_ways(one: Stage) -> None:
    with one.client() as client:
        client.send(b"four")
        client.send(b"")
        one.breathe()
        (_, sender), _ = drain(one.pods[1])
        one.pods[1].sendto(bytes(1000), sender)
        one.breathe()
        (flow,) = one.relay.datagrams.flows[one.relay.datagrams.flows["fd"] >= 0]
        assert (flow["moved_on"], flow["moved_back"]) == (4, 1000)


def test_answers_that_overflow_a_flows_queue_are_known_when_it_ends(one: Stage) -> None:
    with one.client() as client:
        client.send(b"?")
        one.breathe()
        ((_, sender),) = drain(one.pods[1])
        for _ in range(200):
            one.pods[1].sendto(bytes(60_000), sender)
        one.breathe(times=5)
        age(one, udpflows.STREAM_IDLE_NS)
        assert one.fates()["ANSWERED"] + one.own["overflowed"] == 200
        assert one.own["overflowed"] > 0


def test_answers_without_a_question_pass_too(one: Stage) -> None:
    with one.client() as client:
        client.send(b"subscribe")
        one.breathe()
        ((_, sender),) = drain(one.pods[1])
        for number in range(100):
            one.pods[1].sendto(b"%d" % number, sender)
        one.breathe(times=2)
        assert [data for data, _ in drain(client)] == [b"%d" % number for number in range(100)]


def test_ten_thousand_paced_datagrams_are_all_answered(three: Stage) -> None:
    clients = [three.client(place) for place in range(10)]
    for _ in range(100):
        for client in clients:
            for _ in range(10):
                client.send(b"x" * 100)
        three.echo(times=2)
    assert [len(drain(client)) for client in clients] == [1000] * 10
    assert three.fates() == {"FORWARDED": 10_000, "ANSWERED": 10_000}
    for client in clients:
        client.close()


def age(stage: Stage, by_ns: int) -> None:
    """Let time go by for flows, and look for idle ones at once."""
    stage.relay.datagrams.flows["last_ns"] -= by_ns
    stage.relay.datagrams.flows["opened_ns"] -= by_ns
    stage.own["next_scan_ns"] = 0
    stage.breathe()


def test_a_flow_without_an_answer_ends_after_the_shorter_time(one: Stage) -> None:
    with one.client() as client:
        one.turn(client)
        age(one, udpflows.IDLE_NS - 1_000_000_000)
        assert one.live == 1
        one.turn(client)
        age(one, udpflows.IDLE_NS - 1_000_000_000)
        assert one.live == 1, "a datagram begins its time anew"
        age(one, 1_000_000_000)
        assert one.ends() == {"IDLE": 1}
        assert one.turn(client) == 1, "and another flow begins"


def test_an_answered_stream_ends_after_the_longer_time(one: Stage) -> None:
    with one.client() as client, one.client(1) as asked_once:
        asked_once.send(b"?")
        client.send(b"?")
        one.echo()
        age(one, udpflows.STREAM_AFTER_NS)
        client.send(b"?")
        one.echo()
        age(one, udpflows.IDLE_NS - udpflows.STREAM_AFTER_NS)
        assert one.live == 1, "a question and its answer were no stream"
        age(one, udpflows.STREAM_IDLE_NS - udpflows.IDLE_NS)
        assert one.live == 1
        age(one, udpflows.STREAM_AFTER_NS)
        assert one.ends() == {"IDLE": 2}


def test_idle_flows_end_by_themselves(one: Stage) -> None:
    one.own["idle_ns"] = 50_000_000
    with one.client() as client:
        one.turn(client)
        eventually(lambda: (one.breathe(), one.live == 0)[1])


@pytest.mark.parametrize("state", [GONE, UNREADY], ids=lambda state: BACKEND_STATES[state])
@pytest.mark.parametrize("told", [True, False], ids=["after an install", "with the next datagram"])
def test_a_flow_moves_at_once_when_its_backend_goes(three: Stage, state: int, told: bool) -> None:
    with three.client() as client:
        first = three.turn(client)
        three.put(first, state)
        if told:
            udpflows.forget_gone(three.fib, three.steering, three.relay)
            assert three.live == 0
            assert three.is_consistent()
        assert three.turn(client) != first
        assert three.ends() == {"BACKEND_GONE": 1}
        assert three.live == 1


def test_a_flow_moves_when_its_id_stands_for_another_endpoint(three: Stage) -> None:
    with three.client() as client:
        first = three.turn(client)
        others = set(three.backends) - {first}
        three.backends[first] = three.backends[first]._replace(port=PORT + 1)
        three.fib = three.compiled(2)
        assert three.turn(client) in others
        assert three.ends() == {"BACKEND_GONE": 1}


def test_late_answers_of_a_backend_that_went_are_not_passed_on(one: Stage) -> None:
    with one.client() as client:
        client.send(b"?")
        one.breathe()
        ((_, sender),) = drain(one.pods[1])
        one.put(1, GONE)
        one.pods[1].sendto(b"late", sender)
        one.breathe()
        assert drain(client) == []
        assert one.ends() == {"BACKEND_GONE": 1}


def test_a_draining_backend_keeps_its_flows_and_gets_no_more(three: Stage) -> None:
    with three.client() as client:
        first = three.turn(client)
        three.put(first, DRAINING)
        udpflows.forget_gone(three.fib, three.steering, three.relay)
        assert three.turn(client) == first
        for place in range(1, 7):
            with three.client(place) as other:
                assert three.turn(other) != first


def test_a_backend_that_is_ready_for_another_frontend_only_is_gone(three: Stage) -> None:
    with three.client() as client:
        first = three.turn(client)
        others = [number for number in three.backends if number != first]
        vip = ip_to_int(three.vip[0])
        rows = [Frontend(vip, PORT, UDP, RR, others), Frontend(vip, PORT + 1, UDP, RR, [first])]
        three.fib = fib_of(rows, three.backends, generation=2)
        udpflows.forget_gone(three.fib, three.steering, three.relay)
        assert three.turn(client) in others
        by_node = Frontend(vip, PORT, UDP, RR, others, outside=list(three.backends), by_node=2)
        three.fib = fib_of([by_node], three.backends, generation=3)
        udpflows.forget_gone(three.fib, three.steering, three.relay)
        assert three.live == 1, "some client of the frontend may have it"


def test_the_next_datagram_after_a_refusal_goes_elsewhere(three: Stage) -> None:
    with three.client() as client:
        first = three.turn(client)
        three.pods.pop(first).close()
        client.send(b"lost")
        three.breathe()
        three.breathe()
        assert three.ends() == {"BACKEND_REFUSED": 1}
        assert three.live == 0
        assert three.turn(client) != first


@pytest.mark.parametrize("size", [2, 20])
def test_of_a_burst_only_what_was_refused_is_lost_and_the_rest_keeps_its_order(three: Stage, size: int) -> None:
    with three.client() as client:
        first = three.turn(client)
        three.pods.pop(first).close()
        for number in range(size):
            client.send(b"%d" % number)
        (heard,) = three.heard().values()
        assert heard == [b"%d" % number for number in range(1, size)]
        assert three.ends() == {"BACKEND_REFUSED": 1}


def test_answers_from_before_a_refusal_are_delivered(one: Stage) -> None:
    with one.client() as client:
        client.send(b"?")
        one.breathe()
        ((_, sender),) = drain(one.pods[1])
        for number in range(syscalls.MESSAGES):  # a full batch, so that the end is another pass
            one.pods[1].sendto(b"%d" % number, sender)
        one.pods.pop(1).close()
        flow = socket.socket(fileno=int(one.relay.datagrams.flows["fd"].max()))
        flow.send(b"refused")
        flow.detach()
        one.breathe(times=2)
        assert len(drain(client)) == syscalls.MESSAGES
        assert one.ends() == {"BACKEND_REFUSED": 1}


def test_where_all_refuse_a_burst_costs_few_sockets(three: Stage) -> None:
    for pod in three.pods.values():
        pod.close()
    three.pods.clear()
    with three.client() as client:
        for number in range(60):
            client.send(b"%d" % number)
        three.breathe()
    assert three.fates() == {"FORWARDED": datagrams.TRIES, "TURNED_AWAY": 60 - datagrams.TRIES}
    assert three.ends() == {"BACKEND_REFUSED": datagrams.TRIES}


def test_a_datagram_that_no_backend_can_have_is_dropped_and_counted(one: Stage) -> None:
    one.put(1, UNREADY)
    with one.client() as client:
        client.send(b"?")
        client.send(b"?")
        assert one.heard() == {}
    assert one.fates() == {"NO_BACKEND": 2}
    assert one.ends() == {"UNOPENED": 1}
    assert one.live == 0


def test_a_full_table_drops_new_flows_of_a_batch_and_later_ones_crowd_out_the_quietest(plan: AddressPlan) -> None:
    for two in stage(plan, pods=1, flows=2):
        clients = [two.client(place) for place in range(4)]
        for client in clients:
            client.send(b"?")
        two.echo()
        assert [len(drain(client)) for client in clients] == [1, 1, 0, 0]
        assert two.fates() == {"FORWARDED": 2, "ANSWERED": 2, "TABLE_FULL": 2}
        for client in clients[:2]:
            client.send(b"!")
        two.echo()
        assert [len(drain(client)) for client in clients] == [1, 1, 0, 0]
        clients[2].send(b"?")
        two.echo()
        assert len(drain(clients[2])) == 1, "the quietest has made room"
        assert two.relay.datagrams.ends[CROWDED_OUT] == 1
        for client in clients:
            client.close()


def test_without_descriptors_new_flows_pause_and_others_go_on(one: Stage) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with one.client() as client, one.client(1) as other:
        one.turn(client)
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(socket.socket())
            other.send(b"?")
            assert one.turn(client) == 1
            assert one.fates() == {"FORWARDED": 2, "NO_SOCKET": 1}
            paused_until_ns = int(one.own["paused_until_ns"])
            assert paused_until_ns > 0
            while taken:
                taken.pop().close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in taken:
                each.close()
        eventually(lambda: time.monotonic_ns() > paused_until_ns)
        assert one.turn(other) == 1


def test_flows_end_with_their_listener(one: Stage) -> None:
    second = (str(one.plan.cluster_ips[901]), PORT)
    vips = [ip_to_int(one.vip[0]), ip_to_int(second[0])]
    one.fib = fib_of([Frontend(vip, PORT, UDP, RR, [1]) for vip in vips], one.backends, generation=2)
    with udp(second) as listener, one.client() as client, one.client(1) as other:
        one.listen(2, listener, second)
        other.connect(second)
        client.send(b"first")
        other.send(b"second")
        one.echo()
        assert [len(drain(client)), len(drain(other)), one.live] == [1, 1, 2]
        udpflows.forget_listener(one.steering, one.relay, 2)
        one.relay.datagrams.listeners[2]["fd"] = -1
        one.relay.datagrams.listeners[2]["serial"] += 1
        assert one.live == 1
        assert one.ends() == {"UNHEARD": 1}
        client.send(b"first")
        one.echo()
        assert len(drain(client)) == 1


def test_a_flow_whose_listener_is_another_ones_row_now_ends(one: Stage) -> None:
    with one.client() as client:
        client.send(b"?")
        one.breathe()
        one.relay.datagrams.listeners[1]["port"] = PORT + 1
        ((data, sender),) = drain(one.pods[1])
        one.pods[1].sendto(data, sender)
        one.breathe()
        assert drain(client) == []
        assert one.ends() == {"UNHEARD": 1}


def test_an_event_of_an_earlier_flow_is_ignored(one: Stage) -> None:
    table = one.relay.datagrams
    table.flows[3]["serial"] = 7
    datagrams.on_event(one.relay.datagrams, udpflows.FLOW_KEY | 3, np.uint32(6))
    datagrams.on_event(one.relay.datagrams, udpflows.FLOW_KEY | len(table.flows), np.uint32(0))
    datagrams.on_event(one.relay.datagrams, datagrams.LISTENER_KEY | len(table.listeners), np.uint32(0))
    datagrams.on_event(one.relay.datagrams, datagrams.LISTENER_KEY | 1, np.uint32(1))
    assert not datagrams.is_waiting(one.relay.datagrams)
    datagrams.on_event(one.relay.datagrams, udpflows.FLOW_KEY | 3, np.uint32(7))
    assert datagrams.is_waiting(one.relay.datagrams)
    one.breathe()
    assert not datagrams.is_waiting(one.relay.datagrams)


def test_a_longer_list_of_listeners_keeps_rows_and_queue(one: Stage) -> None:
    datagrams.attend(one.relay.datagrams, 1)
    more = datagrams.with_listeners(one.relay, 100)
    assert len(more.datagrams.listeners) > 100
    assert more.datagrams.listeners[1] == one.relay.datagrams.listeners[1]
    assert more.datagrams.asking.slots[0] == 1
    assert datagrams.with_listeners(more, 50) is more


def test_a_pod_that_is_not_there_does_not_have_its_client_talk_to_itself(one: Stage) -> None:
    ip, _ = one.pods[1].getsockname()
    with udp((ip, 0)) as taken:
        port = taken.getsockname()[1]
    one.backends[1] = one.backends[1]._replace(port=port)
    one.fib = one.compiled(2)
    client = np.uint32(ip_to_int(ip)), np.uint16(1)
    row = udpflows.begin(one.relay.datagrams, np.uint64(5), client, one.frontend, 1, 0)
    own = socket.socket(fileno=int(one.relay.datagrams.flows[row]["fd"]))
    try:  # have the kernel choose the pod's port, which else it does once in 28,232 times
        own.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=HH", port, port))
    except OSError:
        pytest.skip("needs Linux 6.3")
    finally:
        own.detach()
    udpflows.lead(one.fib, one.steering, one.relay, row, 1, True)
    assert one.relay.datagrams.flows[row]["fate"] == TURNED_AWAY
    assert one.live == 0


def client_of(key: int) -> tuple[np.uint32, np.uint16]:
    return np.uint32(key >> 32), np.uint16(1)


def test_flows_are_found_whatever_came_and_went_beside_them(one: Stage) -> None:
    table = one.relay.datagrams
    draw = np.random.default_rng(1)
    live: dict[int, int] = {}
    for step in range(1000):
        key = int(draw.integers(1, 256)) << 32 | int(draw.integers(100, 120))  # few places to begin at: long runs
        if len(live) == len(table.free) or (live and draw.random() < 0.4):
            end(one.steering, table, live.pop(int(draw.choice(list(live)))), IDLE)
        elif key not in live:
            live[key] = int(udpflows.begin(table, np.uint64(key), client_of(key), one.frontend, 1, step))
        found = [udpflows.find(table, np.uint64(key), client_of(key), one.frontend) for key in live]
        assert found == list(live.values())
    for row in live.values():
        end(one.steering, table, row, IDLE)
    assert not table.flow_index.any()


def test_a_refused_registration_says_why(one: Stage) -> None:
    assert datagrams.watch(one.relay, -1, 1, 0) == -errno.EBADF
