"""Scenarios: what is read, and how every mistake is named."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import scenario
from harness.scenario import ScenarioError
from harness.stages import slopes

MS = 1_000_000
S = 1_000_000_000

GOOD = """
apiVersion: trafficplane.dev/v1alpha1
kind: Scenario
metadata: {name: quickstart}
spec:
  manifests: [quickstart/]
  nodes: 3
  loads:
  - name: via-ingress
    target: {url: "http://example.com/a?b=1"}
    arrivals: {rate: 500/s}
    duration: 10s
  - name: via-clusterip
    target: {service: my-service, port: 80, path: /hostname}
    from: {node: 2}
    arrivals: {connections: 8}
    start: 500ms
    duration: 2m
    timeout: 3s
    objectives: {errors: 0.5%, p99.9: 250ms}
  objectives: {errors: 0, p99: 100ms}
"""


def problems(text: str) -> dict[str, str]:
    """Field path → reason of everything that is wrong with a scenario."""
    with pytest.raises(ScenarioError) as caught:
        scenario.parse(text, "bench.yaml")
    for problem in caught.value.problems:
        assert (problem.file, problem.document) == ("bench.yaml", 1)
    return {problem.field: problem.reason for problem in caught.value.problems}


def changed(change: Callable[[Any], object]) -> str:
    """GOOD after a change of its spec."""
    document = yaml.safe_load(GOOD)
    change(document["spec"])
    return yaml.safe_dump(document)


def check_named(change: Callable[[Any], object], expected: dict[str, str]) -> None:
    """A scenario with mistakes is told of each by its field, with that text in it, and of no other."""
    found = problems(changed(change))
    assert found.keys() == expected.keys()
    for field, part in expected.items():
        assert part in found[field]


def test_quantities_become_integers_and_defaults_are_filled_in() -> None:
    spec = scenario.parse(GOOD).spec
    by_rate, by_connections = spec.loads
    assert by_rate.arrivals.rate == Fraction(500)
    assert by_rate.arrivals.max_connections == 1000
    assert by_rate.duration == 10 * S
    assert by_rate.target.url is not None
    assert by_rate.target.url.path == "/a"
    assert (by_rate.method, by_rate.keep_alive, by_rate.start, by_rate.timeout) == ("GET", True, 0, None)
    assert by_connections.target.namespace == "default"
    assert (by_connections.start, by_connections.duration, by_connections.timeout) == (500 * MS, 120 * S, 3 * S)
    assert spec.timeout == 10 * S


def test_a_load_with_stages_lasts_as_long_as_these() -> None:
    def change(spec: Any) -> None:
        del spec["loads"][0]["duration"]
        stages = [{"duration": "2s", "rate": "100/s"}, {"duration": "500ms", "to": "0/s"}]
        spec["loads"][0]["arrivals"] = {"stages": stages, "process": "poisson"}
        spec["timeline"] = [{"at": "119s", "restart": "x"}]
        spec["loads"][1]["duration"] = "1s"

    assert problems(changed(change)) == {"spec.timeline[0].at": "is not before the end of the last load, 2.50 s"}
    document = yaml.safe_load(changed(change))
    del document["spec"]["timeline"]
    load = scenario.parse(yaml.safe_dump(document)).spec.loads[0]
    assert (load.duration, load.arrivals.max_connections) == (2_500 * MS, 1000)
    first, second = slopes(load.arrivals.stages or ())
    assert (first.text, second.text, second.start_ns) == ("100/s", "100 to 0/s", 2 * S)


def test_a_loads_own_objectives_come_before_those_of_the_scenario() -> None:
    read = scenario.parse(GOOD)
    general, own = (read.objectives(load) for load in read.spec.loads)
    assert (general.errors, general.p99, general.p99_9) == (0, 100 * MS, None)
    assert (own.errors, own.p99, own.p99_9) == (Fraction(5, 1000), 100 * MS, 250 * MS)


WRONG: dict[str, tuple[Callable[[Any], object], dict[str, str]]] = {
    "rate without a unit": (
        lambda spec: spec["loads"][0]["arrivals"].update(rate=500),
        {"spec.loads[0].arrivals.rate": "500 is not a rate: write /s, /m or /h, as 500/s"},
    ),
    "rate per day": (
        lambda spec: spec["loads"][0]["arrivals"].update(rate="5/d"),
        {"spec.loads[0].arrivals.rate": "'5/d' is not a rate: write /s, /m or /h, as 500/s"},
    ),
    "rate of nothing": (
        lambda spec: spec["loads"][0]["arrivals"].update(rate="0/s"),
        {"spec.loads[0].arrivals.rate": "more than 0"},
    ),
    "rate and connections": (
        lambda spec: spec["loads"][0]["arrivals"].update(connections=8),
        {"spec.loads[0].arrivals": "exactly one of rate, connections, stages and replay"},
    ),
    "neither rate nor connections": (
        lambda spec: spec["loads"][0].update(arrivals={}),
        {"spec.loads[0].arrivals": "exactly one of rate, connections, stages and replay"},
    ),
    "arrivals that are a number": (
        lambda spec: spec["loads"][0].update(arrivals=5),
        {"spec.loads[0].arrivals": "needs a mapping with the fields rate, stages, process, connections,"},
    ),
    "a pod of no name": (
        lambda spec: spec["loads"][0].update(target={"pod": "statefulset/web"}),
        {"spec.loads[0].target.pod": "'statefulset/web' is no pod: write its name, or deployment/NAME"},
    ),
    "a pod by the address of a Service": (
        lambda spec: spec["loads"][0].update(target={"pod": "web-0", "via": "nodePort"}),
        {"spec.loads[0].target.via": "goes with a Service; a pod has one address"},
    ),
    "a pod without a plane": (
        lambda spec: (
            spec.pop("manifests"),
            spec.pop("nodes"),
            spec["loads"].pop(1),
            spec["loads"][0].update(target={"pod": "a"}),
        ),
        {"spec.loads[0].target.pod": "needs manifests: without a plane there are no pods"},
    ),
    "generators on other machines than the plane": (
        lambda spec: spec["loads"][0].update(generators=2, spread=True),
        {"spec.loads[0].spread": "goes without manifests: a plane's addresses are on the machine"},
    ),
    "one generator on several machines": (
        lambda spec: (
            spec.pop("manifests"),
            spec.pop("nodes"),
            spec["loads"].pop(1),
            spec["loads"][0].update(spread=True),
        ),
        {"spec.loads[0].spread": "goes with generators, which are what is spread over machines"},
    ),
    "bound for a closed loop": (
        lambda spec: spec["loads"][1]["arrivals"].update(maxConnections=9),
        {"spec.loads[1].arrivals.maxConnections": "goes with rate"},
    ),
    "process of a closed loop": (
        lambda spec: spec["loads"][1]["arrivals"].update(process="poisson"),
        {"spec.loads[1].arrivals.process": "goes with rate or stages; in a closed loop"},
    ),
    "a process of another name": (
        lambda spec: spec["loads"][0]["arrivals"].update(process="pareto"),
        {"spec.loads[0].arrivals.process": "should be 'constant' or 'poisson', not 'pareto'"},
    ),
    "stages of neither rate": (
        lambda spec: spec["loads"][0].update(
            arrivals={"stages": [{"duration": "1s"}, {"duration": "1s", "target": 5}]}
        ),
        {
            "spec.loads[0].duration": "is that of the stages together: leave it out",
            "spec.loads[0].arrivals.stages[0]": "exactly one of rate and to",
            "spec.loads[0].arrivals.stages[1]": "exactly one of rate and to",
            "spec.loads[0].arrivals.stages[1].target": "unknown field; known here: duration, rate, to",
        },
    ),
    "stages of nothing": (
        lambda spec: (
            spec["loads"][0].pop("duration"),
            spec["loads"][0].update(arrivals={"stages": [{"duration": "1s", "to": "0/s"}]}),
        ),
        {"spec.loads[0].arrivals.stages": "make no request ever due"},
    ),
    "stages of too much": (
        lambda spec: (
            spec["loads"][0].pop("duration"),
            spec["loads"][0].update(arrivals={"stages": [{"duration": "1h", "to": "100000/s"}]}),
        ),
        {"spec.loads[0].arrivals.stages": "makes 180,000,000 requests in the duration"},
    ),
    "connections as text": (
        lambda spec: spec["loads"][1]["arrivals"].update(connections="8"),
        {"spec.loads[1].arrivals.connections": "should be a valid integer, not '8'"},
    ),
    "duration with a long unit": (
        lambda spec: spec["loads"][0].update(duration="10sec"),
        {"spec.loads[0].duration": "no unit 'sec' here; a duration is written with ms, s, m or h, as 10s"},
    ),
    "duration without a unit": (
        lambda spec: spec["loads"][0].update(duration=10),
        {"spec.loads[0].duration": "10 has no unit"},
    ),
    "duration of nothing": (
        lambda spec: spec["loads"][0].update(duration="0s"),
        {"spec.loads[0].duration": "more than 0"},
    ),
    "no duration": (lambda spec: spec["loads"][0].pop("duration"), {"spec.loads[0].duration": "is required"}),
    "nothing but warm-up": (
        lambda spec: spec["loads"][0].update(warmUp="10s"),
        {"spec.loads[0].warmUp": "is all of the duration: nothing would be measured"},
    ),
    "latency in minutes": (
        lambda spec: spec["objectives"].update(p99="1m"),
        {"spec.objectives.p99": "no unit 'm' here; a latency is written with us, ms or s"},
    ),
    "objective of another percentile": (
        lambda spec: spec["objectives"].update({"p99.99": "1ms"}),
        {"spec.objectives.p99.99": "unknown field; did you mean p99.9?"},
    ),
    "share of more than all": (
        lambda spec: spec["objectives"].update(errors="101%"),
        {"spec.objectives.errors": "is more than all"},
    ),
    "misspelt field": (
        lambda spec: spec.update(manifest=spec.pop("manifests")),
        {
            "spec.manifest": "unknown field; did you mean manifests?",
            "spec.nodes": "goes with manifests",
            "spec.loads[1].target.service": "needs manifests",
            "spec.loads[1].from": "needs manifests",
        },
    ),
    "another ingress without pods": (
        lambda spec: spec.update(ingress="caddy", manifests=[], nodes=2),
        {
            "spec.ingress": "goes with manifests",
            "spec.nodes": "goes with manifests",
            "spec.loads[1].target.service": "needs manifests",
            "spec.loads[1].from": "needs manifests",
        },
    ),
    "an upstream of our own ingress": (
        lambda spec: spec.update(ingressUpstream="service"),
        {"spec.ingressUpstream": "goes with another ingress than trafficplane"},
    ),
    "endpoints that change behind another ingress": (
        lambda spec: spec.update(ingress="caddy", timeline=[{"at": "1s", "restart": "my-deployment"}]),
        {"spec.timeline": "write ingressUpstream: service"},
    ),
    "an ingress nobody knows": (lambda spec: spec.update(ingress="cady"), {"spec.ingress": "should be 'trafficplane'"}),
    "no requests in a mix": (
        lambda spec: spec["loads"][0].update(requests=[]),
        {"spec.loads[0].requests": "is empty: list some, or leave it out"},
    ),
    "a namespace for a node": (
        lambda spec: spec.update(timeline=[{"at": "1s", "killNode": 1, "namespace": "shop"}]),
        {"spec.timeline[0].namespace": "is that of a Deployment or a Secret; leave it out"},
    ),
    "no loads": (lambda spec: spec.update(loads=[]), {"spec.loads": "is empty; give it 1 at least"}),
    "two loads of one name": (
        lambda spec: spec["loads"][1].update(name="via-ingress", duration="1"),
        {"spec.loads[1].name": "the name of another load", "spec.loads[1].duration": "no unit"},
    ),
    "name that is no label": (
        lambda spec: spec["loads"][0].update(name="Via_Ingress"),
        {"spec.loads[0].name": "'Via_Ingress' is no name"},
    ),
    "url and service": (
        lambda spec: spec["loads"][0]["target"].update(service="x", port=80),
        {
            "spec.loads[0].target": "exactly one of url, service and pod",
            "spec.loads[0].target.port": "goes with service",
        },
    ),
    "url of another scheme": (
        lambda spec: spec["loads"][0]["target"].update(url="ftp://example.com/"),
        {"spec.loads[0].target.url": "loads speak HTTP and HTTPS"},
    ),
    "url without a host": (
        lambda spec: spec["loads"][0]["target"].update(url="http:///x"),
        {"spec.loads[0].target.url": "needs an IPv4 address or a name"},
    ),
    "url with a port out of range": (
        lambda spec: spec["loads"][0]["target"].update(url="http://a:70000/"),
        {"spec.loads[0].target.url": "a port is 1 to 65535"},
    ),
    "port out of range": (
        lambda spec: spec["loads"][1]["target"].update(port=65536),
        {"spec.loads[1].target.port": "less than or equal to 65535"},
    ),
    "path with a space": (
        lambda spec: spec["loads"][1]["target"].update(path="/a b"),
        {"spec.loads[1].target.path": "percent-encoded"},
    ),
    "node that is not there": (
        lambda spec: spec["loads"][1]["from"].update(node=4),
        {"spec.loads[1].from.node": "there are 3 nodes"},
    ),
    "from nowhere": (
        lambda spec: spec["loads"][1].update({"from": {}}),
        {"spec.loads[1].from": "says nothing: give it a node, a number of pods, or both"},
    ),
    "method in lower case": (
        lambda spec: spec["loads"][0].update(method="get"),
        {"spec.loads[0].method": "'get' is no method"},
    ),
    "header that the load sets": (
        lambda spec: spec["loads"][0].update(headers={"Content-Length": "3"}),
        {"spec.loads[0].headers": "Content-Length is set by the load itself"},
    ),
    "header with a line break": (
        lambda spec: spec["loads"][0].update(headers={"X-A": "b\r\nHost: evil"}),
        {"spec.loads[0].headers": "no header text"},
    ),
    "more rows than there is room for": (
        lambda spec: spec["loads"][0].update(arrivals={"rate": "1000000/s"}, duration="1h"),
        {"spec.loads[0].arrivals.rate": "makes 3,600,000,000 requests"},
    ),
    "an ingress that the matrix varies": (
        lambda spec: spec.update(
            ingress="nginx", matrix=[{"name": "ingress", "field": "ingress", "values": ["trafficplane", "nginx"]}]
        ),
        {"spec.ingress": "is varied by the matrix: leave it out, or the axis whose field is ingress"},
    ),
    "everything at once": (
        lambda spec: (
            spec.update(nodes="3", colour="red"),
            spec["loads"][0].update(duration="1d"),
            spec["objectives"].update(p50="fast"),
        ),
        {
            "spec.nodes": "not '3'",
            "spec.colour": "unknown field; known here: manifests, nodes, ingress",
            "spec.loads[0].duration": "no unit 'd'",
            "spec.objectives.p50": "'fast' is not a latency: write a number and us, ms or s, as 100ms",
        },
    ),
}


@pytest.mark.parametrize(("change", "expected"), WRONG.values(), ids=WRONG.keys())
def test_each_mistake_is_named_by_its_field(change: Callable[[Any], object], expected: dict[str, str]) -> None:
    check_named(change, expected)


def test_another_api_version_and_kind_are_refused() -> None:
    found = problems(GOOD.replace("v1alpha1", "v2").replace("kind: Scenario", "kind: Service"))
    assert found == {
        "apiVersion": "should be 'trafficplane.dev/v1alpha1', not 'trafficplane.dev/v2'",
        "kind": "should be 'Scenario', not 'Service'",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", r"bench.yaml:\d:\d+ .*not YAML"),
        ("a: 1\na: 2\n", r"bench.yaml:2:1 .*twice"),
        ("", "holds 0 YAML documents"),
        (GOOD + "---" + GOOD, "holds 2 YAML documents"),
        ("- 1", "needs a mapping"),
        ("? [1, 2]\n: 3\n", "key"),
    ],
)
def test_text_that_is_no_scenario_at_all(text: str, reason: str) -> None:
    with pytest.raises(ScenarioError, match=reason):
        scenario.parse(text, "bench.yaml")


def test_what_loads_have_in_common_can_be_merged_in() -> None:
    common = """
    - &first {name: a, target: {url: "http://a/"}, arrivals: {rate: 1/s}, duration: 1s}
    - {<<: *first, name: b}
"""
    head = GOOD[: GOOD.index("  manifests")]
    loads = scenario.parse(f"{head}  loads:{common}").spec.loads
    assert [(load.name, load.duration) for load in loads] == [("a", S), ("b", S)]


def test_manifests_are_looked_for_beside_the_scenario(tmp_path: Path) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(GOOD)
    with pytest.raises(ScenarioError) as caught:
        scenario.read(file)
    assert [problem.field for problem in caught.value.problems] == ["spec.manifests[0]"]
    (tmp_path / "quickstart").mkdir()
    read, text = scenario.read(file)
    assert (read.name, text) == ("quickstart", GOOD)


def test_a_file_that_is_not_there_is_a_scenario_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        scenario.read(tmp_path / "none.yaml")
