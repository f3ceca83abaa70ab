"""``spec.healthCheckNodePort``: where a load balancer asks a node whether it has endpoints of a Service.

Law: as kube-proxy's: on every node's own address, for Services of type LoadBalancer with externalTrafficPolicy Local;
200 where the node has ready endpoints, else 503, also where only terminating ones are left. A change of the answer is
one assignment; a port that comes or goes is opened or closed
(https://github.com/kubernetes/kubernetes/blob/master/pkg/proxy/healthcheck/service_health.go).
"""

import asyncio
import functools
import socket
from collections.abc import Iterable
from typing import NamedTuple

from aiohttp import web

from plane.endpointindex import Change, EndpointIndex
from plane.model import Name, Service, Snapshot, merged
from plane.sharing import bind_alone

# What answers under way get when their port goes. It must not be 0, by which aiohttp means without an end.
CLOSING_S = 0.1


class HealthCheck(NamedTuple):
    """One Service's. ``local_endpoints``: how many ready ones each node has, by N of the node."""

    port: int
    namespace: str
    service: str
    local_endpoints: dict[int, int]


def health_checks(snapshot: Snapshot) -> tuple[HealthCheck, ...]:
    """Those of all Services that have one. Pure."""
    index = EndpointIndex()
    return Compiler().compile(snapshot, index, index.follow(snapshot))


class Compiler:
    """``health_checks`` of one Snapshot after the other, at the cost of what differs between them."""

    def __init__(self) -> None:
        self._checks: dict[Name, HealthCheck] = {}
        self._compiled: tuple[HealthCheck, ...] = ()

    def compile(self, snapshot: Snapshot, index: EndpointIndex, change: Change) -> tuple[HealthCheck, ...]:
        """The index has followed the Snapshot, and ``change`` is what came of it; the same tuple if nothing differs."""
        differs = False
        for name in change.services:
            before, obj = self._checks.pop(name, None), snapshot.get("Service", *name)
            if obj and obj["spec"].get("healthCheckNodePort") and (check := _of_service(Service.of(obj), index)):
                self._checks[name] = check
            differs |= before != self._checks.get(name)
        if differs:
            self._compiled = tuple(check for _, check in sorted(self._checks.items()))
        return self._compiled


def _of_service(service: Service, index: EndpointIndex) -> HealthCheck | None:
    if not service.health_port or not service.external_local or service.type != "LoadBalancer":
        return None
    by_port = merged(service, index.of_service((service.namespace, service.name)))
    # An address counts once, whatever number of ports it has; terminating ones are not ready.
    ready = {(row.ip, row.node) for rows in by_port.values() for row in rows if row.ready}
    counts = {node.number: sum(at == node.name for _, at in ready) for node in index.nodes}
    return HealthCheck(service.health_port, service.namespace, service.name, counts)


class HealthServer:
    """Answers on one node's address. All methods are for the loop it is used in."""

    def __init__(self, address: str, node: int):
        self._address = address
        self._node = node
        self._checks: dict[int, HealthCheck] = {}
        self._servers: dict[int, tuple[asyncio.Server, web.Server]] = {}

    async def install(self, checks: Iterable[HealthCheck]) -> tuple[str, ...]:
        """Answers these from here on, but for those of which it returns a line why it cannot."""
        problems = []
        wanted = {check.port: check for check in checks}
        await self._close(self._servers.keys() - wanted.keys())  # while it goes, a port answers as before
        self._checks = wanted
        for port in self._checks.keys() - self._servers.keys():
            front = web.Server(functools.partial(self._answer, port))
            try:
                server = await asyncio.get_running_loop().create_server(front, sock=self._bound(port))
            except OSError as error:
                named = f"{self._checks[port].namespace}/{self._checks[port].service}"
                problems.append(
                    f"cannot listen on {self._address}:{port} for spec.healthCheckNodePort of Service {named}: "
                    f"{error.strerror}; stop what has it, or choose another port"
                )
                continue
            self._servers[port] = server, front
        return tuple(problems)

    async def stop(self) -> None:
        await self._close(self._servers.keys())

    def _bound(self, port: int) -> socket.socket:
        """A socket that has the port but does not listen. Raises OSError."""
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bind_alone(bound, self._address, port)
        except OSError:
            bound.close()
            raise
        return bound

    async def _close(self, ports: Iterable[int]) -> None:
        gone = [self._servers.pop(port) for port in tuple(ports)]
        for server, _ in gone:
            server.close()
        await asyncio.gather(*(front.shutdown(CLOSING_S) for _, front in gone))
        for server, _ in gone:
            await server.wait_closed()

    async def _answer(self, port: int, request: web.BaseRequest) -> web.Response:
        check = self._checks[port]
        count = check.local_endpoints.get(self._node, 0)
        body = {
            "service": {"namespace": check.namespace, "name": check.service},
            "localEndpoints": count,
            "serviceProxyHealthy": True,
        }
        headers = {"X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": str(count)}
        return web.json_response(body, status=200 if count else 503, headers=headers)
