"""The echo server of the Ingress and Gateway API conformance suites, which also stands in for images the plane lacks.

It answers each request with the request as JSON
(https://github.com/kubernetes-sigs/gateway-api/tree/main/conformance/echo-basic).
"""

from collections.abc import Mapping

from aiohttp import web

from plane.pods.answer import Answer, Handler, canonical_headers, host, json_answer, routed
from plane.pods.server import HttpServer, Server, UdpServer, Workload
from plane.pods.spec import ContainerSpec, StartError

DEFAULT_PORT = "3000"
# What a container without ``ports`` most often listens on.
STAND_IN_PORT = 80


def workload(spec: ContainerSpec) -> Workload:
    """The conformance echo server: on ``HTTP_PORT``, and naming itself by what its ``env`` says.

    Raises StartError where the port is wrong.
    """
    env = spec.env()
    port = env.get("HTTP_PORT") or DEFAULT_PORT
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise StartError("RunContainerError", f'env HTTP_PORT "{port}" is no port, choose 1 to 65535')
    names = {"namespace": "NAMESPACE", "ingress": "INGRESS_NAME", "service": "SERVICE_NAME", "pod": "POD_NAME"}
    identity = {field: env.get(variable, "") for field, variable in names.items()}
    return Workload([HttpServer(spec.listen(int(port)), echo(identity))])


def stand_in(spec: ContainerSpec) -> Workload:
    """An echo server on every declared port of an image that the plane does not run, on port 80 where it declares none.

    UDP ports send each datagram back.
    """
    identity = {"namespace": spec.namespace, "ingress": "", "service": "", "pod": spec.pod_name}
    tcp, udp = spec.ports(), spec.ports("UDP")
    ports = tcp if tcp or udp else [STAND_IN_PORT]
    servers: list[Server] = [HttpServer(spec.listen(port), echo(identity)) for port in ports]
    return Workload([*servers, *(UdpServer(spec.listen(port), lambda data, client: data) for port in udp)])


def echo(identity: Mapping[str, str]) -> Handler:
    async def healthy(request: web.BaseRequest) -> web.StreamResponse:
        return Answer("OK")

    async def request_as_json(request: web.BaseRequest) -> web.StreamResponse:
        return json_answer(
            {
                "path": request.raw_path,
                "host": host(request),
                "method": request.method,
                "proto": f"HTTP/{request.version.major}.{request.version.minor}",
                "headers": canonical_headers(request),
                **identity,
            }
        )

    return routed({"/health": healthy}, request_as_json)
