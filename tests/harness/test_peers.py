"""Peers: what they are told, that each carries what it says it does, and that nothing of them is left. No timing."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from harness import records
from harness.cli import bench
from harness.peers import cpu, rounds, summary, table
from harness.peers.client import percentiles
from harness.peers.haproxy import Haproxy
from harness.peers.nftables import Nftables
from harness.peers.nginx import Nginx
from harness.peers.peer import Peer
from harness.peers.process import Process, descendants, is_listening, on_core
from harness.peers.records import FILE, SCHEMA, Row, tabulate
from harness.peers.rounds import Cores, Effort
from harness.peers.scene import Scene, Target, compose
from harness.peers.workloads import WORKLOADS
from kernels.net import answers
from plane import fib, manifests
from plane.addresses import AddressPlan
from plane.errors import ManifestError, PlaneError
from tests import reference
from tests.harness.subjects import own_temporary_files
from tests.loopback import dial, eventually, receive

pytestmark = pytest.mark.syscalls

CONFIGS = Path(__file__).parents[2] / "configs" / "peers"
PEERS = rounds.peers()


def scene_of(plan: AddressPlan, change: tuple[str, str] = ("", ""), **metadata: Any) -> Scene:
    """The Scene of the benchmark's own manifests, moved to the addresses of a plan."""
    text = (CONFIGS / "service.yaml").read_text().replace("127.244.1.", str(plan.pods_of(1)[0])[:-1])
    assert change[0] in text
    objects = [row.object for row in _loaded(text.replace(*change) if change[0] else text)]
    for obj in objects:
        if obj["kind"] == "Service":
            obj["metadata"] |= metadata
    return compose(objects, plan, "service.yaml")


def _loaded(text: str) -> tuple[manifests.Manifest, ...]:
    return manifests.load(["-"], io.StringIO(text)).objects


@pytest.fixture(scope="module")
def scene(plan: AddressPlan) -> Scene:
    return scene_of(plan)


@pytest.fixture
def small(scene: Scene) -> tuple[Target, ...]:
    """The TCP and the UDP target of port 7000, with two of their backends."""
    found = {target.port_name: target for target in scene.targets}
    return tuple(replace(found[name], ip="127.96.1.1", backends=_two(found[name])) for name in ("small", "echo"))


def _two(target: Target) -> tuple[Any, ...]:
    places = zip(target.backends[:2], (("127.244.1.2", 1), ("127.244.1.3", 3)), strict=True)
    return tuple(replace(each, ip=ip, weight=weight) for each, (ip, weight) in places)


# What peers are told.


def test_every_peer_is_told_of_the_frontends_that_our_relay_has(scene: Scene) -> None:
    dumped = fib.dump(scene.fib())
    for target in scene.targets:
        assert f"{target.ip}:{target.port}/{target.protocol}\n" in dumped
        for each in target.backends:
            assert f"{each.ip}:{each.port}/{target.protocol}" in dumped
    assert len(scene.targets) == 5


def test_every_workload_has_a_port_in_the_manifests(scene: Scene) -> None:
    for workload in WORKLOADS:
        assert rounds.target_of(scene, workload).port_name == workload.port


def test_haproxy_is_told_what_the_manifests_say(small: tuple[Target, ...]) -> None:
    assert Haproxy().config(small[:1]) == (
        "global\n"
        "    nbthread 1\n"
        "    maxconn 4192\n"
        "defaults\n"
        "    mode tcp\n"
        "    option splice-auto\n"
        "    maxconn 4192\n"
        "    backlog 4096\n"
        "    timeout connect 5s\n"
        "    timeout client 1h\n"
        "    timeout server 1h\n"
        "listen default-peers-small\n"
        "    bind 127.96.1.1:7000\n"
        "    balance random(1)\n"
        "    server s0 127.244.1.2:8000 weight 1\n"
        "    server s1 127.244.1.3:8000 weight 3\n"
    )


def test_nginx_is_told_what_the_manifests_say(small: tuple[Target, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.peers.nginx._module", lambda: "/modules/ngx_stream_module.so")
    assert Nginx().config(small, "/folder") == (
        "load_module /modules/ngx_stream_module.so;\n"
        "daemon off;\n"
        "pid /folder/pid;\n"
        "error_log stderr warn;\n"
        "worker_processes 1;\n"
        "worker_rlimit_nofile 16000;\n"
        "events {\n"
        "    worker_connections 12000;\n"
        "}\n"
        "stream {\n"
        "    proxy_timeout 1h;\n"
        "    proxy_buffer_size 32k;\n"
        "    upstream default-peers-small {\n"
        "        random;\n"
        "        server 127.244.1.2:8000 weight=1 max_fails=0;\n"
        "        server 127.244.1.3:8000 weight=3 max_fails=0;\n"
        "    }\n"
        "    server {\n"
        "        listen 127.96.1.1:7000 backlog=4096;\n"
        "        proxy_pass default-peers-small;\n"
        "    }\n"
        "    upstream default-peers-echo {\n"
        "        random;\n"
        "        server 127.244.1.2:8000 weight=1 max_fails=0;\n"
        "        server 127.244.1.3:8000 weight=3 max_fails=0;\n"
        "    }\n"
        "    server {\n"
        "        listen 127.96.1.1:7000 udp;\n"
        "        proxy_pass default-peers-echo;\n"
        "    }\n"
        "}\n"
    )


def test_nftables_is_told_as_kube_proxy_would(small: tuple[Target, ...]) -> None:
    even = tuple(replace(each, weight=1) for each in small[0].backends)
    assert Nftables().config((replace(small[0], backends=even),)) == (
        "table ip kube-proxy {\n"
        "  map service-ips {\n"
        "    type ipv4_addr . inet_proto . inet_service : verdict\n"
        "    elements = {\n"
        "      10.96.1.1 . tcp . 7000 : goto service-default-peers-small\n"
        "    }\n"
        "  }\n"
        "  chain endpoint-0-default-peers-small {\n"
        "    meta l4proto tcp dnat to 10.244.1.2:8000\n"
        "  }\n"
        "  chain endpoint-1-default-peers-small {\n"
        "    meta l4proto tcp dnat to 10.244.1.3:8000\n"
        "  }\n"
        "  chain service-default-peers-small {\n"
        "    numgen random mod 2 vmap { 0 : goto endpoint-0-default-peers-small,"
        " 1 : goto endpoint-1-default-peers-small }\n"
        "  }\n"
        "  chain services {\n"
        "    ip daddr . meta l4proto . th dport vmap @service-ips\n"
        "  }\n"
        "  chain nat-prerouting {\n"
        "    type nat hook prerouting priority dstnat; policy accept;\n"
        "    jump services\n"
        "  }\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ("random", ("random(1)", "        random;\n", "numgen random")),
        ("rr", ("roundrobin", "", "numgen inc")),
        ("lc", ("leastconn", "        least_conn;\n", "")),
        ("maglev", ("", "", "")),
    ],
)
def test_the_algorithm_of_the_service_is_passed_on_or_refused(
    small: tuple[Target, ...], algorithm: str, words: tuple[str, str, str]
) -> None:
    even = tuple(replace(each, weight=1) for each in small[0].backends)
    target = replace(small[0], algorithm=algorithm, backends=even)
    subjects: tuple[Any, ...] = (Haproxy(), Nginx(), Nftables())
    for peer, word in zip(subjects, words, strict=True):
        refused = peer.refuses(target)
        if refused:
            assert (word, f"no {algorithm}" in refused) == ("", True)
        else:
            assert word in (peer.config((target,), "/f") if isinstance(peer, Nginx) else peer.config((target,)))
    assert bool(Nginx().refuses(target)) == (algorithm == "maglev")


def test_weights_are_refused_where_kube_proxy_knows_none(small: tuple[Target, ...]) -> None:
    assert Nftables().refuses(small[0]) == "kube-proxy knows no weights"
    assert Haproxy().refuses(small[1]) == "HAProxy has no UDP"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            ("  ports:\n    - name: small", "  sessionAffinity: ClientIP\n  ports:\n    - name: small"),
            "sessionAffinity",
        ),
        (("kubernetes.io/service-name: peers", "kubernetes.io/service-name: other"), "spec.ports[small]: no ready"),
        (
            ("metadata:\n  name: peers\nspec:", "metadata:\n  name: peers\nspec:\n  clusterIP: None"),
            "no Service with a",
        ),
    ],
)
def test_what_not_every_peer_can_do_is_refused(plan: AddressPlan, change: tuple[str, str], problem: str) -> None:
    with pytest.raises(ManifestError) as error:
        scene_of(plan, change)
    assert problem in str(error.value)


def test_a_workload_without_its_port_is_named(plan: AddressPlan) -> None:
    scene = scene_of(plan, ("name: echo", "name: other"))
    with pytest.raises(ManifestError, match="no Service has a UDP port named echo, for udp 64"):
        rounds.target_of(scene, WORKLOADS[-1])


# That each carries.


@pytest.fixture(scope="module")
def places() -> Cores:
    return rounds.cores()


@contextlib.contextmanager
def lone(peer: Peer, scene: Scene, places: Cores) -> Iterator[Process]:
    """The peer up with client and backends; skipped where the machine lacks something."""
    if reason := peer.lacks():
        pytest.skip(reason)
    with rounds.running(peer, scene, places) as client:
        yield client


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_carries_every_workload_it_does_not_refuse(name: str, scene: Scene) -> None:
    """Small amounts of each: fewer connections, a few tenths of a second."""
    peer = PEERS[name]
    if reason := peer.lacks():
        pytest.skip(reason)
    fewer = tuple(replace(workload, connections=min(workload.connections, 40)) for workload in WORKLOADS)
    for seconds in (0.2, 2.0):  # in a short time a busy machine may not come to answer anybody
        rows = list(rounds.measure([peer], scene, Effort(1, seconds, 0.05, fewer)))
        if not any(row.error for row in rows):
            break
    assert {row.workload: row.error for row in rows if row.error} == {}
    assert [row.workload for row in rows] == [each.name for each in rounds.carried(peer, scene, Effort())]
    assert len(rows) == (7 if name == "haproxy" else 8)
    for row in rows:
        assert row.answered
        assert row.duration_ns
        assert row.p50_ns
        assert row.p99_ns
        assert row.p50_ns <= row.p99_ns <= (row.max_ns or 0)
        assert (row.cpu_ns is None) == (name in ("direct", "nftables", "routed"))
        assert row.cpu_ns is None or 0 < row.cpu_ns < 2 * row.duration_ns


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_that_is_stopped_leaves_nothing(name: str, scene: Scene, places: Cores) -> None:
    peer = PEERS[name]
    before = descendants(os.getpid())
    with own_temporary_files() as folder:
        with lone(peer, scene, places):
            pids = peer.pids()
            for pid in pids:
                assert os.sched_getaffinity(pid) == {places.subject}
            holders = [int(word) for word in peer.ground().client if word.isdecimal()]
            assert name not in ("relay", "haproxy", "nginx") or all(_listens(scene, peer))
        assert not any(Path(f"/proc/{pid}").exists() for pid in (*pids, *holders))
        assert {*descendants(os.getpid())} <= {*before}
        assert peer.pids() == ()
        assert not any(_listens(scene, peer))
        assert not list(folder.glob(f"trafficplane-{name}-*"))


def _listens(scene: Scene, peer: Peer) -> list[bool]:
    return [
        is_listening(target.protocol, target.ip, target.port) for target in scene.targets if not peer.refuses(target)
    ]


@pytest.mark.parametrize("name", ["direct", "relay", "haproxy", "nginx"])
def test_the_bytes_through_a_peer_are_right_as_plain_python_sees_them(name: str, scene: Scene, places: Cores) -> None:
    """What the client checks in compiled code, once by hand."""
    block = answers.create_block().tobytes()
    target = next(target for target in scene.targets if target.port_name == "64-kib")
    with lone(PEERS[name], scene, places):
        for number in range(4):
            with dial(PEERS[name].reach(target)[0]) as client:
                client.sendall(reference.answer(block, number, 64))
                assert receive(client, 1 << 16) == reference.answer(block, number, 1 << 16)


def test_a_peer_that_does_not_start_is_an_error_in_every_row(scene: Scene) -> None:
    """Another process has the port: the reason is in the rows, and other subjects go on."""
    target = scene.targets[0]
    peer = PEERS["haproxy"]
    if reason := peer.lacks():
        pytest.skip(reason)
    effort = Effort(1, 0.5, 0.0, WORKLOADS[:1])
    with socket.create_server((target.ip, target.port)):
        (row,) = rounds.measure([peer], scene, effort)
    assert row.error
    assert "haproxy: ended with 1" in row.error
    assert "cannot bind socket" in row.error
    (row,) = rounds.measure([peer], scene, effort)
    assert row.error is None


def test_a_wrong_answer_is_an_error_and_no_number(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "ANSWER_BYTES", dict.fromkeys(rounds.ANSWER_BYTES, 80))
    (row,) = rounds.measure([PEERS["direct"]], scene, Effort(1, 0.5, 0.0, WORKLOADS[3:4]))
    assert (row.answered, row.duration_ns, row.p50_ns) == (None, None, None)
    assert row.error
    assert "WRONG" in row.error


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    assert "pip install 'trafficplane[peers]'" in Haproxy().lacks()
    assert "apt install nginx-light libnginx-mod-stream" in Nginx().lacks()
    assert "nft (apt install nftables)" in Nftables().lacks()


def test_without_root_nftables_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool, **_: f"/bin/{tool}")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in Nftables().lacks()


# Processes and their CPU.


def test_a_process_that_ends_says_why() -> None:
    process = Process([sys.executable, "-c", "import sys; sys.exit('no such luck')"], rounds.cores().others)
    with pytest.raises(PlaneError, match="ended with 1; it said: no such luck"):
        process.line()
    process.end()


def test_threads_that_end_while_they_are_looked_at_are_passed_over() -> None:
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            threads = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(8)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()

    coming = threading.Thread(target=come_and_go)
    coming.start()
    try:
        with subprocess.Popen(["sleep", "1000"]) as child:
            for _ in range(1000):
                assert cpu.of_processes([os.getpid()]) > 0
                assert child.pid in descendants(os.getpid())
            child.kill()
    finally:
        over.set()
        coming.join()


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_process_runs_on_its_core_and_ends_with_its_children() -> None:
    core = rounds.cores().others
    script = "sleep 1000 & echo $!; wait"
    process = Process(["sh", "-c", script], core)
    child = int(process.line())
    assert os.sched_getaffinity(process.pid) == {core}
    assert descendants(process.pid) == [child]
    process.end()
    assert not Path(f"/proc/{process.pid}").exists()
    eventually(lambda: has_ended(child))
    assert len(os.sched_getaffinity(0)) > 1


def test_cpu_of_a_process_that_works_grows_and_of_one_that_waits_does_not() -> None:
    core = rounds.cores().others
    busy = Process([sys.executable, "-c", "print('up', flush=True)\nwhile True: pass"], core)
    idle = Process([sys.executable, "-c", "print('up', flush=True); input()"], core)
    try:
        assert (busy.line(), idle.line()) == ("up", "up")
        eventually(lambda: cpu.of_processes([busy.pid]) > 300_000_000)
        assert cpu.of_processes([idle.pid]) < 200_000_000
        assert cpu.of_processes([busy.pid, idle.pid]) >= cpu.of_processes([idle.pid]) + 300_000_000
        assert cpu.of_core(core) > 300_000_000
    finally:
        busy.end()
        idle.end()


def test_listeners_are_seen_without_a_connection(plan: AddressPlan) -> None:
    address = str(plan.pods_of(1)[77])
    assert not is_listening("TCP", address, 7400)
    with socket.create_server((address, 7400)) as listener:
        assert is_listening("TCP", address, 7400)
        assert not is_listening("UDP", address, 7400)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_on_core_is_over_when_it_is_left() -> None:
    before = os.sched_getaffinity(0)
    with on_core(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


# What the rows say.


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles(np.arange(1, 101)[::-1].copy()) == (50, 99, 100)
    assert percentiles(np.array([7])) == (7, 7, 7)
    assert percentiles(np.array([3, 1])) == (1, 3, 3)
    assert percentiles(np.array([], np.int64)) == (0, 0, 0)


def row(
    subject: str, number: int, answered: int, cpu_us: float = 10, *, error: str = "", unit: str = "requests"
) -> Row:
    """One second of ``kept 64``."""
    described = subject, "kept 64", number, 1, 64, unit, 64
    if error:
        return Row(*described, error=error)
    spent = None if subject == "direct" else int(answered * cpu_us * 1000)
    return Row(*described, answered, 10**9, spent, 5 * 10**8, 1000 * number, 2000 * number, 3000)


def summed(*rows: Row) -> dict[str, Any]:
    facts = {
        "run": "r",
        "rounds": "3",
        "seconds": "1",
        "interrupted": "false",
        "cpu": "a processor",
        "kernel": "6.1",
        "placement": json.dumps({"subject": 0, "others": 1, "siblings": True}),
        "peers": json.dumps({name: f"{name} 1" for name in dict.fromkeys(row.subject for row in rows)}),
    }
    return summary.summarise(tabulate(rows, facts))


ROWS = (
    *(row("direct", number, answered) for number, answered in ((1, 1000), (2, 2000), (3, 4000))),
    *(row("relay", number, answered, 8) for number, answered in ((1, 500), (2, 800), (3, 2400))),
    *(row("haproxy", number, answered, 12) for number, answered in ((1, 400), (2, 1000), (3, 2000))),
)


def cell(found: dict[str, Any], subject: str) -> dict[str, Any]:
    return next(each for each in found["rows"] if each["subject"] == subject)


def test_ratios_are_of_one_round_and_their_median_is_given() -> None:
    relay = cell(summed(*ROWS), "relay")
    assert relay["rate"] == {"median": 800, "lowest": 500, "highest": 2400}
    assert relay["ratio"] == 0.5  # of 0.5, 0.4 and 0.6; the medians' ratio would be 0.4
    assert (relay["cpu_us"], relay["core_busy"], relay["p50_ns"], relay["p99_ns"]) == (8, 0.5, 2000, 4000)
    assert cell(summed(*ROWS), "direct")["cpu_us"] is None
    assert cell(summed(*ROWS), "direct")["ratio"] == 1


def test_the_relay_is_held_against_haproxy_and_told_by_how_much_it_is_short() -> None:
    (beside,) = summed(*ROWS)["beside"]
    assert beside["rate"] == 1.2  # of 1.25, 0.8 and 1.2
    assert beside["cpu"] == 1.5
    assert beside["short"] == {"rate": 0, "cpu": 0}
    slower = [
        replace(each, answered=each.answered // 2, cpu_ns=each.cpu_ns) for each in ROWS if each.subject == "relay"
    ]
    others = [each for each in ROWS if each.subject != "relay"]
    (beside,) = summed(*others, *slower)["beside"]
    assert beside["short"]["rate"] == pytest.approx(0.4)
    assert beside["short"]["cpu"] == pytest.approx(1 - 0.75 / 1.2)


def test_one_error_leaves_no_number_and_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = summed(*ROWS, row("haproxy", 4, 0, error="3 WRONG"))
    assert cell(found, "haproxy")["errors"] == {"3 WRONG": 1}
    assert "rate" not in cell(found, "haproxy")
    assert found["beside"] == []
    assert found["errors"] == 1
    assert "| kept 64 | haproxy | error: 3 WRONG |" in table.markdown(found)


def test_bulk_is_counted_in_bytes_a_second() -> None:
    found = summed(row("direct", 1, 1000, unit="bytes"))
    assert cell(found, "direct")["rate"]["median"] == 64_000
    assert table.rate_text("bytes", 2.5e9) == "2.50 GB/s"
    assert table.rate_text("requests", 12345.6) == "12,346/s"


def test_the_table_reads_as_expected() -> None:
    assert table.markdown(summed(*ROWS)) == (
        "<!-- Written by `plane bench peers --write`; changes here are lost. -->\n"
        "\n"
        "peers r: medians of 3 rounds, 1 s each.\n"
        "\n"
        "| workload | subject | rate | lowest to highest | × direct | CPU, an answer | core busy | p50 | p99 |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| kept 64 | direct | 2,000/s | 1,000/s to 4,000/s | 1.00 |  | 50% | 2.00 µs | 4.00 µs |\n"
        "| kept 64 | relay | 800/s | 500/s to 2,400/s | 0.50 | 8.0 µs | 50% | 2.00 µs | 4.00 µs |\n"
        "| kept 64 | haproxy | 1,000/s | 400/s to 2,000/s | 0.50 | 12.0 µs | 50% | 2.00 µs | 4.00 µs |\n"
        "\n"
        "`relay` beside `haproxy`:\n"
        "\n"
        "| workload | rate | answers for the same CPU | short of the goal |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| kept 64 | 1.20 × | 1.50 × | met (rate 1 ×, CPU 1.2 ×) |\n"
        "\n"
        "- versions: direct direct 1, relay relay 1, haproxy haproxy 1\n"
        "- subject on core 0; client and backends share core 1, the other thread of the same core\n"
        "- a processor, Linux 6.1\n"
    )


def test_every_column_is_in_the_docs() -> None:
    text = (CONFIGS.parents[1] / "docs" / "peers.md").read_text()
    for field in SCHEMA:
        assert f"| `{field.name}` | {field.type}" in text


# The command.


def invoke(tmp_path: Path, *words: str) -> Any:
    return CliRunner().invoke(bench, ["peers", "-f", str(CONFIGS), "--out", str(tmp_path / "out"), *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "haprxy"), "'haprxy': choose from direct, relay, haproxy, nginx, nftables, routed"),
        (("--workload", "kept 2"), "'kept 2': choose from kept 1, kept 64"),
        (("--rounds", "0"), "--rounds"),
        (("-f", "nowhere"), "there is no such file"),
    ],
)
def test_bad_input_is_named_and_nothing_runs(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = invoke(tmp_path, *words)
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_a_quick_run_leaves_its_rows_its_table_and_its_summary(tmp_path: Path) -> None:
    written = tmp_path / "peers-table.md"
    result = invoke(
        tmp_path, "--quick", "--only", "direct", "--workload", "kept 1", "-o", "json", "--write", str(written)
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    folder = Path(said.pop("results"))
    assert folder.parent == tmp_path / "out" / "peers"
    assert json.loads((folder / "summary.json").read_text()) == said
    assert (folder / "table.md").read_text() == written.read_text()
    with pa.ipc.open_file(folder / FILE) as reader:
        rows = reader.read_all()
    assert rows.schema.equals(SCHEMA)
    assert summary.summarise(rows) == said
    assert records.provenance_of(rows)["schema"] == "peers/1"
    assert [each["subject"] for each in said["rows"]] == ["direct"]


def test_where_nothing_can_be_compared_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Haproxy, "lacks", lambda self: "no haproxy found; install it")
    result = invoke(tmp_path, "--quick", "--only", "haproxy")
    assert result.exit_code == 1
    assert "haproxy is skipped: no haproxy found; install it" in result.output
    assert "nothing to compare" in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_what_runs_and_keeps_what_it_has(tmp_path: Path, number: signal.Signals) -> None:
    for name in ("nginx", "nftables"):
        if reason := PEERS[name].lacks():
            pytest.skip(reason)
    command = [
        str(Path(sys.executable).with_name("plane")),
        "bench",
        "peers",
        "-f",
        str(CONFIGS),
        "--out",
        str(tmp_path),
    ]
    more = ["--only", "nginx", "--only", "nftables", "--workload", "kept 1", "--seconds", "0.2"]
    with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = iter(process.stderr.readline, "")
        assert any("nginx, kept 1" in line for line in lines)
        eventually(lambda: len(descendants(process.pid)) >= 2)
        children = descendants(process.pid)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 130
    assert "interrupted: this was measured until then" in printed
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    (folder,) = (tmp_path / "peers").iterdir()
    assert (folder / FILE).exists()
