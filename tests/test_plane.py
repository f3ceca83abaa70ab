"""The whole plane as people use it: commands in processes of their own, Ray below, real sockets, real signals."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.query
import pyarrow as pa
import pytest

import harness
from harness.records import provenance_of
from kernels import cache
from plane.addresses import AddressPlan

pytestmark = [pytest.mark.ray, pytest.mark.syscalls]
ROOT = Path(__file__).parent.parent
PLANE = str(Path(sys.executable).parent / "plane")
RAY = str(Path(sys.executable).parent / "ray")
START_S = 240.0  # it compiles, where nobody has before
PATIENCE_S = 120.0  # with Ray on a machine that has much else to do


class Running:
    """A plane that ``plane up`` runs, its ready file, and its commands."""

    def __init__(self, process: subprocess.Popen[str], home: Path, plan: AddressPlan):
        self.process = process
        self.home = home
        self.plan = plan
        self.environment = environment(home)

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """What a command prints; it must exit with that code."""
        done = subprocess.run(
            [PLANE, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            cwd=ROOT,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def get(self, *arguments: str) -> dict:
        return json.loads(self("get", *arguments, "-o", "json"))

    def fetch(self, address: str, port: int, path: str = "/hostname", host: str = "example.com") -> tuple[int, str]:
        connection = http.client.HTTPConnection(address, port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def via_ingress(self) -> tuple[int, str]:
        return self.fetch(self.plan.vip(1), self.plan.bound_port(80))

    def pods(self) -> list[dict]:
        return self.get("pods", "-l", "app=my-app")["items"]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "TRAFFICPLANE_KUBECONFIG": str(home / "config")}


def eventually(met: Callable[[], object], within_s: float = PATIENCE_S) -> object:
    """The first true answer, asked for again and again; fails after the time with the last answer."""
    deadline = time.monotonic() + within_s
    while not (answer := met()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {met}"
        time.sleep(0.05)
    return answer


def processes_of(group: int) -> dict[int, str]:
    """pid → command of every process of that session, Ray's included."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == group:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (ProcessLookupError, FileNotFoundError):
                continue
    return found


def left_over(before: set[str], plan: AddressPlan) -> list[str]:
    """Shared memory and listeners that were not there before."""
    files = [name for name in os.listdir("/dev/shm") if name not in before]
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    addresses = [row.split()[1] for row in rows if row.split()[3] == "0A"]
    prefixes = tuple(
        f"{int(str(span).split('.')[1]):02X}7F" for span in (plan.nodes, plan.pods, plan.cluster_ips, plan.vips)
    )
    return files + [address for address in addresses if address[4:8] in prefixes]


@pytest.fixture
def start(tmp_path: Path, plan: AddressPlan) -> Iterator[Callable[..., Running]]:
    """Starts ``plane up`` in a session of its own; what is left of it at the end fails the test."""
    before = set(os.listdir("/dev/shm"))
    started: list[Running] = []

    def up(*arguments: str, ready: bool = True) -> Running:
        ready_file = tmp_path / "ready.json"
        log = (tmp_path / "log").open("w")
        process = subprocess.Popen(
            [PLANE, "up", *arguments, "--instance", str(plan.instance), "--ready-file", str(ready_file)],
            cwd=ROOT,
            env=environment(tmp_path),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running = Running(process, tmp_path, plan)
        started.append(running)
        if ready:
            eventually(lambda: ready_file.exists() or process.poll() is not None, START_S)
            assert ready_file.exists(), (tmp_path / "log").read_text()
        return running

    yield up
    for running in started:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            try:
                running.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                for pid in processes_of(running.process.pid):
                    os.kill(pid, signal.SIGKILL)
                raise
        eventually(lambda pid=running.process.pid: not processes_of(pid))
        assert not (running.home / "config").exists()
    with contextlib.suppress(AssertionError):  # the comparison below says more
        eventually(lambda: not left_over(before, plan))  # files of others, which come and go
    assert left_over(before, plan) == []


def test_the_tour_up_get_apply_scale_explain_delete_and_away(start, tmp_path):
    plane = start("-f", "configs/quickstart", "--nodes", "3")
    ready = json.loads((tmp_path / "ready.json").read_text())
    assert ready["kind"] == "List"
    kinds = {item["kind"] for item in ready["items"]}
    assert {"Node", "Pod", "Service", "Ingress", "Deployment", "EndpointSlice"} <= kinds
    [ingress] = [item for item in ready["items"] if item["kind"] == "Ingress"]
    [where] = ingress["status"]["loadBalancer"]["ingress"]
    assert where["ip"] == plane.plan.vip(1)
    assert [port["port"] for port in where["ports"]] == [plane.plan.bound_port(80), plane.plan.bound_port(443)]
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o600

    pods = plane.pods()
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node-1", "node-2", "node-3"]
    names = {pod["metadata"]["name"] for pod in pods}
    service = plane.get("service", "my-service")
    for address in (plane.plan.vip(1), service["spec"]["clusterIP"]):
        answers = [plane.fetch(address, plane.plan.bound_port(80)) for _ in range(40)]
        assert {status for status, _ in answers} == {200}
        assert {body for _, body in answers} == names

    question = dns.message.make_query("my-service.default.svc.cluster.local", "A")
    for ask in (dns.query.udp, dns.query.tcp):
        found = ask(question, plane.plan.dns, port=plane.plan.bound_port(53), timeout=PATIENCE_S)
        assert [row.address for row in found.answer[0]] == [service["spec"]["clusterIP"]]
    assert f"dns       {plane.plan.dns}:{plane.plan.bound_port(53)}" in (tmp_path / "log").read_text()

    assert "my-service" in plane("get", "all")
    assert "deployment.apps/my-app scaled" in plane("scale", "deployment", "my-app", "--replicas", "5")
    eventually(lambda: len({plane.via_ingress()[1] for _ in range(30)}) == 5)
    more = (ROOT / "configs/quickstart/service.yaml").read_text().replace("my-service", "second")
    assert "service/second created" in plane("apply", "-f", "-", stdin=more)
    assert plane.get("service", "second")["spec"]["clusterIP"] != service["spec"]["clusterIP"]
    assert "Endpoints" in plane("describe", "service", "second")
    assert 'service "second" deleted' in plane("delete", "service", "second")
    assert "NotFound" in plane("get", "service", "second", code=1)

    broken = more.replace("port: 80", "port: 99999")
    before = asked_for(plane.get("all", "-A"))
    message = plane("apply", "-f", "-", stdin=broken, code=2)
    assert "Service default/second: spec.ports[0].port" in message
    assert asked_for(plane.get("all", "-A")) == before

    plane("delete", "-f", "configs/quickstart")
    eventually(lambda: not plane.get("pods")["items"])


def asked_for(found: dict) -> list[tuple[str, str, object]]:
    """What people have written of a List's objects, and not what the plane says of them, which may change any time."""
    return [(row["kind"], row["metadata"]["name"], row.get("spec")) for row in found["items"]]


def test_a_killed_node_costs_its_pods_some_seconds_and_nobody_else(start):
    plane = start("-f", "configs/quickstart", "--nodes", "3")
    victims = [pid for pid, command in processes_of(plane.process.pid).items() if re.search(r"ray::NodeActor", command)]
    assert len(victims) == 3
    service = plane.get("service", "my-service")["spec"]["clusterIP"]
    kept = [http.client.HTTPConnection(service, plane.plan.bound_port(80), timeout=PATIENCE_S) for _ in range(24)]
    assert [fetched(connection)[0] for connection in kept] == [200] * 24
    carried = {row["client"]: row for row in json.loads(plane("connections", "-o", "json"))["items"]}
    rows = [carried["{}:{}".format(*connection.sock.getsockname())] for connection in kept]
    os.kill(victims[0], signal.SIGKILL)
    gone = eventually(lambda: [pod for pod in plane.pods() if not is_ready(pod)])
    assert len(gone) == 1
    lost = gone[0]["metadata"]["name"]
    spared = [row["node"] != gone[0]["spec"]["nodeName"] and row["pod"] != f"default/{lost}" for row in rows]
    assert [fetched(connection)[0] == 200 for connection in kept] == spared
    assert {True, False} == set(spared)
    for connection in kept:
        connection.close()
    # Once the tables say so, only the others are asked, and every request is answered.
    answers = []
    while not all(is_ready(pod) for pod in plane.pods()):
        answers.append(plane.via_ingress())
        assert len(answers) < 10_000
    assert {status for status, _ in answers} == {200}
    eventually(lambda: lost in {plane.via_ingress()[1] for _ in range(12)})
    [back] = [pod for pod in plane.pods() if pod["metadata"]["name"] == lost]
    assert back["status"]["containerStatuses"][0]["restartCount"] == 1


def fetched(connection: http.client.HTTPConnection) -> tuple[int, str]:
    """Status and body of one more request on a connection; 0 where it is broken."""
    try:
        connection.request("GET", "/hostname", headers={"Host": "example.com"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)


def test_a_killed_ingress_is_started_again_and_the_terminal_says_so(start, tmp_path):
    plane = start("-f", "configs/quickstart", "--nodes", "1", "--gateway-threads", "2")
    [victim] = [pid for pid, command in processes_of(plane.process.pid).items() if "ray::IngressActor" in command]
    assert os.getpriority(os.PRIO_PROCESS, victim) == os.getpriority(os.PRIO_PROCESS, plane.process.pid)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: "ingress-1 is back" in (tmp_path / "log").read_text())
    assert plane.via_ingress()[0] == 200
    assert "ingress-1 is lost, it is started again" in (tmp_path / "log").read_text()


def test_scaling_3_6_2_under_load_fails_no_request(start):
    plane = start("-f", "configs/quickstart", "--nodes", "3")
    service = plane.get("service", "my-service")["spec"]["clusterIP"]
    results: list[tuple[int, str]] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def client(address: str) -> None:
        while not done.is_set():
            try:
                results.append(plane.fetch(address, plane.plan.bound_port(80)))
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)

    clients = [threading.Thread(target=client, args=(address,)) for address in (plane.plan.vip(1), service)]
    for thread in clients:
        thread.start()
    try:
        for replicas in ("6", "2"):
            plane("scale", "deployment", "my-app", "--replicas", replicas)
            eventually(lambda replicas=replicas: len(plane.pods()) == int(replicas))
            eventually(lambda: all(is_ready(pod) for pod in plane.pods()))
            seen = len(results)
            eventually(lambda seen=seen: len(results) > seen + 50)
    finally:
        done.set()
        for thread in clients:
            thread.join()
    assert failures == []
    assert {status for status, _ in results} == {200}
    assert len({body for _, body in results}) == 6


def is_ready(pod: dict) -> bool:
    return any(row["type"] == "Ready" and row["status"] == "True" for row in pod["status"].get("conditions", ()))


def test_ctrl_c_ends_everything_also_when_ray_hears_it_too(start):
    plane = start("-f", "configs/quickstart", "--nodes", "2")
    commands = processes_of(plane.process.pid).values()
    assert any("gcs_server" in command for command in commands)
    assert not any("monitor.py" in command for command in commands), "they would work for nobody"
    os.killpg(plane.process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    assert plane.process.wait(PATIENCE_S) == 0


def test_sigterm_while_it_starts_leaves_nothing(start, tmp_path):
    plane = start("-f", "configs/quickstart", "--nodes", "2", ready=False)
    eventually(lambda: any("gcs_server" in command for command in processes_of(plane.process.pid).values()))
    plane.process.send_signal(signal.SIGTERM)
    eventually(lambda: "stopping: what is starting is ended first" in (tmp_path / "log").read_text())
    assert plane.process.wait(PATIENCE_S) == 128 + signal.SIGINT
    assert "local IP" not in (tmp_path / "log").read_text()  # what Ray complains of without a network
    eventually(lambda: not processes_of(plane.process.pid))  # the ended are counted until somebody has waited for them


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kind: Service\n  bad: [", "manifest.yaml:2:"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selektor: {a: b}, ports: [{port: 80}]}\n",
            "spec.selektor",
        ),
    ],
    ids=["broken YAML", "an unknown field"],
)
def test_bad_input_starts_nothing_and_is_named(start, tmp_path, text, named):
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(text)
    plane = start("-f", str(manifest), ready=False)
    assert plane.process.wait(PATIENCE_S) == 2
    log = (tmp_path / "log").read_text()
    assert named in log
    assert "Traceback" not in log


def test_a_port_that_is_taken_is_named_and_leaves_nothing(start, tmp_path, plan):
    import socket

    with socket.create_server((plan.vip(1), plan.bound_port(80))):
        plane = start("-f", "configs/quickstart", ready=False)
        assert plane.process.wait(START_S) == 1
    assert f"{plan.vip(1)}:{plan.bound_port(80)}" in (tmp_path / "log").read_text()


def test_nobody_without_the_token_gets_in(start, tmp_path):
    import ssl
    import urllib.request

    start("-f", "configs/quickstart", "--nodes", "1")
    config = json.loads((tmp_path / "config").read_text())
    server = config["clusters"][0]["cluster"]["server"]
    context = ssl._create_unverified_context()
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(urllib.request.Request(f"{server}/api/v1/pods", headers=headers), context=context)


SHORT = {"rate: 500/s": "rate: 200/s", "duration: 10s": "duration: 2s"}


def short_scenario(folder: Path) -> Path:
    """The quickstart, two seconds long, all of which count."""
    text = re.sub(r" +warmUp: .*\n", "", (ROOT / "configs/quickstart.yaml").read_text())
    for old, new in SHORT.items():
        text = text.replace(old, new)
    text = text.replace("p99: 100ms", "p99: 30s")  # how fast it is here is no matter of this test
    shutil.copytree(ROOT / "configs/quickstart", folder / "quickstart")
    scenario = folder / "quickstart.yaml"
    scenario.write_text(text)
    return scenario


def rows_of(folder: Path) -> pa.Table:
    [file] = folder.glob("quickstart/*/requests.arrow")
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_file(source).read_all()


def check_rows(table: pa.Table) -> None:
    rows = table.to_pylist()
    ingress = [row for row in rows if row["load"] == "via-ingress"]
    assert len(ingress) == 400
    assert {row["status"] for row in rows} == {200}
    assert {row["error"] for row in rows} == {None}
    for load in ("via-ingress", "via-clusterip"):
        mine = [row for row in rows if row["load"] == load]
        assert {row["service"] for row in mine} == {"default/my-service:80"} or {row["service"] for row in mine} == {
            "default/my-service"
        }
        assert all(row["pod"] for row in mine)
        assert all(row["intended_ns"] <= row["sent_ns"] <= row["first_byte_ns"] <= row["done_ns"] for row in mine)
    assert len({row["pod"] for row in rows}) == 3
    assert {row["node"] for row in rows} == {"node-1", "node-2", "node-3"}


def test_a_benchmark_has_a_row_for_every_request_and_every_pod_served(tmp_path, plan):
    scenario = short_scenario(tmp_path)
    done = subprocess.run(
        [
            PLANE,
            "bench",
            "run",
            str(scenario),
            "--out",
            str(tmp_path / "out"),
            "--instance",
            str(plan.instance),
            "-o",
            "json",
        ],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    table = rows_of(tmp_path / "out")
    check_rows(table)
    assert sum(load["scheduled"] for load in summary["loads"]) == table.num_rows
    assert sum(row["answered"] for row in summary["pods"]) == table.num_rows


def test_a_missed_objective_exits_with_1(tmp_path, plan):
    scenario = short_scenario(tmp_path)
    text = scenario.read_text()
    assert "p99: 30s" in text
    scenario.write_text(text.replace("p99: 30s", "p50: 1us"))
    done = subprocess.run(
        [PLANE, "bench", "run", str(scenario), "--out", str(tmp_path / "out"), "--instance", str(plan.instance)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 1, done.stderr
    assert "missed" in done.stdout


@dataclass(frozen=True)
class Head:
    """A local head of Ray with its dashboard, and what jobs in it are submitted with."""

    address: str
    settings: dict[str, str]
    folder: Path

    def job(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``ray job`` with these words, and those that say where."""
        verb, *rest = words
        return subprocess.run(
            [RAY, "job", verb, "--address", self.address, *rest],
            env=self.settings,
            capture_output=True,
            text=True,
            timeout=240,
            cwd=self.folder,
        )


@contextlib.contextmanager
def ray_head(tmp_path: Path) -> Iterator[Head]:
    """One with a token of its own; jobs run in what a clone has."""
    home = tmp_path / "home"
    home.mkdir()
    settings = {
        **environment(tmp_path),
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_TMPDIR": "/tmp",
        "TRAFFICPLANE_CACHE": str(cache.directory().parent),  # the job's copy of the sources compiles nothing anew
    }
    start_options = [
        "--num-cpus=2",
        "--object-store-memory=268435456",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
        # Ports of its own choice, so that another Ray on this machine is in nobody's way.
        *(f"--{name}=0" for name in ("port", "dashboard-port", "dashboard-agent-listen-port")),
    ]
    subprocess.run([RAY, "get-auth-token", "--generate"], env=settings, check=True, capture_output=True, timeout=180)
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", *start_options],
        env=settings,
        stdout=(tmp_path / "head").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        address = eventually(lambda: dashboard_of(tmp_path / "head"))
        yield Head(str(address), settings, job_folder(tmp_path / "job"))
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(PATIENCE_S)
        eventually(lambda: not processes_of(head.pid))


def run_of(scenario: Path, tmp_path: Path, plan: AddressPlan) -> list[str]:
    """What ``ray job submit`` gets to run a scenario, from its own working directory."""
    command = f"{sys.executable} -m harness {scenario} --out {tmp_path / 'out'} --instance {plan.instance}"
    return ["--working-dir", str(tmp_path / "job"), "--", *command.split()]


def test_ray_job_submit_runs_a_scenario(tmp_path, plan):
    scenario = short_scenario(tmp_path)
    with ray_head(tmp_path) as head:
        done = head.job("submit", *run_of(scenario, tmp_path, plan))
        assert done.returncode == 0, done.stdout + done.stderr
        check_rows(rows_of(tmp_path / "out"))


@pytest.mark.soak
def test_what_a_job_had_measured_when_it_was_stopped_can_be_read(tmp_path, plan):
    scenario = short_scenario(tmp_path)
    scenario.write_text(scenario.read_text().replace("duration: 2s", "duration: 120s"))
    with ray_head(tmp_path) as head:
        submitted = head.job("submit", "--no-wait", "--submission-id", "long", *run_of(scenario, tmp_path, plan))
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr
        eventually(lambda: [file.stat().st_size > 10_000 for file in journals(tmp_path / "out")] == [True] * 2, 120)
        stopped = head.job("stop", "long")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr  # it waits for the end
        assert "Job 'long' was stopped" in stopped.stdout + stopped.stderr
    [folder] = tmp_path.glob("out/quickstart/*")
    table = harness.load(folder)["requests"]
    assert provenance_of(table)["interrupted"] == "true"
    answered = [row for row in table.to_pylist() if row["done_ns"] is not None]
    assert {row["load"] for row in answered} == {"via-ingress", "via-clusterip"}
    assert len(answered) > 200
    assert {row["status"] for row in answered} == {200}
    printed = subprocess.run([PLANE, "bench", "report", str(folder)], capture_output=True, text=True, timeout=180)
    assert "interrupted: this was measured until then" in printed.stdout


def journals(out: Path) -> list[Path]:
    return list(out.glob("quickstart/*/requests.*.arrows"))


def job_folder(folder: Path) -> Path:
    """What ``--working-dir .`` would send of a clone: the tracked files, so no environment and no results."""
    folder.mkdir()
    for name in ("plane", "kernels", "harness", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def dashboard_of(log: Path) -> str | None:
    found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
    return found.group(0) if found else None
