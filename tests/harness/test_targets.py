"""Where the loads of a scenario go, on a plane that the manifests alone describe."""

import textwrap
from collections.abc import Callable

import pytest
import yaml

from harness import scenario, targets
from harness.drivers.http import Destination
from harness.scenario import ScenarioError
from harness.targets import Resolved, Surroundings
from plane import offline
from plane.addresses import AddressPlan, ip_to_int
from plane.model import Object

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, clusterIP: 127.176.0.20, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: shop}
spec:
  clusterIP: 127.176.0.21
  ports: [{name: a, port: 8080}, {name: b, port: 9090}, {name: u, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: hosts, namespace: default}
spec:
  rules:
  - host: example.com
    http: &http
      paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]
  - {host: "*.wild.example", http: *http}
"""
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: single, namespace: shop}
spec:
  containers:
  - {name: c, image: trafficplane/echo, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: c, image: trafficplane/echo, ports: [{containerPort: 8080}, {containerPort: 9090}]}]}
"""
ANY_HOST = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: rest, namespace: default}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
"""


def a_scenario(*loads: str) -> scenario.Scenario:
    """A scenario of loads given as YAML flow mappings, with what they need and do not say."""
    listed = "\n".join(f"  - {{arrivals: {{rate: 1/s}}, duration: 1s, {load}}}" for load in loads)
    head = textwrap.dedent("""\
        apiVersion: trafficplane.dev/v1alpha1
        kind: Scenario
        metadata: {name: s}
        spec:
          manifests: [x]
          loads:
        """)
    return scenario.parse(head + listed)


@pytest.fixture(scope="module")
def resolve() -> Callable[..., list[Resolved]]:
    """Resolves loads against the Services and Ingresses above and more manifests, with ports below 1024 shifted."""
    plan = AddressPlan(5, 8000)

    def call(*loads: str, more: str = "") -> list[Resolved]:
        asked = a_scenario(*loads)
        objects: list[Object] = list(yaml.safe_load_all(SERVICES + ("---" + more if more else "")))
        settled = offline.settled([*objects, *targets.client_pods(asked)], nodes=3, plan=plan)
        return targets.resolve(asked, "s.yaml", Surroundings(settled, plan, ("127.205.0.1", 8080)))

    return call


@pytest.mark.parametrize("host", ["example.com", "EXAMPLE.com", "a.wild.example", "example.com:81"])
def test_a_host_of_an_ingress_goes_to_the_ingress(resolve: Callable[..., list[Resolved]], host: str) -> None:
    (target,) = resolve(f'name: a, target: {{url: "http://{host}/p?q=1"}}')
    assert target.destination == Destination("127.205.0.1", 8080)
    assert (target.workload.host, target.workload.path, target.service) == (host, "/p?q=1", "")


def test_a_service_is_dialled_at_its_cluster_ip_from_a_pods_address(resolve: Callable[..., list[Resolved]]) -> None:
    plain, named, moved = resolve(
        "name: a, target: {service: web, path: /hostname}",
        "name: b, target: {service: two, namespace: shop, port: 9090}",
        "name: c, target: {service: web}, from: {node: 3}",
    )
    assert plain.frontend == (ip_to_int("127.176.0.20"), 80)
    assert (plain.destination.ip, plain.service) == ("127.176.0.20", "default/web")
    assert plain.workload.host == "web.default.svc.cluster.local"
    assert plain.workload.path == "/hostname"
    assert named.destination.port == 9090
    assert named.workload.host == "two.shop.svc.cluster.local:9090"
    sources = [target.destination.sources for target in (plain, named, moved)]
    assert all(len(each) == 1 and each[0].startswith("127.249.") for each in sources)
    assert len(set(sources)) == 3
    assert sources[2][0].startswith("127.249.3.")


@pytest.mark.parametrize(
    "selector", ["{matchLabels: {app: many}}", "{matchExpressions: [{key: app, operator: In, values: [many]}]}"]
)
def test_a_pod_is_asked_itself_from_a_pods_address(resolve: Callable[..., list[Resolved]], selector: str) -> None:
    single, first, other = resolve(
        "name: a, target: {pod: single, namespace: shop, path: /x}",
        "name: b, target: {pod: deployment/many, namespace: shop, port: 9090}",
        "name: c, target: {pod: deployment/many, namespace: shop, port: 8080}, from: {node: 2}",
        more=PODS.replace("{matchLabels: {app: many}}", selector),
    )
    assert (single.destination.port, single.frontend[1], single.service) == (8080, 80, "")  # below 1024: shifted
    assert single.frontend[0] == ip_to_int(single.destination.ip)
    assert (single.workload.host, single.workload.path) == (single.destination.ip, "/x")
    assert first.workload.host == f"{first.destination.ip}:9090"
    assert (other.destination.ip, other.destination.port) == (first.destination.ip, 8080)
    assert first.destination.ip != single.destination.ip
    assert all(len(target.destination.sources) == 1 for target in (single, first, other))
    assert other.destination.sources[0].startswith("127.249.2.")


def test_a_pod_that_is_not_there_is_named(resolve: Callable[..., list[Resolved]]) -> None:
    with pytest.raises(ScenarioError) as caught:
        resolve(
            "name: a, target: {pod: singel, namespace: shop}",
            "name: b, target: {pod: deployment/single, namespace: shop}",
            "name: c, target: {pod: deployment/many, namespace: shop}",
            more=PODS.replace("replicas: 3", "replicas: 1"),
        )
    found = {problem.field: problem.reason for problem in caught.value.problems}
    fields = [f"spec.loads[{place}].target.{name}" for place, name in enumerate(("pod", "pod", "port"))]
    assert list(found) == fields
    assert found[fields[0]].startswith("there is no Pod shop/singel; there are: ")
    assert ", single" in found[fields[0]]
    assert found[fields[1]] == "there is no Deployment shop/single; there are: many"
    assert found[fields[2]].startswith("say which of the TCP ports of Pod shop/many-")
    assert found[fields[2]].endswith(": 8080, 9090")


def test_generators_on_several_machines_need_a_target_that_all_of_them_reach() -> None:
    def asked(url: str) -> scenario.Scenario:
        load = {"name": "a", "target": {"url": url}, "arrivals": {"rate": "1/s"}, "duration": "1s", "generators": 2}
        head = {"apiVersion": "trafficplane.dev/v1alpha1", "kind": "Scenario", "metadata": {"name": "s"}}
        return scenario.parse(yaml.safe_dump({**head, "spec": {"loads": [{**load, "spread": True}]}}))

    (target,) = targets.resolve(asked("http://192.0.2.1/"), "s.yaml", None)
    assert target.destination == Destination("192.0.2.1", 80)
    with pytest.raises(ScenarioError, match=r"spec.loads\[0\].spread: 127.0.0.1 is each machine's own"):
        targets.resolve(asked("http://localhost/"), "s.yaml", None)


@pytest.mark.parametrize("host", ["web.default.svc", "web.default.svc.cluster.local"])
def test_a_name_of_the_clusters_dns_is_that_service(resolve: Callable[..., list[Resolved]], host: str) -> None:
    (target,) = resolve(f'name: a, target: {{url: "http://{host}/"}}')
    assert (target.destination.ip, target.destination.sources) == ("127.176.0.20", ())
    assert (target.service, target.workload.host) == ("default/web", host)


def test_an_address_is_used_as_it_is_and_from_gives_it_a_source(resolve: Callable[..., list[Resolved]]) -> None:
    (target,) = resolve('name: a, target: {url: "http://127.9.9.9:8081"}, from: {node: 2}')
    assert (target.destination.ip, target.destination.port) == ("127.9.9.9", 8081)
    assert target.destination.sources[0].startswith("127.249.2.")
    assert target.workload.path == "/"


def test_several_client_pods_have_an_address_each(resolve: Callable[..., list[Resolved]]) -> None:
    spread, there = resolve(
        "name: a, target: {service: web}, from: {pods: 5}",
        'name: b, target: {url: "http://example.com/"}, from: {node: 2, pods: 3}',
    )
    every = [*spread.destination.sources, *there.destination.sources]
    assert (len(set(every)), len(there.destination.sources)) == (8, 3)
    assert all(source.startswith("127.249.2.") for source in there.destination.sources)


def test_a_name_nobody_knows_goes_to_an_ingress_that_takes_any_host(resolve: Callable[..., list[Resolved]]) -> None:
    load = 'name: a, target: {url: "http://nobody.invalid/"}'
    with pytest.raises(ScenarioError, match=r"spec.loads\[0\].target.url: nobody.invalid: no Ingress has this host"):
        resolve(load)
    (target,) = resolve(load, more=ANY_HOST)
    assert target.destination == Destination("127.205.0.1", 8080)


def test_a_name_of_this_machine_is_resolved() -> None:
    asked = a_scenario('name: a, target: {url: "http://localhost:8081/"}')
    (target,) = targets.resolve(asked, "s.yaml", None)
    assert target.destination == Destination("127.0.0.1", 8081)
    assert target.workload.host == "localhost:8081"


def test_every_target_that_leads_nowhere_is_named_at_once(resolve: Callable[..., list[Resolved]]) -> None:
    with pytest.raises(ScenarioError) as caught:
        resolve(
            "name: a, target: {service: wbe}",
            "name: b, target: {service: headless}",
            "name: c, target: {service: two, namespace: shop}",
            "name: d, target: {service: web, port: 81}",
            'name: e, target: {url: "http://x.default.svc/"}',
            'name: f, target: {url: "http://a.b.wild.example.invalid/"}',
            "name: g, target: {service: two, namespace: shop, port: 53}",
        )
    found = {problem.field: problem.reason for problem in caught.value.problems}
    assert found == {
        "spec.loads[0].target.service": "there is no Service default/wbe; there are: "
        "default/headless, default/web, kube-system/kube-dns, shop/two",
        "spec.loads[1].target.service": "Service default/headless has no ClusterIP to dial; give it one",
        "spec.loads[2].target.port": "say which of the TCP ports of Service shop/two: 8080, 9090",
        "spec.loads[3].target.port": "Service default/web has no TCP port 81; its ports are 80",
        "spec.loads[4].target.url": "there is no Service default/x; there are: "
        "default/headless, default/web, kube-system/kube-dns, shop/two",
        "spec.loads[5].target.url": "a.b.wild.example.invalid: no Ingress has this host "
        "(they have: *.wild.example, example.com), no Service this name, and the system does not know it",
        "spec.loads[6].target.port": "Service shop/two has no TCP port 53; its ports are 8080, 9090",
    }
    assert {problem.file for problem in caught.value.problems} == {"s.yaml"}
