"""netexec's ``/dial``: requests that the pod makes, from its own address, for tests of who reaches whom."""

import asyncio
import json
import socket

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from plane.dns.resolver import Resolver
from plane.pods import resolving
from plane.pods.answer import Answer, query

TIMEOUT_S = 5.0
UDP_LIMIT = 2048


class Dialler:
    """Dials from one pod's address, whose ``resolver`` is asked for names."""

    def __init__(self, source: str, resolver: Resolver):
        self._source = source
        self._resolver = resolver

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """``/dial?host=&port=&request=&protocol=http|udp&tries=``: JSON with ``responses`` and ``errors``."""
        values = query(request)
        host, port, wanted = (values.get(name, "") for name in ("host", "port", "request"))
        protocol, tries = values.get("protocol", "http").lower() or "http", values.get("tries", "") or "1"
        if not tries.isdecimal():
            return Answer(f'tries parameter is invalid: "{tries}"\n', 400)
        if not wanted:
            return Answer("request parameter not specified\n", 400)
        if protocol not in ("http", "udp"):
            return Answer(f"unsupported protocol. {protocol}\n", 400)
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            return Answer(f'host and/or port param are invalid: "{host}:{port}"\n', 400)
        dial = self._http if protocol == "http" else self._udp
        responses: list[str] = []
        errors: list[str] = []
        for _ in range(int(tries)):
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    responses.append(await dial(host, int(port), wanted))
            except TimeoutError:
                errors.append(f"no answer from {host}:{port} within {TIMEOUT_S:g} s")
            except (OSError, aiohttp.ClientError) as problem:
                errors.append(str(problem))
        output = {name: rows for name, rows in (("responses", responses), ("errors", errors)) if rows}
        return Answer(json.dumps(output))

    async def _http(self, host: str, port: int, wanted: str) -> str:
        connector = aiohttp.TCPConnector(
            local_addr=(self._source, 0), force_close=True, resolver=_Names(self._resolver)
        )
        url = URL(f"http://{host}:{port}/{wanted}", encoded=True)
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
            return (await response.read()).decode("utf-8", "replace")

    async def _udp(self, host: str, port: int, wanted: str) -> str:
        loop = asyncio.get_running_loop()
        address = (await resolving.addresses(self._resolver, host))[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dialling:
            dialling.setblocking(False)
            dialling.bind((self._source, 0))
            await loop.sock_connect(dialling, (address, port))
            await loop.sock_sendall(dialling, wanted.encode())
            return (await loop.sock_recv(dialling, UDP_LIMIT)).decode("utf-8", "replace")


class _Names(AbstractResolver):
    """A pod's names, for aiohttp's client."""

    def __init__(self, resolver: Resolver):
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in await resolving.addresses(self._resolver, host)
        ]

    async def close(self) -> None:
        """Nothing is held."""
