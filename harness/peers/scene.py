"""What every peer is to carry: one Snapshot, and its L4 targets in words that any proxy's configuration has. Pure.

Law: manifests in, once; a peer renders its configuration from the Scene and never from anything written by hand. What
not every peer could be told is refused here, by object and field, so that all are measured at the same work.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernels.layout import ALGORITHMS, RANDOM, Fib
from plane import fib, offline
from plane.addresses import AddressPlan
from plane.errors import ManifestError, Problem
from plane.frontends import Frontend, algorithm_of, frontends_of, nodes_of
from plane.model import Key, Object, Snapshot, key_of

NODE = 1  # whose proxy is measured


@dataclass(frozen=True)
class Backend:
    ip: str
    port: int
    weight: int


@dataclass(frozen=True)
class Target:
    """One ClusterIP and port. ``name`` is namespace/service:port; ``port_name`` that of the Service port."""

    name: str
    port_name: str
    protocol: str
    ip: str
    port: int
    algorithm: str
    backends: tuple[Backend, ...]

    @property
    def word(self) -> str:
        """The name in letters that every configuration language takes."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name)


@dataclass(frozen=True)
class Scene:
    """The same for all peers of a run. Ingress controllers read their routes from the Snapshot."""

    snapshot: Snapshot
    plan: AddressPlan
    targets: tuple[Target, ...]

    @property
    def clients(self) -> list[str]:
        """Where clients come from: pods of another node, several, so that local ports never run out."""
        return [str(ip) for ip in list(self.plan.pods_of(NODE + 1).hosts())[1:9]]

    def fib(self) -> Fib:
        """What our own relay is given."""
        return fib.compile(self.snapshot)


def compose(objects: Iterable[Object], plan: AddressPlan, file: str = "") -> Scene:
    """The Scene that these objects settle into, on one node; the plane's own Services, as its DNS, are no targets.

    Raises ManifestError where a Service asks for what not every peer can do, or has no endpoint.
    """
    objects = list(objects)
    snapshot = offline.settled(objects, nodes=NODE, plan=plan)
    given = {key_of(obj) for obj in objects}
    frontends = [
        each
        for each in frontends_of(snapshot, nodes_of(snapshot))
        if each.kind == "ClusterIP" and Key("Service", each.service.namespace, each.service.name) in given
    ]
    problems = [problem for each in frontends for problem in _problems(each, file)]
    if not frontends:
        problems.append(Problem(file, 0, "", "", "no Service with a ClusterIP and a TCP or UDP port; name one"))
    if problems:
        raise ManifestError(problems)
    return Scene(snapshot, plan, tuple(map(_target, frontends)))


def _target(frontend: Frontend) -> Target:
    service, port = frontend.service, frontend.service_port
    endpoints, _ = frontend.inside[0]
    return Target(
        name=f"{service.full_name}:{port.name or port.port}",
        port_name=port.name,
        protocol=port.protocol,
        ip=frontend.ip,
        port=frontend.port,
        algorithm=ALGORITHMS[algorithm_of(service, RANDOM)],
        backends=tuple(Backend(each.ip, each.port, each.weight) for each in endpoints),
    )


def _problems(frontend: Frontend, file: str) -> Sequence[Problem]:
    service = frontend.service

    def problem(field: str, reason: str) -> Problem:
        return Problem(file, 0, f"Service {service.full_name}", field, reason)

    found = []
    if service.affinity_s:
        found.append(problem("spec.sessionAffinity", "peers are measured without; set it to None"))
    if len(frontend.inside) > 1:
        found.append(problem("", "its endpoints depend on the client's node; peers are measured without policies"))
    elif not frontend.inside[0][0]:
        found.append(problem(f"spec.ports[{frontend.service_port.name}]", "no ready endpoint; write an EndpointSlice"))
    return found
