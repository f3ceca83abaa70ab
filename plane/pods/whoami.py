"""traefik/whoami: a server that tells what it was asked, and by whom (https://github.com/traefik/whoami)."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from plane.pods.answer import JSON, Answer, canonical_headers, host, query, read_body, remote_address, routed
from plane.pods.flags import TRUE, Flags
from plane.pods.server import HttpServer, Workload
from plane.pods.spec import ContainerSpec

PROGRAM = "whoami"
NOT_REPEATED = {"User-Agent", "Content-Length"}
DEFAULT_AGENT = "Go-http-client/1.1"


def workload(spec: ContainerSpec) -> Workload:
    """Raises StartError for a flag that the plane does not run, TLS ones among them."""
    env = spec.env()
    known = {"port": env.get("WHOAMI_PORT_NUMBER") or "80", "name": env.get("WHOAMI_NAME", ""), "verbose": "false"}
    flags = Flags(PROGRAM, spec.arguments(PROGRAM), known, switches=("verbose",))
    whoami = Whoami(spec.hostname, spec.ip, flags.text("name"), env)
    table = {"/api": whoami.api, "/health": whoami.health, "/bench": whoami.bench}
    return Workload([HttpServer(spec.listen(flags.port("port")), routed(table, whoami.plain))])


class Whoami:
    def __init__(self, hostname: str, ip: str, name: str, env: Mapping[str, str]):
        self._hostname = hostname
        self._addresses = ["127.0.0.1", ip]
        self._name = name
        self._env = env
        self._health = 200

    async def plain(self, request: web.BaseRequest) -> web.StreamResponse:
        """Who answers, who asks, and the request as it came."""
        lines = [f"Name: {self._name}"] if self._name else []
        lines += [f"Hostname: {self._hostname}", *(f"IP: {address}" for address in self._addresses)]
        lines += [f"RemoteAddr: {remote_address(request)}", ""]
        headers = canonical_headers(request)
        head = [
            f"{request.method} {request.raw_path} HTTP/1.1",
            f"Host: {host(request)}",
            f"User-Agent: {headers.get('User-Agent', [DEFAULT_AGENT])[0]}",
        ]
        body = await read_body(request)
        head += [f"Content-Length: {len(body)}"] if body else []
        head += [f"{name}: {value}" for name, rows in headers.items() if name not in NOT_REPEATED for value in rows]
        whole = "\n".join(lines).encode() + ("\r\n".join(head) + "\r\n\r\n").encode("utf-8", "surrogateescape") + body
        environment = "".join(f"{name}={value}\n" for name, value in self._shown(request).items())
        return Answer(whole + environment.encode())

    async def api(self, request: web.BaseRequest) -> web.StreamResponse:
        """The same as JSON, without what is empty."""
        values: dict[str, Any] = {
            "hostname": self._hostname,
            "ip": self._addresses,
            "headers": canonical_headers(request),
            "url": request.raw_path,
            "host": host(request),
            "method": request.method,
            "name": self._name,
            "remoteAddr": remote_address(request),
            "environ": self._shown(request),
        }
        text = json.dumps({name: value for name, value in values.items() if value}, separators=(",", ":"))
        cors = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "*"}
        return Answer(text + "\n", content_type=JSON, headers=cors)

    async def health(self, request: web.BaseRequest) -> web.StreamResponse:
        """GET answers with the status that was last POSTed, 200 at first."""
        if request.method != "POST":
            return Answer(status=self._health)
        try:
            status = json.loads(await read_body(request))
        except ValueError as problem:
            return Answer(f"{problem}\n", 400)
        if not isinstance(status, int) or not 200 <= status < 600:
            return Answer("the body must be a status code, 200 to 599\n", 400)
        self._health = status
        return Answer()

    async def bench(self, request: web.BaseRequest) -> web.StreamResponse:
        return Answer("1", content_type="text/plain")

    def _shown(self, request: web.BaseRequest) -> Mapping[str, str]:
        return self._env if query(request).get("env") in TRUE else {}
