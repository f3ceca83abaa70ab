"""Connections through Services as people see them: in names, from the columns that relays give. Pure."""

from collections.abc import Mapping
from typing import Any

from kernels.layout import ALGORITHMS, CONNECTION_STATES, UDP
from plane.addresses import int_to_ip
from plane.frontends import frontends_of, nodes_of
from plane.model import Object, Snapshot


def described(
    snapshot: Snapshot, pods: Mapping[str, str], columns: Mapping[str, Mapping[str, Any]], now_ns: int
) -> list[Object]:
    """An object for each connection, oldest first.

    pods     address → namespace/name
    columns  node → columns of ``Proxy.open``
    """
    services = {
        (each.ip, each.port, each.service_port.protocol): (
            f"{each.service.full_name}:{each.service_port.name or each.service_port.port}"
        )
        for each in frontends_of(snapshot, nodes_of(snapshot))
    }
    rows = [
        _described(node, {name: column[i].item() for name, column in table.items()}, services, pods, now_ns)
        for node, table in columns.items()
        for i in range(len(table["opened_ns"]))
    ]
    return sorted(rows, key=lambda row: -row["ageSeconds"])


def _described(
    node: str,
    row: Mapping[str, int],
    services: Mapping[tuple[str, int, str], str],
    pods: Mapping[str, str],
    now_ns: int,
) -> Object:
    frontend = int_to_ip(row["frontend_ip"]), row["frontend_port"], "UDP" if row["proto"] == UDP else "TCP"
    backend = int_to_ip(row["backend_ip"])
    tries = f", offered to {row['tries']}" if row["tries"] > 1 else ""
    unknown = "kept since its first datagram" if row["proto"] == UDP else "picked by earlier tables"
    algorithm = ALGORITHMS[row["algorithm"]] if row["algorithm"] < len(ALGORITHMS) else unknown
    return {
        "node": node,
        "client": f"{int_to_ip(row['client_ip'])}:{row['client_port']}",
        "service": services.get(frontend, ""),
        "frontend": f"{frontend[0]}:{frontend[1]}/{frontend[2]}",
        "backend": f"{backend}:{row['backend_port']}",
        "pod": pods.get(backend, ""),
        "state": CONNECTION_STATES[row["state"]],
        "because": f"{algorithm}{tries}",
        "bytesToBackend": row["to_backend"],
        "bytesToClient": row["to_client"],
        "ageSeconds": round((now_ns - row["opened_ns"]) / 1e9, 3),
    }
