"""A scenario: what runs, what load it gets and what must hold. The schema is the classes below, and nothing else.

Law: strict and whole. An unknown field, a wrong unit, a number written as text is an error, and a ``ScenarioError``
carries every error of the file at once, each with its field path and the remedy. Names are Kubernetes' own camelCase;
``docs/scenario.md`` shows every field. What a scenario *means* on a running plane (which address a target has) is not
decided here but in ``targets``.
"""

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, InstanceOf

from harness import axes, certificates, requests, stages, units
from harness.axes import Axis
from harness.certificates import Certificate
from harness.replay import Replay
from harness.requests import Headers, Label, Method, Request
from harness.stages import Stage
from plane import behaviour, documents, strict
from plane.errors import ManifestError, Problem
from plane.partition import GIVEN_UP_S
from plane.strict import Contradiction, Part, Whole, at, read_by

# A row takes about 70 bytes while the run lasts: 50 million are what a small machine has room for.
ROWS_AT_MOST = 50_000_000

_HOST = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?\.?")


class ScenarioError(ManifestError):
    """Everything that is wrong with a scenario, all of it at once; a command that meets one exits with 2."""


# What a load speaks by a URL of that scheme; the schemes of messages, which name nothing but a place.
MESSAGES = ("tcp", "udp")
SCHEMES = ("http", "https", *MESSAGES)
# The id of a request has to fit into its message; a datagram's is what IPv4 has room for.
LEAST_BYTES, MOST_BYTES = 16, {"tcp": 16 << 20, "udp": 65_507}
MESSAGE_BYTES = 64


def _url(value: Any) -> SplitResult:
    example = "write one as http://example.com/path, https://example.com/path, tcp://name:9000 or udp://name:9000"
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        raise ValueError(f"{value!r} is no URL: {example}")
    url = urlsplit(value)
    if url.scheme not in SCHEMES:
        raise ValueError(f"{value!r}: loads speak HTTP and HTTPS, and echo over TCP and UDP, {example}")
    if not url.hostname or not _HOST.fullmatch(url.hostname) or url.username is not None or url.fragment:
        raise ValueError(f"{value!r} needs an IPv4 address or a name, and neither user nor fragment: {example}")
    try:
        given = url.port
    except ValueError:
        given = 0
    if given == 0:
        raise ValueError(f"{value!r}: a port is 1 to 65535")
    if url.scheme in MESSAGES and (given is None or url.path or url.query):
        raise ValueError(f"{value!r} is where messages go: a port, and no path, as {url.scheme}://name:9000")
    return url


def _behaviour(annotation: str) -> Callable[[Any], str]:
    """What reads the value of an annotation by which pods behave."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no text; put it into quotes")
        for _, reason in behaviour.wrong({behaviour.PREFIX + annotation: value}):
            raise ValueError(reason)
        return value

    return read


Duration = Annotated[int, read_by(units.duration)]
Pause = Annotated[int, read_by(units.pause)]
Latency = Annotated[int, read_by(units.latency)]
Rate = Annotated[InstanceOf[Fraction], read_by(units.rate)]
Share = Annotated[int | InstanceOf[Fraction], read_by(units.share)]
Url = Annotated[InstanceOf[SplitResult], read_by(_url)]


class Metadata(Part):
    """``name`` names the folder of the results."""

    name: Label


class Trust(Part):
    """Whose certificates a load by HTTPS takes: any, or those that the file ``ca`` has signed, and no others.

    ``resume``: a connection resumes the session of the one whose place it takes.
    """

    insecure: bool | None = None
    ca: str | None = None
    resume: bool = False

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if "insecure" in given and "ca" in given:
            yield (), "takes any certificate or those of an authority: give it insecure or ca"
        if not given:
            yield (), f"says nothing: give it one of {', '.join(cls.known())}"
        if given.get("insecure") is False:
            yield ("insecure",), "false is what holds without it: leave tls out, or write true"


def pod_name(value: Any) -> str:
    """A pod's name, or ``deployment/NAME`` for the first of its pods, as kubectl has it."""
    kind, slash, name = str(value).rpartition("/")
    if kind != ("deployment" if slash else ""):
        raise ValueError(f"{value!r} is no pod: write its name, or deployment/NAME for the first of its pods")
    requests.label(name if slash else value)
    return str(value)


class Target(Part):
    """Where a load goes: a ``url``, or a ``service`` or ``pod`` with its ``namespace``, ``port`` and ``path``.

    ``via``: by which of its addresses a Service is dialled, of its NodePorts at that ``node``.
    """

    one_of: ClassVar = ("url", "service", "pod")
    url: Url | None = None
    service: Label | None = None
    pod: Annotated[str, read_by(pod_name)] | None = None
    namespace: Label = "default"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    path: requests.Path = "/"
    via: Literal["clusterIP", "nodePort", "loadBalancer"] = "clusterIP"
    node: Annotated[int, Field(ge=1)] = 1
    tls: Trust | None = None

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if "tls" in given and not str(given.get("url")).startswith("https:"):
            yield ("tls",), "goes with a url that begins with https://"
        if "url" in given:
            for name in given.keys() & {"namespace", "port", "path"}:
                yield (name,), "goes with service or pod; a url has it in itself"
        if "pod" in given and "via" in given:
            yield ("via",), "goes with a Service; a pod has one address"
        if "node" in given and given.get("via") != "nodePort":
            yield ("node",), "goes with via: nodePort, of which it says whose"

    @property
    def messages(self) -> str:
        """``tcp`` or ``udp`` where what goes there are messages that come back; else empty."""
        return self.url.scheme if self.url is not None and self.url.scheme in MESSAGES else ""


class Arrivals(Part):
    """When requests are due: at a ``rate``, at rates in ``stages`` or as in a log (``replay``), all of which are open
    loops; or when the one before is answered.

    ``process`` of an open loop: at equal distances, or a Poisson process of that mean rate.
    """

    one_of: ClassVar = ("rate", "connections", "stages", "replay")
    rate: Rate | None = None
    stages: Annotated[list[Stage], Field(min_length=1)] | None = None
    process: Literal["constant", "poisson"] = "constant"
    connections: Annotated[int, Field(ge=1, le=10_000)] | None = None
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    replay: Replay | None = None

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        opened = given.keys() & {"rate", "stages"}
        if not opened and "replay" not in given and "maxConnections" in given:
            yield ("maxConnections",), "goes with rate, stages or replay; a closed loop has exactly its connections"
        if "replay" in given and "process" in given:
            yield ("process",), "goes with rate or stages; the times of a replay are those of its log"
        elif not opened and "process" in given:
            yield ("process",), "goes with rate or stages; in a closed loop answers make requests due"
        yield from stages.contradictions(given.get("stages"))


class Origin(Part):
    """Where a load comes from: the addresses of so many client ``pods``, on node ``node``, counted from 1."""

    node: Annotated[int, Field(ge=1)] | None = None
    pods: Annotated[int, Field(ge=1, le=100)] = 1

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if not given:
            yield (), "says nothing: give it a node, a number of pods, or both"


class Objectives(Part):
    """What must hold for a load. Latencies are exact percentiles over all scheduled requests."""

    errors: Share | None = None
    p50: Latency | None = None
    p90: Latency | None = None
    p99: Latency | None = None
    p99_9: Latency | None = Field(default=None, alias="p99.9")
    max: Latency | None = None

    def over(self, general: "Objectives") -> "Objectives":
        """These, and of the ``general`` ones those that are not set here."""
        return general.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


class Load(Part):
    """One stream of requests, all alike or a mix of several."""

    name: Label
    target: Target
    method: Method = "GET"
    headers: Headers = Field(default_factory=dict)
    body: str = ""
    size: Annotated[int, Field(alias="bytes", ge=LEAST_BYTES)] = MESSAGE_BYTES
    requests: list[Request] = Field(default_factory=list)
    arrivals: Arrivals
    start: Pause = 0
    warm_up: Pause = 0
    lasts: Duration | None = Field(default=None, alias="duration")
    timeout: Duration | None = None
    keep_alive: bool = True
    generators: Annotated[int, Field(ge=1, le=64)] = 1
    spread: bool = False
    origin: Origin | None = Field(default=None, alias="from")
    objectives: Objectives = Objectives()

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        yield from requests.contradictions(given)
        yield from _of_messages(given)
        staged = at(given, "arrivals", "stages")
        replayed = at(given, "arrivals", "replay")
        for name in ("method", "body", "requests") if replayed is not None else ():
            if name in given:
                yield (name,), "does not go with replay: its log says what is asked for"
        if staged is None and replayed is None and "duration" not in given:
            yield ("duration",), "is required"
        if staged is not None and "duration" in given:
            yield ("duration",), "is that of the stages together: leave it out"
        generators = given.get("generators", 1)
        connections = at(given, "arrivals", "connections") or at(given, "arrivals", "maxConnections")
        if isinstance(generators, int) and isinstance(connections, int) and connections < generators:
            yield ("generators",), f"are more than its {connections} connections: each has one at least"
        if given.get("spread") and generators == 1:
            yield ("spread",), "goes with generators, which are what is spread over machines"
        with contextlib.suppress(ValueError):
            if "warmUp" in given and units.pause(given["warmUp"]) >= duration_of(given):
                yield ("warmUp",), "is all of the duration: nothing would be measured"
        try:
            rate = at(given, "arrivals", "rate")
            due = stages.requests(staged) if staged else units.rate(rate) * duration_of(given) / units.NS_PER_S
        except ValueError:
            return
        if due > ROWS_AT_MOST:
            yield (
                ("arrivals", "stages" if staged else "rate"),
                f"makes {int(due):,} requests in the duration; {ROWS_AT_MOST:,} are the most: lower one of them",
            )

    @property
    def duration(self) -> int:
        """ns in which requests are due; 0 where only the log of a replay knows."""
        return self.lasts or sum(stage.duration for stage in self.arrivals.stages or ())


def _of_messages(load: dict[str, Any]) -> Iterator[Contradiction]:
    """What is wrong between a load and what it sends, of a load as it stands in a file."""
    scheme = str(at(load, "target", "url")).partition(":")[0]
    size = load.get("bytes")
    if scheme not in MESSAGES:
        if "bytes" in load:
            yield ("bytes",), "is of messages: it goes with a url that begins with tcp:// or udp://"
        return
    for name in ("method", "headers", "body", "requests"):
        if name in load:
            yield (name,), f"is of HTTP; what goes to {scheme}:// are messages that come back, of so many bytes"
    if at(load, "arrivals", "replay") is not None:
        yield ("arrivals", "replay"), f"is of HTTP: a log's requests are no messages to {scheme}://"
    if isinstance(size, int) and size > MOST_BYTES[scheme]:
        yield ("bytes",), f"are {MOST_BYTES[scheme]:,} at most over {scheme}"


def duration_of(load: Any) -> int:
    """The same of a load as it stands in a file. Raises ValueError where it has none."""
    staged = at(load, "arrivals", "stages")
    return units.duration(at(load, "duration")) if staged is None else stages.duration(staged)


class Scale(Part):
    """So many replicas for a Deployment."""

    deployment: Label
    replicas: Annotated[int, Field(ge=0, le=10_000)]


class SlowPod(Part):
    """The first of a Deployment's pods takes that long for each request."""

    deployment: Label
    service_time: Annotated[str, read_by(_behaviour("service-time"))]


class FailPod(Part):
    """The first of a Deployment's pods answers that share of requests with 500."""

    deployment: Label
    error_rate: Annotated[str, read_by(_behaviour("error-rate"))]


NodeNumber = Annotated[int, Field(ge=1)]
OF_NODES = ("drainNode", "uncordonNode", "killNode", "partitionNode", "healNode")


class Event(Part):
    """What happens to the plane ``at`` a time of the run; ``restart`` and ``deletePod`` name a Deployment.

    ``rotateCertificate`` names the Secret of one of the scenario's certificates.
    """

    one_of: ClassVar = (
        *("scale", "restart", "deletePod", "slowPod", "failPod", "apply", "rotateCertificate"),
        *("drainNode", "uncordonNode", "killNode", "partitionNode", "healNode"),
    )
    at: Pause
    namespace: Label = "default"
    scale: Scale | None = None
    restart: Label | None = None
    delete_pod: Label | None = None
    slow_pod: SlowPod | None = None
    fail_pod: FailPod | None = None
    apply: str | None = None
    rotate_certificate: Label | None = None
    drain_node: NodeNumber | None = None
    uncordon_node: NodeNumber | None = None
    kill_node: NodeNumber | None = None
    partition_node: NodeNumber | None = None
    heal_node: NodeNumber | None = None

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if "namespace" in given and given.keys() & {"apply", *OF_NODES}:
            yield ("namespace",), "is that of a Deployment or a Secret; leave it out here"

    @property
    def deployment(self) -> str | None:
        named = self.scale or self.slow_pod or self.fail_pod
        return named.deployment if named else self.restart or self.delete_pod

    @property
    def behaviour(self) -> dict[str, str]:
        """The annotations that a pod gets."""
        if self.slow_pod:
            return {f"{behaviour.PREFIX}service-time": self.slow_pod.service_time}
        return {f"{behaviour.PREFIX}error-rate": self.fail_pod.error_rate} if self.fail_pod else {}

    @property
    def text(self) -> str:
        """What happens, for people."""
        if self.slow_pod:
            return f"a pod of {self.slow_pod.deployment} takes {self.slow_pod.service_time}"
        if self.fail_pod:
            return f"a pod of {self.fail_pod.deployment} fails {self.fail_pod.error_rate}"
        if self.scale:
            return f"scale {self.scale.deployment} to {self.scale.replicas}"
        if self.restart:
            return f"restart {self.restart}"
        if self.delete_pod:
            return f"delete a pod of {self.delete_pod}"
        if self.apply:
            return f"apply {self.apply}"
        if self.rotate_certificate:
            return f"rotate certificate {self.rotate_certificate}"
        done = {
            "drain": self.drain_node,
            "uncordon": self.uncordon_node,
            "kill": self.kill_node,
            "partition": self.partition_node,
            "heal": self.heal_node,
        }
        return next(f"{what} node-{number}" for what, number in done.items() if number is not None)


KIND = "Scenario"
OURS = "trafficplane"
Controller = Literal["trafficplane", "nginx", "haproxy", "envoy", "traefik", "caddy"]
CONTROLLERS = get_args(Controller)


class Spec(Part):
    """The whole of a scenario.

    ``ingress``: whose ingress stands before the pods. One of somebody else is told the addresses of ready endpoints,
    once, or with ``ingressUpstream: service`` those of Services, behind which endpoints may come and go.
    ``gateway``: our own carries HTTP/1.1 by compiled code, as that of ``plane up`` does.
    """

    manifests: list[str] = Field(default_factory=list)
    nodes: Annotated[int, Field(ge=1, le=250)] = 3
    ingress: Controller = "trafficplane"
    ingress_upstream: Literal["endpoints", "service"] = "endpoints"
    gateway: bool = False
    loads: Annotated[list[Load], Field(min_length=1)]
    timeline: list[Event] = Field(default_factory=list)
    timeout: Duration = 10 * units.NS_PER_S
    certificates: list[Certificate] = Field(default_factory=list)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    objectives: Objectives = Objectives()
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    matrix: list[Axis] = Field(default_factory=list)

    @property
    def in_rounds(self) -> bool:
        """Whether there are several runs of it."""
        return self.repeats > 1 or bool(self.matrix)

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        yield from axes.contradictions(given)
        plane = bool(given.get("manifests"))
        for name in () if plane else given.keys() & {"nodes", "ingress", "ingressUpstream", "gateway", "certificates"}:
            yield (name,), "goes with manifests: without them no plane is started"
        yield from certificates.contradictions(given.get("certificates"))
        if "ingressUpstream" in given and not axes.others(given, OURS):
            yield ("ingressUpstream",), f"goes with another ingress than {OURS}, which follows endpoints by itself"
        if given.get("timeline") and axes.others(given, OURS) and given.get("ingressUpstream") != "service":
            reason = (
                "endpoints are told to another ingress once, and events change them; write ingressUpstream: service"
            )
            yield ("timeline",), reason
        nodes = given.get("nodes", cls.model_fields["nodes"].default)
        seen: set[str] = set()
        loads = given.get("loads")
        for place, load in enumerate(loads if isinstance(loads, list) else ()):
            name = at(load, "name")
            if isinstance(name, str):
                if name in seen:
                    yield ("loads", place, "name"), f"{name!r} is the name of another load; names are unique"
                seen.add(name)
            node = at(load, "from", "node")
            if isinstance(node, int) and isinstance(nodes, int) and node > nodes:
                yield ("loads", place, "from", "node"), f"there are {nodes} nodes, counted from 1"
            dialled = at(load, "target", "node")
            if isinstance(dialled, int) and isinstance(nodes, int) and dialled > nodes:
                yield ("loads", place, "target", "node"), f"there are {nodes} nodes, counted from 1"
            if not plane and at(load, "target", "via"):
                yield ("loads", place, "target", "via"), "needs manifests: without a plane there are no Services"
            if not plane and at(load, "target", "service"):
                yield ("loads", place, "target", "service"), "needs manifests; without a plane write a url"
            if not plane and at(load, "target", "pod"):
                yield ("loads", place, "target", "pod"), "needs manifests: without a plane there are no pods"
            if plane and at(load, "spread"):
                reason = "goes without manifests: a plane's addresses are on the machine where the run is started"
                yield ("loads", place, "spread"), reason
            if not plane and at(load, "from"):
                yield ("loads", place, "from"), "needs manifests: without a plane there are no pods"
        yield from _of_timeline(given, nodes if plane else 0)


def _of_timeline(given: dict[str, Any], nodes: Any) -> Iterator[Contradiction]:
    """What is wrong with the events of a spec; ``nodes`` 0: no plane."""
    try:
        end_ns = max(units.pause(load.get("start", "0s")) + duration_of(load) for load in given["loads"])
    except (ValueError, AttributeError, KeyError, TypeError):
        return  # what is wrong with the loads is said elsewhere
    timeline = given.get("timeline")
    for place, event in enumerate(timeline if isinstance(timeline, list) else ()):
        if not nodes:
            yield ("timeline", place), "needs manifests: without a plane there is nothing to happen to"
        for name in OF_NODES:
            node = at(event, name)
            if nodes and isinstance(node, int) and isinstance(nodes, int) and node > nodes:
                yield ("timeline", place, name), f"there are {nodes} nodes, counted from 1"
        with contextlib.suppress(ValueError):
            if units.pause(at(event, "at")) >= end_ns:
                yield ("timeline", place, "at"), f"is not before the end of the last load, {units.format_ns(end_ns)}"
        if (secret := at(event, "rotateCertificate")) is not None:
            yield from _of_rotation(given, place, secret, at(event, "namespace") or "default")
    yield from _of_partitions(timeline, end_ns)


def _of_rotation(given: dict[str, Any], place: int, secret: Any, namespace: Any) -> Iterator[Contradiction]:
    field = ("timeline", place, "rotateCertificate")
    listed = given.get("certificates")
    certificates = listed if isinstance(listed, list) else []
    there = {f"{at(each, 'namespace') or 'default'}/{at(each, 'secret')}" for each in certificates}
    if f"{namespace}/{secret}" not in there:
        names = ", ".join(sorted(there)) or "none"
        yield field, f"no certificate of spec.certificates has the Secret {namespace}/{secret}; there are: {names}"
    if axes.others(given, OURS):
        yield field, f"goes with ingress: {OURS} only: another ingress is told its certificates once"


def _of_partitions(timeline: Any, end_ns: int) -> Iterator[Contradiction]:
    """What is wrong with the order of partitions and their ends, and with how long they last."""
    rows = []
    for place, event in enumerate(timeline if isinstance(timeline, list) else ()):
        with contextlib.suppress(ValueError):
            rows.append((units.pause(at(event, "at")), place, at(event, "partitionNode"), at(event, "healNode")))
    begun: dict[Any, tuple[int, int]] = {}  # node → when, and the event's place
    for when_ns, place, torn, healed in sorted(rows, key=lambda row: row[:2]):
        if torn is not None and begun.setdefault(torn, (when_ns, place)) != (when_ns, place):
            yield ("timeline", place, "partitionNode"), f"node-{torn} is cut off already: put healNode between them"
        if healed is not None and healed not in begun:
            yield ("timeline", place, "healNode"), f"node-{healed} is not cut off then: put partitionNode before it"
        elif healed is not None:
            yield from _too_long(*begun.pop(healed), when_ns)
    for since_ns, place in begun.values():
        yield from _too_long(since_ns, place, end_ns)


def _too_long(since_ns: int, place: int, until_ns: int) -> Iterator[Contradiction]:
    if until_ns - since_ns > GIVEN_UP_S * units.NS_PER_S:
        lasts = units.format_ns(until_ns - since_ns)
        yield (
            ("timeline", place, "partitionNode"),
            f"lasts {lasts}, and a cluster would give the node up after {GIVEN_UP_S} s, which is not done here: "
            "put healNode before that",
        )


class Scenario(Part):
    """A file that ``plane bench run`` takes. ``file`` and ``text`` are where it was read from and what was there."""

    api_version: Literal["trafficplane.dev/v1alpha1"]
    kind: Literal["Scenario"]
    metadata: Metadata
    spec: Spec

    @property
    def name(self) -> str:
        return self.metadata.name

    def objectives(self, load: Load) -> Objectives:
        """What must hold for a load: its own objectives, and the scenario's where it has none of its own."""
        return load.objectives.over(self.spec.objectives)

    def timeout_ns(self, load: Load) -> int:
        return self.spec.timeout if load.timeout is None else load.timeout


def read(path: Path) -> tuple[Scenario, str]:
    """The scenario in a file, and the file's text. Raises ScenarioError."""
    return read_as(Scenario, path)


def read_as(schema: type[Whole], path: Path) -> tuple[Whole, str]:
    """The same for any kind of scenario: one with a name, and manifests in its spec."""
    text = text_of(path)
    scenario: Any = parse_as(schema, text, str(path))
    named = f"{schema.__name__} {scenario.name}"
    missing = [
        Problem(str(path), 1, named, f"spec.manifests[{place}]", f"there is no {path.parent / name}")
        for place, name in enumerate(scenario.spec.manifests)
        if not (path.parent / name).exists()
    ]
    if missing:
        raise ScenarioError(missing)
    return scenario, text


def text_of(path: Path) -> str:
    """The text of a scenario's file. Raises ScenarioError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is not UTF-8: {error}"
        raise ScenarioError([Problem(str(path), 0, "Scenario", "", f"cannot be read: {reason}")]) from None


def kind_of(text: str) -> str:
    """The ``kind`` of the first document of a text, empty where it has none."""
    value = next((document.value for document in documents.parse(text)), None)
    kind = at(value, "kind")
    return kind if isinstance(kind, str) else ""


def parse(text: str, file: str = "") -> Scenario:
    """The scenario that the text is; ``file`` is for messages. Raises ScenarioError with everything that is wrong."""
    return parse_as(Scenario, text, file)


def parse_as(schema: type[Whole], text: str, file: str = "") -> Whole:
    """The same for any kind of scenario."""
    found = strict.parse(schema, text, file)
    if isinstance(found, list):
        raise ScenarioError(found)
    return found


def is_address(host: str) -> bool:
    """Whether the host of a URL is an IPv4 address."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
