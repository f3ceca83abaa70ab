"""All that the Ingresses say, in the order in which it is matched. Pure.

Law: the order is that of the compiled Routes, which requests are looked up in. A path that no request can reach is
shown behind the one that takes its requests, so that no path that was written is missing.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kernels.layout import PATH_KINDS, PREFIX
from plane import routes
from plane.ingressclass import served
from plane.model import Snapshot, service_endpoints, slices_by_service
from plane.printing import aligned
from plane.routes import Origin, Routes, matched

DEFAULT = "default"
COLUMNS = ("HOST", "MATCH", "PATH", "SERVICE", "ENDPOINTS", "INGRESS", "RULE")

# What requests a rule takes: (host, kind, text, whether a slash ends it).
Slot = tuple[str, str, str, bool]


@dataclass(frozen=True)
class Rule:
    """One rule, or a default backend, of an Ingress that is served.

    host       empty: any
    path_type  Exact, Prefix, or default for what no path of the host takes
    endpoints  how many a request may go to now
    shadowed   the rule that takes all of its requests, ``namespace/ingress field``; empty where it gets some
    """

    host: str
    path_type: str
    path: str
    service: str
    port: int | str
    endpoints: int
    ingress: str
    field: str
    shadowed: str = ""

    def to_json(self) -> dict[str, Any]:
        """An object of ``host, pathType, path, service, port, endpoints, ingress, field, shadowed``."""
        return {"pathType" if name == "path_type" else name: value for name, value in asdict(self).items()}


def routing_table(snapshot: Snapshot) -> list[Rule]:
    """Every rule of every Ingress that is served: exact hosts, wildcards, then rules for any host, each in order."""
    table = routes.compile(snapshot)
    said = _said(snapshot)
    rules: list[Rule] = []
    for number in sorted(range(len(table.hosts)), key=lambda row: _host_order(table, row)):
        for slot, rule in _of_host(table, number):
            taken_by = rules[-1] if rules and _is_twin(rules[-1], rule) else None
            rules.append(_shadowed(rule, taken_by) if taken_by else rule)
            rules += [_shadowed(_other(snapshot, rule, origin), taken_by or rule) for origin in said[slot][1:]]
    return rules


def _is_twin(before: Rule, rule: Rule) -> bool:
    """Whether a Prefix without a slash stands behind the same with one, which takes its requests too."""
    return before.path_type == rule.path_type == PATH_KINDS[PREFIX] and before.path == f"{rule.path}/" != "//"


def _shadowed(rule: Rule, by: Rule) -> Rule:
    return replace(rule, shadowed=by.shadowed or f"{by.ingress} {by.field}")


def _other(snapshot: Snapshot, rule: Rule, origin: Origin) -> Rule:
    """The rule of another Ingress that says the same as ``rule``."""
    obj = snapshot.get("Ingress", origin.namespace, origin.ingress) or {}
    backend = obj["spec"]["rules"][origin.rule]["http"]["paths"][origin.path]["backend"].get("service") or {}
    service, port = routes.find_port(snapshot, origin.namespace, backend)
    number = port.port if port else (backend.get("port") or {}).get("number") or ""
    slices = slices_by_service(snapshot).get((origin.namespace, service.name), ()) if service else ()
    endpoints = routes.usable(service_endpoints(service, slices)[port.name]) if service and port else ()
    return replace(
        rule,
        service=f"{origin.namespace}/{backend.get('name', '')}",
        port=number,
        endpoints=len(endpoints),
        ingress=f"{origin.namespace}/{origin.ingress}",
        field=origin.field,
    )


def render(rules: Sequence[Rule]) -> str:
    """The table as text for people."""
    if not rules:
        return "no Ingress is served\n"
    return aligned([COLUMNS, *map(_cells, rules)])


def _cells(rule: Rule) -> tuple[str, ...]:
    where = f"{rule.field}   shadowed by {rule.shadowed}" if rule.shadowed else rule.field
    service = f"{rule.service}:{rule.port}"
    return rule.host or "*", rule.path_type, rule.path, service, str(rule.endpoints), rule.ingress, where


def _host_order(table: Routes, row: int) -> tuple[int, str]:
    name = table.host_name(row)
    return (3 if row == 0 else 2 if not name else 1 if name.startswith("*") else 0), name


def _of_host(table: Routes, number: int) -> Iterator[tuple[Slot, Rule]]:
    """The rules of a host that won their slots, in order of matching."""
    host, name = table.hosts[number], table.host_name(number)
    for row in range(int(host["first_path"]), int(host["first_path"]) + int(host["paths"])):
        path = table.paths[row]
        kind, text = PATH_KINDS[path["kind"]], table.string(int(path["text"]), int(path["text_length"]))
        found = _rule(table, name, kind, table.path_text(row) or "/", int(path["target"]), int(path["origin"]))
        yield (name, kind, text, bool(path["slash"])), found
    if host["default"]:
        yield (name, DEFAULT, "", False), _rule(table, name, DEFAULT, "", int(host["default"]), int(host["origin"]))


def _rule(table: Routes, host: str, kind: str, path: str, target: int, origin: int) -> Rule:
    row, where = table.targets[target], table.origins[origin]
    port = table.services[row["service"]]
    ingress = f"{where.namespace}/{where.ingress}"
    return Rule(host, kind, path, port.service, port.port, int(row["endpoints"]), ingress, where.field)


def _said(snapshot: Snapshot) -> defaultdict[Slot, list[Origin]]:
    """Who says a slot, in the order in which they win."""
    found: defaultdict[Slot, list[Origin]] = defaultdict(list)
    for obj in served(snapshot):
        namespace, name = obj["metadata"].get("namespace", "default"), obj["metadata"]["name"]
        for number, rule in enumerate(obj["spec"].get("rules") or ()):
            for index, path in enumerate((rule.get("http") or {}).get("paths") or ()):
                kind, text, slash = matched(path)
                slot = (rule.get("host") or "").lower(), PATH_KINDS[kind], text, slash
                found[slot].append(Origin(namespace, name, number, index))
    return found
