"""A whole plane in this process, without Ray: the same nodes and the same ingress that Ray's actors hold."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from plane.addresses import AddressPlan
from plane.control import AgentLostError, ControlPlane
from plane.ingress.server import Ingress
from plane.model import Object
from plane.node import Node
from plane.statuses import node_name


class Losable:
    """A node or an ingress that can be lost: once ``lost`` is set, every call fails as with the process gone."""

    def __init__(self, agent: Node | Ingress):
        self.agent = agent
        self.lost = asyncio.Event()

    async def _or_lost(self, call: Awaitable[object]) -> object:
        work, lost = asyncio.ensure_future(call), asyncio.ensure_future(self.lost.wait())
        await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
        if self.lost.is_set():
            work.cancel()
            raise AgentLostError("lost")
        lost.cancel()
        return await work

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        return lambda *arguments: self._or_lost(getattr(self.agent, name)(*arguments))


class LocalFleet:
    """Agents in this process; ``recording`` and further options of ``Ingress`` as it has them."""

    def __init__(self, plan: AddressPlan, *, recording: bool = False, **of_ingress: Any):
        self.plan = plan
        self.recording = recording
        self.of_ingress = of_ingress
        self.nodes: dict[int, Losable] = {}
        self.ingresses: dict[int, Losable] = {}

    async def start_node(self, number: int) -> Losable:
        if number in self.nodes:  # what the kernel does to the sockets of a killed process
            await self.nodes[number].agent.stop(0)
        node = Node(node_name(number), number, self.plan, recording=self.recording)
        await node.start()
        self.nodes[number] = Losable(node)
        return self.nodes[number]

    async def start_ingress(self, number: int) -> Losable:
        if number in self.ingresses:
            await self.ingresses[number].agent.stop(0)
        ports = self.plan.bound_port(80), self.plan.bound_port(443)
        options = {"recording": self.recording, **self.of_ingress}
        ingress = Ingress(self.plan.vip(number), *ports, plan=self.plan, **options)
        await ingress.start()
        self.ingresses[number] = Losable(ingress)
        return self.ingresses[number]

    def share(self, tables: object) -> object:
        return tables


@contextlib.asynccontextmanager
async def serving(
    plan: AddressPlan, objects: Sequence[Object], *, nodes: int = 2, fleet: LocalFleet | None = None, **options: Any
) -> AsyncIterator[ControlPlane]:
    """A control plane that runs the objects, all of them ready; ``options`` are those of ControlPlane."""
    control = ControlPlane(plan, fleet or LocalFleet(plan), **options)
    await control.start(nodes=nodes)
    try:
        await control.apply(objects)
        await control.ready(20)
        yield control
    finally:
        await control.stop(grace_s=1)


async def fetch(host: str, port: int, path: str = "/hostname", name: str = "example.com") -> tuple[int, str]:
    """One request on a connection of its own: (status, body)."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()
