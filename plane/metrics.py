"""``/metrics``: what an agent counts, in Prometheus' formats, on an address and port of its own.

Law: a scrape asks collectors and changes nothing; counting goes on meanwhile. The port is the one that operators know:
10249 on a node, as kube-proxy's, 10254 for the ingress, as ingress-nginx's; where several ingresses share an address
the next ones have the ports above.
"""

import asyncio
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

NODE_PORT, INGRESS_PORT = 10249, 10254
CLOSING_S = 0.1  # what a scrape under way gets at the end; by 0 aiohttp means without an end

Collect = Callable[[], Iterable[Metric]]


class Exposition:
    """Serves what ``collect`` gives, with the process's own CPU, memory and descriptors. For the loop it is started in.

    ``collect`` is called in another thread where ``blocking``.
    """

    def __init__(self, address: str, port: int, collect: Collect, *, blocking: bool = False):
        self.address, self.port = address, port
        self._blocking = blocking
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collected(collect))
        ProcessCollector(registry=self._registry)
        self._front = web.Server(self._answer)
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listens, or says in a line why it cannot: what is not seen is served all the same."""
        try:
            self._server = await asyncio.get_running_loop().create_server(self._front, self.address, self.port)
        except OSError as error:
            return (
                f"cannot listen on {self.address}:{self.port} for /metrics: {error.strerror}; stop what has it, "
                "or go without"
            )
        return ""

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._front.shutdown(CLOSING_S)
            await self._server.wait_closed()
            self._server = None

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.path != "/metrics":
            return web.Response(status=404, text="404 Not Found: metrics are at /metrics\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.to_thread(encode, self._registry) if self._blocking else encode(self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})


class _Collected(Collector):
    def __init__(self, collect: Collect):
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()
