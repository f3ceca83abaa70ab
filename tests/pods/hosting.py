"""Pods on real sockets without a node around them, and a client for them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from plane.addresses import AddressPlan
from plane.model import Object
from plane.pods.pod import Pod
from plane.pods.probes import Prober
from plane.pods.status import PodStatus

NODE = 7
PATIENCE_S = 30.0  # with a machine that has much else to do
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"
WHOAMI = "traefik/whoami:v1.10"


def address(plan: AddressPlan, last: int, node: int = NODE) -> str:
    return str(plan.pods_of(node)[last])


def container(image: str, *, name: str = "main", env: Mapping[str, str] | None = None, **fields: Any) -> Object:
    variables = [{"name": key, "value": value} for key, value in (env or {}).items()]
    return {"name": name, "image": image, **({"env": variables} if variables else {}), **fields}


def pod_object(ip: str, *containers: Object, name: str = "web-0", app: str = "", **spec: Any) -> Object:
    """A Pod as the control plane hands it to a node."""
    annotations = {"annotations": {"trafficplane.dev/app": app}} if app else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"{name}-{ip}", **annotations},
        "spec": {"nodeName": f"node-{NODE}", "containers": list(containers), **spec},
        "status": {"podIP": ip},
    }


class Host:
    """Runs pods and tells when their status changes."""

    def __init__(self, plan: AddressPlan):
        self.plan = plan
        self.prober = Prober(plan.node(NODE))
        self.pods: list[Pod] = []
        self._changed = asyncio.Condition()
        self._notices: set[asyncio.Task] = set()

    def start(self, obj: Object) -> Pod:
        pod = Pod(obj, self.plan, self.prober, self._on_change)
        self.pods.append(pod)
        pod.start()
        return pod

    async def until(self, pod: Pod, met: Callable[[PodStatus], bool], patience_s: float = PATIENCE_S) -> PodStatus:
        """The first status of the pod that meets the condition; fails with the last one after a deadline."""
        try:
            async with asyncio.timeout(patience_s), self._changed:
                await self._changed.wait_for(lambda: met(pod.status))
                return pod.status
        except TimeoutError:
            raise AssertionError(f"not within {patience_s} s; last: {pod.status}") from None

    async def ready(self, obj: Object) -> Pod:
        """The pod, started and ready."""
        pod = self.start(obj)
        await self.until(pod, lambda status: status.ready)
        return pod

    def _on_change(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.create_task(notify())
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)


@contextlib.asynccontextmanager
async def hosting(plan: AddressPlan) -> AsyncIterator[Host]:
    host = Host(plan)
    await host.prober.open()
    try:
        yield host
    finally:
        await asyncio.gather(*(pod.kill() for pod in host.pods))
        await host.prober.close()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: str


@contextlib.asynccontextmanager
async def client(source: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """A keep-alive client, from ``source`` where one is given."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0) if source else None)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def fetch(url: str | URL, *, method: str = "GET", source: str = "", **options: Any) -> Reply:
    """One request on a connection of its own."""
    async with client(source) as session:
        return await ask(session, url, method=method, **options)


async def ask(session: aiohttp.ClientSession, url: str | URL, *, method: str = "GET", **options: Any) -> Reply:
    async with session.request(method, url, allow_redirects=False, **options) as response:
        return Reply(response.status, response.headers, await response.text())


async def datagram(ip: str, port: int, data: bytes, *, source: str = "") -> bytes:
    """The answer to one UDP datagram."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.bind((source, 0))
        await loop.sock_connect(sender, (ip, port))
        await loop.sock_sendall(sender, data)
        async with asyncio.timeout(PATIENCE_S):
            return await loop.sock_recv(sender, 2048)


async def eventually(met: Callable[[], Awaitable[object]]) -> None:
    """Returns once what ``met`` gives is true; fails after a deadline."""
    async with asyncio.timeout(PATIENCE_S):
        while not await met():
            await asyncio.sleep(0.005)


async def says_close(session: aiohttp.ClientSession, url: str) -> bool:
    return (await ask(session, url)).headers.get("Connection") == "close"


def refuses(ip: str, port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((ip, port)) != 0
