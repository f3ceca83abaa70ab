"""What the tables of ``plane get`` and of the API's Table responses show of each kind: the columns of kubectl.

A cell is made from the object alone (and the time, for ages), as the API server's printers do
(https://github.com/kubernetes/kubernetes/blob/master/pkg/printers/internalversion/printers.go).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from plane.model import Object

Cell = str | int
NONE = "<none>"
UNKNOWN = "<unknown>"
LISTED = 3  # hosts, ports or endpoints in a cell before "+ N more..."


@dataclass(frozen=True)
class Column:
    """One column: ``wide`` ones are left out unless asked for, ``format`` is ``name`` for the object's name."""

    name: str
    cell: Callable[[Object, datetime], Cell]
    wide: bool = False
    type: str = "string"
    format: str = ""


def columns_of(kind: str) -> tuple[Column, ...]:
    """The columns of a kind, from NAME on."""
    return COLUMNS[kind]


def parsed_time(text: str) -> datetime:
    """RFC 3339, as in ``creationTimestamp``; raises ValueError."""
    return datetime.fromisoformat(text)


def duration(seconds: float) -> str:
    """A span of time in two units at most: ``45s``, ``3m20s``, ``5h``, ``2d3h``, ``40d`` (kubectl's HumanDuration)."""
    whole = int(seconds)
    if whole < 0:
        return "0s" if whole == -1 else "<invalid>"
    if whole < 120:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def since(timestamp: str | None, now: datetime) -> str:
    """How long ago a timestamp was, ``<unknown>`` where there is none."""
    if not timestamp:
        return UNKNOWN
    return duration((now - parsed_time(timestamp)).total_seconds())


def utc_now() -> datetime:
    return datetime.now(UTC)


def joined(items: Iterable[object], empty: str = NONE) -> str:
    return ",".join(map(str, items)) or empty


def pairs(mapping: dict[str, str] | None) -> str:
    """A selector or labels as ``a=b,c=d``."""
    return joined(f"{name}={value}" for name, value in sorted((mapping or {}).items()))


def pod_status(pod: Object) -> str:
    """The STATUS column: the phase, or why a pod is not what its phase says."""
    status = pod.get("status") or {}
    text = str(status.get("reason") or status.get("phase") or "Unknown")
    for row in status.get("containerStatuses") or ():
        state = row.get("state") or {}
        for name in ("waiting", "terminated"):
            if reason := (state.get(name) or {}).get("reason"):
                text = reason
    return "Terminating" if "deletionTimestamp" in pod["metadata"] else text


def service_ports(service: Object) -> str:
    """``80/TCP,443:30443/TCP``."""
    return joined(
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in service["spec"].get("ports") or ()
    )


def ingress_addresses(obj: Object) -> list[Object]:
    """``status.loadBalancer.ingress`` of a Service or an Ingress."""
    return list(((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ())


def ingress_ports(ingress: Object) -> list[int]:
    """The ports an Ingress answers on: http, and https where it has TLS; those really bound once it is served."""
    bound = [port["port"] for row in ingress_addresses(ingress)[:1] for port in row.get("ports") or ()]
    ports = bound if len(bound) >= 2 else [80, 443]
    return ports[:2] if ingress["spec"].get("tls") else ports[:1]


def node_condition(node: Object) -> str:
    rows = (node.get("status") or {}).get("conditions") or ()
    ready = next((row["status"] for row in rows if row["type"] == "Ready"), "Unknown")
    cordoned = ",SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else ""
    return {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown") + cordoned


def node_address(node: Object) -> str:
    rows = (node.get("status") or {}).get("addresses") or ()
    return next((row["address"] for row in rows if row["type"] == "InternalIP"), NONE)


def _path(*names: str, empty: Cell = NONE) -> Callable[[Object, datetime], Cell]:
    """A cell that is a field of the object; ``empty`` where it is not there."""

    def cell(obj: Object, now: datetime) -> Cell:
        value: Any = obj
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return empty if value in (None, "") else value

    return cell


def _count(*names: str) -> Callable[[Object, datetime], Cell]:
    return _path(*names, empty=0)


def _restarts(pod: Object, now: datetime) -> int:
    return sum(row.get("restartCount", 0) for row in (pod.get("status") or {}).get("containerStatuses") or ())


def _containers_ready(pod: Object, now: datetime) -> str:
    rows = (pod.get("status") or {}).get("containerStatuses") or ()
    return f"{sum(bool(row.get('ready')) for row in rows)}/{len(pod['spec'].get('containers') or ())}"


def _external_ip(service: Object, now: datetime) -> str:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", NONE))
    addresses = [row.get("ip") or row.get("hostname", "") for row in ingress_addresses(service)]
    pending = "<pending>" if spec.get("type") == "LoadBalancer" else NONE
    return joined([*addresses, *(spec.get("externalIPs") or ())], pending)


def _hosts(ingress: Object, now: datetime) -> str:
    return listed([rule["host"] for rule in ingress["spec"].get("rules") or () if rule.get("host")], "*")


def listed(items: list[str], empty: str = NONE) -> str:
    """The first few, and how many more there are."""
    rest = f" + {len(items) - LISTED} more..." if len(items) > LISTED else ""
    return joined(items[:LISTED], empty) + rest


def _slice_endpoints(obj: Object, now: datetime) -> str:
    return listed([address for row in obj.get("endpoints") or () for address in row.get("addresses") or ()], "<unset>")


def _slice_ports(obj: Object, now: datetime) -> str:
    return listed([str(port.get("port") or "*") for port in obj.get("ports") or ()], "<unset>")


def _template(what: str) -> Callable[[Object, datetime], str]:
    def cell(obj: Object, now: datetime) -> str:
        containers = obj["spec"].get("template", {}).get("spec", {}).get("containers") or ()
        return joined(container[what] for container in containers)

    return cell


def selector_text(selector: Object | None) -> str:
    """A LabelSelector as ``a=b,c in (d,e)``."""
    selector = selector or {}
    words = [f"{name}={value}" for name, value in sorted((selector.get("matchLabels") or {}).items())]
    for row in selector.get("matchExpressions") or ():
        values = ",".join(row.get("values") or ())
        words.append(
            {
                "In": f"{row['key']} in ({values})",
                "NotIn": f"{row['key']} notin ({values})",
                "Exists": row["key"],
                "DoesNotExist": f"!{row['key']}",
            }[row["operator"]]
        )
    return joined(words)


def _involved(event: Object, now: datetime) -> str:
    about = event.get("involvedObject") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def event_time(event: Object) -> str | None:
    return (
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or event["metadata"].get("creationTimestamp")
    )


NAME = Column("Name", lambda obj, now: obj["metadata"]["name"], format="name")
AGE = Column("Age", lambda obj, now: since(obj["metadata"].get("creationTimestamp"), now))

COLUMNS: dict[str, tuple[Column, ...]] = {
    "Namespace": (NAME, Column("Status", _path("status", "phase")), AGE),
    "Node": (
        NAME,
        Column("Status", lambda obj, now: node_condition(obj)),
        Column("Roles", lambda obj, now: NONE),
        AGE,
        Column("Version", _path("status", "nodeInfo", "kubeletVersion")),
        Column("Internal-IP", lambda obj, now: node_address(obj), wide=True),
        Column("Pod-CIDR", _path("spec", "podCIDR"), wide=True),
    ),
    "Pod": (
        NAME,
        Column("Ready", _containers_ready),
        Column("Status", lambda obj, now: pod_status(obj)),
        Column("Restarts", _restarts, type="integer"),
        AGE,
        Column("IP", _path("status", "podIP"), wide=True),
        Column("Node", _path("spec", "nodeName"), wide=True),
        Column("Nominated Node", lambda obj, now: NONE, wide=True),
        Column("Readiness Gates", lambda obj, now: NONE, wide=True),
    ),
    "Service": (
        NAME,
        Column("Type", _path("spec", "type", empty="ClusterIP")),
        Column("Cluster-IP", _path("spec", "clusterIP")),
        Column("External-IP", _external_ip),
        Column("Port(s)", lambda obj, now: service_ports(obj)),
        AGE,
        Column("Selector", lambda obj, now: pairs(obj["spec"].get("selector")), wide=True),
    ),
    "Secret": (
        NAME,
        Column("Type", _path("type", empty="Opaque")),
        Column("Data", lambda obj, now: len(obj.get("data") or ()), type="integer"),
        AGE,
    ),
    "ConfigMap": (
        NAME,
        Column("Data", lambda obj, now: len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), type="integer"),
        AGE,
    ),
    "Event": (
        Column("Last Seen", lambda obj, now: since(event_time(obj), now)),
        Column("Type", _path("type")),
        Column("Reason", _path("reason")),
        Column("Object", _involved),
        Column("Source", _path("source", "component"), wide=True),
        Column("Message", lambda obj, now: str(obj.get("message", "")).strip()),
        Column("Count", lambda obj, now: obj.get("count", 1), wide=True, type="integer"),
        Column("Name", lambda obj, now: obj["metadata"]["name"], wide=True, format="name"),
    ),
    "Deployment": (
        NAME,
        Column(
            "Ready",
            lambda obj, now: f"{_count('status', 'readyReplicas')(obj, now)}/{obj['spec'].get('replicas', 1)}",
        ),
        Column("Up-to-date", _count("status", "updatedReplicas"), type="integer"),
        Column("Available", _count("status", "availableReplicas"), type="integer"),
        AGE,
        Column("Containers", _template("name"), wide=True),
        Column("Images", _template("image"), wide=True),
        Column("Selector", lambda obj, now: selector_text(obj["spec"].get("selector")), wide=True),
    ),
    "ReplicaSet": (
        NAME,
        Column("Desired", _path("spec", "replicas", empty=1), type="integer"),
        Column("Current", _count("status", "replicas"), type="integer"),
        Column("Ready", _count("status", "readyReplicas"), type="integer"),
        AGE,
        Column("Containers", _template("name"), wide=True),
        Column("Images", _template("image"), wide=True),
        Column("Selector", lambda obj, now: selector_text(obj["spec"].get("selector")), wide=True),
    ),
    "EndpointSlice": (
        NAME,
        Column("AddressType", _path("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        AGE,
    ),
    "Ingress": (
        NAME,
        Column(
            "Class",
            lambda obj, now: (
                obj["spec"].get("ingressClassName")
                or (obj["metadata"].get("annotations") or {}).get("kubernetes.io/ingress.class")
                or NONE
            ),
        ),
        Column("Hosts", _hosts),
        Column("Address", lambda obj, now: joined((row.get("ip", "") for row in ingress_addresses(obj)), "")),
        Column("Ports", lambda obj, now: ", ".join(map(str, ingress_ports(obj)))),
        AGE,
    ),
    "IngressClass": (
        NAME,
        Column("Controller", _path("spec", "controller")),
        Column("Parameters", lambda obj, now: _parameters(obj)),
        AGE,
    ),
}


def _parameters(obj: Object) -> str:
    given = obj["spec"].get("parameters") or {}
    if not given:
        return NONE
    kind = given["kind"] + (f".{given['apiGroup']}" if given.get("apiGroup") else "")
    return f"{kind}/{given['name']}"
