"""Readiness probes, made as the kubelet makes them: from the node's address, over a real socket.

https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from plane.model import Object
from plane.pods.spec import ContainerSpec
from plane.sharing import ensure_accepted

USER_AGENT = "kube-probe/1.34"
SUCCESS = range(200, 400)


class ProbeError(Exception):
    """A probe failed; the text says how."""


@dataclass(frozen=True)
class Verdict:
    """What is known after a probe: whether the container is ready, and why the last probe failed."""

    ready: bool
    message: str


class Readiness:
    """Counts probes: ready after ``successThreshold`` in a row, no more ready after ``failureThreshold`` failures."""

    def __init__(self, success_threshold: int, failure_threshold: int):
        self._needed = {True: success_threshold, False: failure_threshold}
        self._ready = False
        self._last: bool | None = None
        self._run = 0

    def after(self, success: bool) -> bool:
        """Whether the container is ready, after one more probe."""
        self._run = self._run + 1 if success == self._last else 1
        self._last = success
        if self._run >= self._needed[success]:
            self._ready = success
        return self._ready


class Prober:
    """Makes the probes of a node. To be opened and closed in the loop that uses it."""

    def __init__(self, source: str):
        self._source = source
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        connector = aiohttp.TCPConnector(local_addr=(self._source, 0), force_close=True, limit=0, ssl=False)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept": "*/*"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def watch(self, spec: ContainerSpec) -> AsyncGenerator[Verdict, None]:
        """A verdict at the start, then one after each probe. It ends at once where there is no probe that can be made,
        with a verdict that the container is ready."""
        probe = spec.container.get("readinessProbe") or {}
        check = self._check(probe, spec)
        if check is None:
            unmade = ", ".join(f"readinessProbe.{kind}" for kind in ("exec", "grpc") if kind in probe)
            yield Verdict(True, f"{unmade} is not made by the plane, the container counts as ready" if unmade else "")
            return
        readiness = Readiness(probe.get("successThreshold", 1), probe.get("failureThreshold", 3))
        yield Verdict(False, "")
        timeout_s = probe.get("timeoutSeconds", 1)
        loop = asyncio.get_running_loop()
        due = loop.time() + probe.get("initialDelaySeconds", 0)
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + probe.get("periodSeconds", 10), loop.time())
            message = ""
            try:
                async with asyncio.timeout(timeout_s):
                    await check()
            except TimeoutError:
                message = f"Readiness probe failed: no answer within {timeout_s} s"
            except ProbeError as failure:
                message = f"Readiness probe failed: {failure}"
            yield Verdict(readiness.after(not message), message)

    def _check(self, probe: Object, spec: ContainerSpec) -> Callable[[], Awaitable[None]] | None:
        """What makes one probe; it raises ProbeError where that fails. None where there is nothing to make."""
        kind = next((kind for kind in ("httpGet", "tcpSocket") if kind in probe), None)
        if kind is None:
            return None
        handler = probe[kind]
        port = spec.port_named(handler["port"])
        host = handler.get("host") or spec.ip
        if port is None:

            async def unnamed() -> None:
                raise ProbeError(f'the container has no port named "{handler["port"]}"')

            return unnamed
        bound_port = spec.plan.bound_port(port)
        if kind == "tcpSocket":
            return lambda: self._tcp_socket(host, bound_port)
        return lambda: self._http_get(host, bound_port, handler)

    async def _tcp_socket(self, host: str, port: int) -> None:
        try:
            _, writer = await asyncio.open_connection(host, port, local_addr=(self._source, 0))
            ensure_accepted(writer.transport)
            writer.transport.abort()
        except OSError as problem:
            raise ProbeError(f"dial tcp {host}:{port}: {_reason(problem)}") from problem

    async def _http_get(self, host: str, port: int, handler: Object) -> None:
        assert self._session is not None
        path = handler.get("path") or "/"
        scheme = (handler.get("scheme") or "HTTP").lower()
        url = URL(f"{scheme}://{host}:{port}{'' if path.startswith('/') else '/'}{path}", encoded=True)
        headers: CIMultiDict[str] = CIMultiDict()
        for row in handler.get("httpHeaders") or ():
            headers.add(row["name"], row["value"])
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (OSError, aiohttp.ClientError) as problem:
            raise ProbeError(f'Get "{url}": {_reason(problem)}') from problem
        if status not in SUCCESS:
            raise ProbeError(f"HTTP probe failed with statuscode: {status}")


def _reason(problem: Exception) -> str:
    number = getattr(problem, "errno", None)
    return os.strerror(number).lower() if number else str(problem) or type(problem).__name__
