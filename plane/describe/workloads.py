"""Descriptions of what runs: Pods, what makes them, and the Nodes they are on. Pure."""

from collections.abc import Sequence

from plane.columns import NONE, joined, node_address, node_condition, pod_status, selector_text
from plane.describe.text import Row, block, conditions, fields, lines
from plane.model import Object, Snapshot


def pod(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    spec, status = obj["spec"], obj.get("status") or {}
    node = spec.get("nodeName")
    grace = obj["metadata"].get("deletionGracePeriodSeconds")
    rows: list[Row] = [
        ("Node", f"{node}/{status.get('hostIP', '')}" if node else NONE),
        ("Start Time", status.get("startTime", NONE)),
        ("Status", pod_status(obj) + (f" (grace period {grace}s)" if grace is not None else "")),
        ("IP", status.get("podIP", NONE)),
    ]
    reports = {row["name"]: row for row in status.get("containerStatuses") or ()}
    containers = "Containers:\n" + "".join(
        _container(container, reports.get(container["name"])) for container in spec.get("containers") or ()
    )
    return rows, [containers, conditions(obj)]


def _container(container: Object, report: Object | None) -> str:
    rows: list[Row] = [("Image", container["image"])]
    if ports := container.get("ports"):
        rows.append(("Ports", joined(f"{row['containerPort']}/{row.get('protocol', 'TCP')}" for row in ports)))
    rows += [(name.capitalize(), container[name]) for name in ("command", "args") if container.get(name)]
    if report is not None:
        rows += [
            ("State", _state(report)),
            ("Ready", str(bool(report.get("ready")))),
            ("Restart Count", str(report.get("restartCount", 0))),
        ]
    if probe := container.get("readinessProbe"):
        rows.append(("Readiness", _probe(probe)))
    if environment := container.get("env"):
        rows.append(("Environment", [_variable(row) for row in environment]))
    return f"  {container['name']}:\n{fields(rows, '    ')}"


def _state(report: Object) -> str:
    state = report.get("state") or {}
    for name, row in state.items():
        words = [
            row.get("reason", ""),
            row.get("message", ""),
            f"since {row['startedAt']}" if "startedAt" in row else "",
        ]
        detail = ", ".join(word for word in words if word)
        return f"{name.capitalize()} ({detail})" if detail else name.capitalize()
    return "Waiting"


def _probe(probe: Object) -> str:
    if http := probe.get("httpGet"):
        what = f"http-get {http.get('scheme', 'HTTP').lower()}://:{http['port']}{http.get('path', '/')}"
    elif tcp := probe.get("tcpSocket"):
        what = f"tcp-socket :{tcp['port']}"
    else:
        what = next(iter(probe), "none")
    numbers = (
        ("delay", probe.get("initialDelaySeconds", 0), "s"),
        ("timeout", probe.get("timeoutSeconds", 1), "s"),
        ("period", probe.get("periodSeconds", 10), "s"),
        ("#success", probe.get("successThreshold", 1), ""),
        ("#failure", probe.get("failureThreshold", 3), ""),
    )
    return f"{what} " + " ".join(f"{name}={value}{unit}" for name, value, unit in numbers)


def _variable(row: Object) -> str:
    source = row.get("valueFrom") or {}
    if reference := source.get("fieldRef"):
        return f"{row['name']}: ({reference.get('apiVersion', 'v1')}:{reference['fieldPath']})"
    return f"{row['name']}: {row.get('value', '')}" if not source else f"{row['name']}: <set from {next(iter(source))}>"


def _template(obj: Object) -> str:
    template = obj["spec"]["template"]
    labels = lines((template.get("metadata") or {}).get("labels"), "=")
    containers = "".join(
        f"  {line}\n" for row in template["spec"]["containers"] for line in _container(row, None).splitlines()
    )
    return f"Pod Template:\n{fields([('Labels', labels)], '  ')}  Containers:\n{containers}"


def deployment(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    spec, status = obj["spec"], obj.get("status") or {}
    counts = {"updated": "updatedReplicas", "total": "replicas", "available": "availableReplicas"}
    words = [
        f"{status.get(field, 0)} {word}" for word, field in {**counts, "unavailable": "unavailableReplicas"}.items()
    ]
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    rows: list[Row] = [
        ("Selector", selector_text(spec.get("selector"))),
        ("Replicas", " | ".join([f"{spec.get('replicas', 1)} desired", *words])),
        ("StrategyType", strategy.get("type", "RollingUpdate")),
    ]
    if rolling:
        text = f"{rolling.get('maxUnavailable')} max unavailable, {rolling.get('maxSurge')} max surge"
        rows.append(("RollingUpdateStrategy", text))
    table: list[Sequence[str]] = [("Name", "Desired", "Current", "Ready")]
    for row in snapshot.all("ReplicaSet"):
        if _owns(obj, row):
            report = row.get("status") or {}
            numbers = (row["spec"].get("replicas", 1), report.get("replicas", 0), report.get("readyReplicas", 0))
            table.append((row["metadata"]["name"], *map(str, numbers)))
    return rows, [_template(obj), block("ReplicaSets", table)]


def _owns(owner: Object, obj: Object) -> bool:
    return any(row["uid"] == owner["metadata"].get("uid") for row in obj["metadata"].get("ownerReferences") or ())


def replica_set(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    spec, status = obj["spec"], obj.get("status") or {}
    owned = [(row.get("status") or {}).get("phase") for row in snapshot.all("Pod") if _owns(obj, row)]
    counts = [f"{owned.count(phase)} {phase}" for phase in ("Running", "Pending", "Succeeded", "Failed")]
    rows: list[Row] = [
        ("Selector", selector_text(spec.get("selector"))),
        ("Replicas", f"{status.get('replicas', 0)} current / {spec.get('replicas', 1)} desired"),
        ("Pods Status", " / ".join(counts)),
    ]
    return rows, [_template(obj)]


def node(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    rows: list[Row] = [
        ("Status", node_condition(obj)),
        ("InternalIP", node_address(obj)),
        ("PodCIDR", (obj.get("spec") or {}).get("podCIDR", NONE)),
    ]
    name = obj["metadata"]["name"]
    pods = [
        (row["metadata"]["namespace"], row["metadata"]["name"], address, pod_status(row))
        for row in snapshot.all("Pod")
        if row["spec"].get("nodeName") == name
        for address in [(row.get("status") or {}).get("podIP", NONE)]
    ]
    return rows, [conditions(obj), block("Pods", [("Namespace", "Name", "IP", "Status"), *pods])]
