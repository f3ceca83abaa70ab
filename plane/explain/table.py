"""All that the Ingresses say, in the order in which it is matched. Pure.

Law: the order is that of the compiled Routes, which requests are looked up in. A path that no request can reach is
shown behind the one that takes its requests, so that no path that was written is missing, and so is a canary.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from kernels.layout import PATH_KINDS, PREFIX, REGEX
from plane import dialects, ingressrules, routecompiler
from plane.ingressclass import served
from plane.ingressrules import hosts_of
from plane.matching import Slot, slot_of
from plane.model import Snapshot, service_endpoints, slices_by_service
from plane.printing import aligned
from plane.routes import Origin, Routes

DEFAULT = "default"
COLUMNS = ("HOST", "MATCH", "PATH", "SERVICE", "ENDPOINTS", "INGRESS", "RULE")

Said = tuple[str, Slot]  # what requests a rule takes, of which host


@dataclass(frozen=True)
class Rule:
    """One rule, or a default backend, of an Ingress that is served.

    host       empty: any
    path_type  one of PATH_KINDS, or default for what no path of the host takes
    service    empty where requests go nowhere, being redirected
    endpoints  how many a request may go to now
    shadowed   the rule that takes all of its requests, ``namespace/ingress field``; empty where it gets some
    policies   what is done with its requests besides, by ``plane.policies``
    canary_of  the rule that it takes a part of the requests of; empty where it is no canary
    when       which requests it takes only, empty: any
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
    policies: str = ""
    canary_of: str = ""
    when: str = ""

    def to_json(self) -> dict[str, Any]:
        """An object of all the fields, ``pathType`` and ``canaryOf`` among them."""
        names = {"path_type": "pathType", "canary_of": "canaryOf"}
        return {names.get(name, name): value for name, value in asdict(self).items()}


def routing_table(snapshot: Snapshot) -> list[Rule]:
    """Every rule of every Ingress that is served: exact hosts, wildcards, expressions, any host, each in order."""
    table = routecompiler.compile(snapshot)
    said = _said(snapshot, {table.host_name(row) for row in range(1, len(table.hosts)) if _has_expressions(table, row)})
    rules: list[Rule] = []
    for number in sorted(range(len(table.hosts)), key=lambda row: _host_order(table, row)):
        for plain, origin, rule, canary in _of_host(table, number):
            slot = said.slots.get((rule.host, origin))
            if slot is None and origin.rule < 0:
                slot = rule.host, plain  # it stands in the place of a rule
            taken_by = rules[-1] if rules and _is_twin(rules[-1], rule) else None
            rules.append(_shadowed(rule, taken_by) if taken_by else rule)
            others = [each for each in said.origins[slot] if each != origin] if slot else []
            rules += [_shadowed(_other(snapshot, rule, each), taken_by or rule) for each in others]
            rules += [canary] if canary else []
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
    service, port = ingressrules.find_port(snapshot, origin.namespace, backend)
    number = port.port if port else (backend.get("port") or {}).get("number") or ""
    slices = slices_by_service(snapshot).get((origin.namespace, service.name), ()) if service else ()
    endpoints = ingressrules.usable(service_endpoints(service, slices)[port.name]) if service and port else ()
    return replace(
        rule,
        policies="",
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
    if rule.when:
        where += f"   only {rule.when}"
    if rule.canary_of:
        where += f"   canary of {rule.canary_of}"
    if rule.policies:
        where += f"   {rule.policies}"
    service = f"{rule.service}:{rule.port}" if rule.service else "-"
    return rule.host or "*", rule.path_type, rule.path, service, str(rule.endpoints), rule.ingress, where


def _host_order(table: Routes, row: int) -> tuple[int, str]:
    name = table.host_name(row)
    return (4 if row == 0 else 3 if not name else int(table.hosts[row]["kind"])), name


def _of_host(table: Routes, number: int) -> Iterator[tuple[Slot, Origin, Rule, Rule | None]]:
    """The rules of a host that won their slots, in order of matching, each with its canary, if it has one."""
    host, name = table.hosts[number], table.host_name(number)
    for row in range(int(host["first_path"]), int(host["first_path"]) + int(host["paths"])):
        path = table.paths[row]
        kind, text = PATH_KINDS[path["kind"]], table.string(int(path["text"]), int(path["text_length"]))
        found = _rule(table, name, kind, table.path_text(row) or "/", path["target"], path["origin"], path["policy"])
        found = replace(found, when=str(table.when(path["when"])))
        canary = None
        if path["canary"]:
            split = table.policies.canaries[path["canary"]]
            canary = _rule(table, name, kind, found.path, split["target"], split["origin"], 0)
            canary = replace(canary, canary_of=f"{found.ingress} {found.field}")
        yield Slot(int(path["kind"]), text, bool(path["slash"])), table.origins[path["origin"]], found, canary
    if host["default"] or host["policy"]:
        found = _rule(table, name, DEFAULT, "", host["default"], host["origin"], host["policy"])
        yield Slot(-1, DEFAULT), table.origins[host["origin"]], found, None


def _rule(table: Routes, host: str, kind: str, path: str, target: int, origin: int, policy: int) -> Rule:
    row, where = table.targets[target], table.origins[origin]
    port = table.services[row["service"]]
    ingress, said = f"{where.namespace}/{where.ingress}", str(table.policy(policy))
    endpoints = int(row["endpoints"])
    return Rule(host, kind, path, port.service, port.port, endpoints, ingress, where.field, policies=said)


def _has_expressions(table: Routes, row: int) -> bool:
    host = table.hosts[row]
    first, count = int(host["first_path"]), int(host["paths"])
    return REGEX in table.paths["kind"][first : first + count]


class _Sayings(NamedTuple):
    """Who says a slot, in the order in which they win, and what each says of which host."""

    origins: defaultdict[Said, list[Origin]]
    slots: dict[tuple[str, Origin], Said]


def _said(snapshot: Snapshot, expressions: Collection[str]) -> _Sayings:
    """What all rules say; ``expressions`` are the hosts whose paths are such."""
    found = _Sayings(defaultdict(list), {})
    for obj in served(snapshot):
        asked = dialects.asked(obj, snapshot)
        if asked.canary:
            continue
        namespace, name = obj["metadata"].get("namespace", "default"), obj["metadata"]["name"]
        for number, rule in enumerate(obj["spec"].get("rules") or ()):
            for index, path in enumerate((rule.get("http") or {}).get("paths") or ()):
                origin = Origin(namespace, name, number, index)
                for host in hosts_of(rule, asked):
                    said = host, slot_of(path, host, asked, regex=host in expressions)
                    found.slots[(host, origin)] = said
                    found.origins[said].append(origin)
    return found
