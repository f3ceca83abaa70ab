"""Traces: what packets of a capture make of flows, that all three kinds of file drive a run, and what is refused."""

import io
import json
import threading
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from click.testing import CliRunner

from harness import records
from harness.cli import bench
from harness.flows import queues
from harness.flows.captures import UDP_IDLE_NS
from harness.flows.columns import write_flows
from harness.flows.queues import arrivals_of
from harness.flows.shapes import Shape
from harness.flows.traces import Trace, read_trace
from harness.scenario import ScenarioError
from harness.tables import console
from kernels.jit import INTERPRETED
from kernels.layout import TCP, UDP
from plane.families import IPV6, halves
from tests.batches import random_flows, rows_of
from tests.harness.test_flows import phases_of, result_of, written
from tests.harness.test_queues import spec_of, text_of

S = 1_000_000_000
CLIENT, SERVER = 0x0A000001, 0x7F600101
SYN, ACK, FIN = dpkt.tcp.TH_SYN, dpkt.tcp.TH_ACK, dpkt.tcp.TH_FIN


def tcp(source: tuple[int, int], target: tuple[int, int], flags: int, payload: int = 0, seq: int = 1) -> bytes:
    """An IPv4 packet of TCP."""
    segment = dpkt.tcp.TCP(sport=source[1], dport=target[1], flags=flags, seq=seq, data=bytes(payload))
    return ip(source[0], target[0], TCP, segment)


def udp(source: tuple[int, int], target: tuple[int, int], payload: int = 0) -> bytes:
    datagram = dpkt.udp.UDP(sport=source[1], dport=target[1], data=bytes(payload))
    datagram.ulen = len(datagram)
    return ip(source[0], target[0], UDP, datagram)


def ip(source: int, target: int, proto: int, data: Any, offset: int = 0) -> bytes:
    packet = dpkt.ip.IP(src=source.to_bytes(4, "big"), dst=target.to_bytes(4, "big"), p=proto, data=data, _offset=0)
    packet.len = len(packet)
    raw = bytearray(bytes(packet))
    raw[6:8] = offset.to_bytes(2, "big")
    return bytes(raw)


def ethernet(packet: bytes, *vlans: int) -> bytes:
    tags = b"".join(b"\x81\x00" + vlan.to_bytes(2, "big") for vlan in vlans)
    return bytes(12) + tags + b"\x08\x00" + packet


def written_as(path: Path, packets: list[tuple[float, bytes]], link: int = 1, *, ng: bool = False) -> Path:
    with path.open("wb") as file:
        if ng:
            idb = dpkt.pcapng.InterfaceDescriptionBlockLE(linktype=link)
            writer = dpkt.pcapng.Writer(file, idb=idb)
        else:
            writer = dpkt.pcap.Writer(file, linktype=link)
        for at_s, packet in packets:
            writer.writepkt(packet, ts=at_s)
    return path


A, B, WEB = (CLIENT, 40000), (CLIENT + 1, 40001), (SERVER, 80)
PACKETS: list[tuple[float, bytes]] = [
    (100.0, tcp((CLIENT, 9), WEB, ACK, 500)),  # of a connection that began before
    (100.5, tcp(A, WEB, SYN)),
    (101.0, tcp(A, WEB, SYN)),  # sent again
    (101.0, udp(B, (SERVER, 53), 20)),
    (101.5, tcp(WEB, A, SYN | ACK)),
    (102.0, tcp(WEB, A, ACK, 1000)),
    (102.5, udp((SERVER, 53), B, 100)),
    (103.5, tcp(A, WEB, FIN | ACK)),
    (104.0, tcp(A, WEB, SYN, seq=77)),  # another one from the same port
    (104.0, ip(CLIENT, SERVER, TCP, bytes(600), offset=100)),
    (104.0, ip(CLIENT, SERVER, 1, bytes(8))),  # ICMP
    (102.5 + UDP_IDLE_NS / S, udp(B, (SERVER, 53), 20)),
    (102.6 + 2 * UDP_IDLE_NS / S, udp(B, (SERVER, 53), 20)),
]


def seen(trace: Trace) -> list[tuple[Any, ...]]:
    assert trace.arrival_ns is not None
    assert trace.duration_ns is not None
    assert trace.bytes is not None
    times = zip(trace.arrival_ns.tolist(), trace.duration_ns.tolist(), trace.bytes.tolist(), strict=True)
    return [(*row[:4], row[4], *rest) for row, rest in zip(rows_of(trace.flows), times, strict=True)]


def about(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Times to the microsecond, which is what the files have."""
    return [(*row[:5], round(row[5] / 1000), round(row[6] / 1000), row[7]) for row in rows]


@pytest.mark.parametrize("kind", ["pcap", "pcapng", "raw", "cooked"])
def test_a_capture_is_its_connections_from_the_first_packet_to_the_last(tmp_path: Path, kind: str) -> None:
    fronts: dict[str, tuple[int, Any]] = {
        "pcap": (1, lambda packet: ethernet(packet, 7)),
        "pcapng": (1, ethernet),
        "raw": (101, bytes),
        "cooked": (113, lambda packet: bytes(14) + b"\x08\x00" + packet),
    }
    link, front = fronts[kind]
    packets = [(at_s, front(packet)) for at_s, packet in PACKETS]
    trace = read_trace(written_as(tmp_path / "t.pcap", packets, link, ng=kind == "pcapng"))
    ms = 1000
    assert about(seen(trace)) == [
        (CLIENT, SERVER, 40000, 80, TCP, 500 * ms, 3000 * ms, 40 * 5 + 1000),
        (CLIENT + 1, SERVER, 40001, 53, UDP, 1000 * ms, 31_500 * ms, 28 * 3 + 140),
        (CLIENT, SERVER, 40000, 80, TCP, 4000 * ms, 0, 40),
        (CLIENT + 1, SERVER, 40001, 53, UDP, 62_600 * ms, 0, 48),
    ]
    left_out = [note.partition(": ")[2] for note in trace.notes]
    assert left_out == [
        "1 packets are no TCP or UDP over IPv4: they are left out",
        "1 packets are of connections that began before the capture: they are left out",
        "1 packets are later fragments, which have no ports: they are left out",
    ]


def ip6(source: tuple[int, int], target: tuple[int, int], *headers: Any, flags: int = SYN, payload: int = 0) -> bytes:
    """An IPv6 packet of TCP behind these other headers."""
    segment = dpkt.tcp.TCP(sport=source[1], dport=target[1], flags=flags, data=bytes(payload))
    kinds = [*(number for number, _ in headers), TCP]
    packed = b"".join(bytes([after]) + rest for (_, rest), after in zip(headers, kinds[1:], strict=True))
    packet = dpkt.ip6.IP6(src=source[0].to_bytes(16), dst=target[0].to_bytes(16), nxt=kinds[0])
    packet.plen = len(packed) + len(segment)
    return bytes(packet)[:40] + packed + bytes(segment)


HOP_BY_HOP, ROUTING = (0, bytes([0, 1, 4]) + bytes(4)), (43, bytes([1]) + bytes(14))
FIRST_FRAGMENT, SECOND_FRAGMENT = ((44, bytes([0, *offset]) + bytes(4)) for offset in ((0, 1), (0, 8)))


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_of_a_capture_of_both_families_there_are_the_flows_of_one(tmp_path: Path, kind: str) -> None:
    """Other headers are passed over; a first fragment has ports, a later one has none."""
    client, web = ((0x20010DB8 << 96) + 7, 40000), ((0xFD << 120) + 1, 80)
    v6 = [
        (0.0, ip6(client, web)),
        (0.5, ip6(web, client, HOP_BY_HOP, ROUTING, flags=SYN | ACK)),
        (1.0, ip6(client, web, HOP_BY_HOP, FIRST_FRAGMENT, flags=ACK, payload=100)),
        (1.1, ip6(client, web, SECOND_FRAGMENT, flags=ACK)),
        (1.2, ip6(client, web, (60, bytes([200]) + bytes(6)))),  # says to be longer than it is
        (1.3, ip6((client[0], 40001), web)[:50]),
    ]
    packets = [(at_s, bytes(12) + b"\x86\xdd" + packet) for at_s, packet in v6]
    path = written_as(tmp_path / "t.cap", sorted([*packets, (0.2, ethernet(tcp(A, WEB, SYN)))]), ng=kind == "pcapng")
    trace = read_trace(path, IPV6)
    assert about(seen(trace)) == [(halves(client[0]), halves(web[0]), 40000, 80, TCP, 0, 1_000_000, 60 + 84 + 176)]
    assert [note.partition(": ")[2] for note in trace.notes] == [
        "3 packets are no TCP or UDP over IPv6: they are left out",
        "1 packets are later fragments, which have no ports: they are left out",
    ]
    assert len(read_trace(path).flows.proto) == 1


def refused(path: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        read_trace(path)
    return str(caught.value)


@pytest.mark.parametrize("ng", [False, True])
def test_a_capture_that_lost_its_end_is_refused_by_the_packet(tmp_path: Path, ng: bool) -> None:
    frames = [(float(place), ethernet(tcp((CLIENT, place), WEB, SYN))) for place in range(1, 4)]
    path = written_as(tmp_path / "t.pcap", frames, ng=ng)
    whole = path.read_bytes()
    one = (len(whole) - len(written_as(tmp_path / "none.pcap", [], ng=ng).read_bytes())) // 3
    for lost, packet in ((1, 2), (one - 1, 2), (one + 5, 1), (3 * one - 3, 0)):
        path.write_bytes(whole[:-lost])
        words = refused(path)
        assert f"t.pcap: packet {packet}: can't be read as pcap or pcapng" in words
        assert "is the file whole?" in words
    path.write_bytes(whole[:-one])
    assert len(read_trace(path).flows.proto) == 2  # that is a whole capture


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "can't be read as pcap or pcapng"),
        (b"not a capture, but long enough to be one", "can't be read as pcap or pcapng: unknown pcap format"),
    ],
)
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "t.pcapng").write_bytes(content)
    assert words in refused(tmp_path / "t.pcapng")


@pytest.mark.parametrize("name", ["nothing.pcap", "nothing.arrow", "nothing.csv"])
def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path / name) == f"{tmp_path / name}: can't be read: No such file or directory"


def test_a_capture_without_connections_or_of_an_unknown_link_is_refused(tmp_path: Path) -> None:
    path = written_as(tmp_path / "t.cap", [(1.0, ethernet(tcp(A, WEB, ACK))), (1.0, b"short")])
    assert "holds no TCP connection from its SYN on, and no datagram of UDP, over IPv4" in refused(path)
    path = written_as(tmp_path / "u.cap", [(1.0, b"")], 147)
    assert "is of link type 147, which is not known here; these are: 0, 1, 12" in refused(path)


def test_measures_are_from_zero_on(tmp_path: Path) -> None:
    flows = random_flows(2)
    write_flows(flows, tmp_path / "t.arrow")
    assert read_trace(tmp_path / "t.arrow").arrival_ns is None
    for column, value in (("bytes", -1), ("arrival_ns", -5), ("duration_ns", 1 << 63)):
        values = pa.array([0, value], pa.uint64() if value > 0 else pa.int64())
        records.write(pa.table({**flows._asdict(), column: values}), tmp_path / "t.arrow")
        words = f"column {column}: row 1: is {value}; this column has whole numbers from 0 to {2**63 - 1}"
        assert words in refused(tmp_path / "t.arrow")


def queued(tmp_path: Path, trace: Path | None, **spec: Any) -> list[pa.Table]:
    """Rows of a run of queues but for the column of times, and what it said."""
    file = tmp_path / "made.yaml"
    file.write_text(
        text_of(**spec) if trace is None else text_of(trace=trace.name, connections=None, loads=None, **spec)
    )
    run = queues.run(file, tmp_path, console(), threading.Event())
    waits, active = queues.read(run.folder)
    return [table.replace_schema_metadata() for table in (waits.drop_columns("spent_ns"), active)]


@pytest.mark.skipif(INTERPRETED, reason="needs many connections")
def test_a_trace_of_made_connections_waits_as_they_do(tmp_path: Path) -> None:
    """Arrow and CSV, in any order; of the made ones all but the first tenth are counted, of the trace all."""
    spec, count = spec_of(shape="lognormal/1"), 3_000
    arrivals = arrivals_of(spec, spec.loads[0], count)
    flows = random_flows(count)
    table = pa.table({**flows._asdict(), "arrival_ns": arrivals.at_ns, "duration_ns": arrivals.lasts_ns})
    shuffled = table.take(np.random.default_rng(3).permutation(count))
    records.write(table, tmp_path / "t.arrow")
    pa.csv.write_csv(shuffled, tmp_path / "t.csv")
    first, second = (queued(tmp_path, tmp_path / name, algorithms=["rr", "peak-ewma"]) for name in ("t.arrow", "t.csv"))
    assert [one.equals(other) for one, other in zip(first, second, strict=True)] == [True, True]
    waits, active = first
    assert set(waits["connections"].to_pylist()) == {count}
    assert waits["load"][0].as_py() == pytest.approx(arrivals.lasts_ns.sum() / np.ptp(arrivals.at_ns) / 20)
    # Little's law: what all have on average is what comes by how long it stays.
    rr = active.filter(pc.equal(active["algorithm"], "rr"))
    stays_ns = waits["waited_ns"][0].as_py() + arrivals.lasts_ns.mean()
    assert 20 * np.mean(rr["active"].to_numpy()) == pytest.approx(count / np.ptp(arrivals.at_ns) * stays_ns, rel=0.15)


@pytest.mark.skipif(INTERPRETED, reason="needs many connections")
def test_a_capture_drives_a_run_of_queues(tmp_path: Path) -> None:
    """Three at once to one endpoint that serves one: they wait for each other, and what is left out is said."""
    frames = []
    for place in range(3):
        port = (CLIENT, 1000 + place)
        frames += [
            (place * 0.1, ethernet(tcp(port, WEB, SYN))),
            (place * 0.1 + 1.0, ethernet(tcp(port, WEB, FIN | ACK))),
        ]
    frames.append((2.0, ethernet(tcp((CLIENT, 7), WEB, ACK))))
    written_as(tmp_path / "t.pcap", sorted(frames))
    (tmp_path / "made.yaml").write_text(
        text_of(trace="t.pcap", connections=None, loads=None, endpoints=1, algorithms=["rr"])
    )
    done = CliRunner().invoke(bench, ["run", str(tmp_path / "made.yaml"), "--out", str(tmp_path), "-o", "json"])
    assert done.exit_code == 0, done.output
    assert "t.pcap: 1 packets are of connections that began before the capture" in done.stderr
    (row,) = json.loads(done.stdout)["queues"]
    assert row["flows"] == 3
    assert row["waited_ns"]["max"] == pytest.approx(1.8 * S, rel=1e-3)
    assert row["active"]["max"] == 3


def test_a_trace_that_does_not_say_when_is_refused(tmp_path: Path) -> None:
    write_flows(random_flows(5), tmp_path / "t.arrow")
    with pytest.raises(ScenarioError, match=r"spec\.trace: has no column arrival_ns and duration_ns"):
        queued(tmp_path, tmp_path / "t.arrow")


def test_imbalance_is_also_by_the_bytes_of_a_trace(tmp_path: Path) -> None:
    """A thousand flows of one byte and one of a thousand, by turns to two endpoints."""
    flows = random_flows(1001)._replace(dst_ip=np.full(1001, 0xAC100001, np.uint32))
    sizes = np.ones(1001, np.int64)
    sizes[500] = 1_000
    records.write(pa.table({**flows._asdict(), "bytes": sizes}), tmp_path / "t.arrow")
    file = written(tmp_path, algorithms=["rr"], balancers=1, services={"count": 1, "endpoints": 2})
    document = yaml.safe_load(file.read_text())
    del document["spec"]["flows"]
    document["spec"]["trace"] = "t.arrow"
    file.write_text(yaml.safe_dump(document))
    (phase,) = phases_of(result_of(file), "rr")
    assert phase["imbalance"]["max_over_mean"] == pytest.approx(501 / 500.5)
    assert phase["imbalance_by_bytes"]["max_over_mean"] == pytest.approx(1500 / 1000)


def test_shapes_are_known_by_name() -> None:
    assert Shape("constant").draw(np.random.default_rng(0), 2).tolist() == [1.0, 1.0]


def test_a_reader_of_captures_takes_no_short_read_for_an_end(tmp_path: Path) -> None:
    """What ``_Whole`` is there for: dpkt itself gives out half a packet."""
    path = written_as(tmp_path / "t.pcap", [(1.0, ethernet(tcp(A, WEB, SYN)))])
    half = io.BytesIO(path.read_bytes()[:-10])
    assert [len(packet) for _, packet in dpkt.pcap.Reader(half)] == [44]
