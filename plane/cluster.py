"""Ray: where nodes and ingresses run as actors. The only file of the plane that knows Ray.

Law: Ray places, publishes and supervises; it never carries a request. Whole tables are put into the object store once
and mapped by every actor, a patch travels with the call that hands it over, as bytes, for to Ray each of its arrays is
an object of its own; an actor that dies shows as ``AgentLostError`` and is started again by the control plane. All
actors run on the machine of the driver, because the loopback addresses are there.
"""

import plane.rayenvironment  # noqa: F401  # Ray reads it when it is imported

# isort: split
import asyncio
import logging
import os
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kernels.layout import RANDOM
from kernels.warm import warm
from plane import garbage
from plane.addresses import AddressPlan, claimed, needed_port_offset, unprivileged_port_start
from plane.control import AgentLostError, ControlPlane
from plane.errors import PlaneError
from plane.ingress.edge import Edge
from plane.ingress.server import NO_COMPILED_TLS, NOBODY, Ingress, gateway_is_kept_off_by, gateway_threads_here
from plane.installed import Installed
from plane.metrics import INGRESS_PORT
from plane.model import Object
from plane.node import Node
from plane.pods.status import PodStatus
from plane.statuses import node_name

OBJECT_STORE_BYTES = 256 * 2**20
CALL_TIMEOUT_S = 30.0
LOOPBACK = "127.0.0.1"


def _packed(table: Any) -> Any:
    """What a call carries of a table: bytes, unless all share it."""
    return table if table is None or isinstance(table, ray.ObjectRef) else pickle.dumps(table, pickle.HIGHEST_PROTOCOL)


def _unpacked(table: Any) -> Any:
    return pickle.loads(table) if isinstance(table, bytes) else table


class NodeActor:
    """One node: its relay, its pods."""

    async def start(self, number: int, plan: AddressPlan, recording: bool) -> None:
        await asyncio.to_thread(warm)
        self.node = Node(node_name(number), number, plan, recording=recording)
        await self.node.start()

    async def install(self, *tables: Any) -> Installed:
        return await self.node.install(*map(_unpacked, tables))

    async def sync(self, pods: Sequence[Object]) -> None:
        await self.node.sync(pods)

    async def statuses(self, seen: int, timeout_s: float) -> tuple[int, list[PodStatus]]:
        return await self.node.statuses(seen, timeout_s)

    async def connections(self) -> dict[str, Any]:
        return await self.node.connections()

    async def open_connections(self) -> dict[str, Any]:
        return await self.node.open_connections()

    async def served(self) -> dict[str, Any]:
        return await self.node.served()

    async def served_counts(self) -> dict[str, int]:
        return await self.node.served_counts()

    async def cut_off(self, nodes: frozenset[int]) -> None:
        await self.node.cut_off(nodes)

    async def stop(self, grace_s: float) -> None:
        await self.node.stop(grace_s)

    async def pid(self) -> int:
        return os.getpid()


class IngressOptions(NamedTuple):
    """Options of every ingress, ``plane.ingress.server.Ingress``."""

    recording: bool
    edge: Edge
    access_log: str
    gateway: bool
    gateway_threads: int


class IngressActor:
    """One ingress on the Ingress address, which several may share."""

    async def start(self, number: int, plan: AddressPlan, options: IngressOptions) -> None:
        ports = plan.bound_port(80), plan.bound_port(443)
        port = INGRESS_PORT + number - 1
        garbage.settle()
        self.ingress = Ingress(plan.vip(1), *ports, plan=plan, metrics_port=port, **options._asdict())
        await self.ingress.start()

    async def install(self, *tables: Any) -> Installed:
        return await self.ingress.install(*map(_unpacked, tables))

    async def beat(self, timeout_s: float) -> None:
        await self.ingress.beat(timeout_s)

    async def records(self) -> dict[str, Any]:
        return await self.ingress.records()

    async def cut_off(self, nodes: frozenset[int]) -> None:
        await self.ingress.cut_off(nodes)

    async def stop(self, grace_s: float) -> None:
        await self.ingress.stop(grace_s)

    async def pid(self) -> int:
        return os.getpid()


class Agent:
    """An actor seen as an ordinary asynchronous object: its errors are the plane's, its loss is AgentLostError."""

    def __init__(self, handle: Any, name: str):
        self._handle = handle
        self._name = name

    async def call(self, method: str, *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Calls the actor. Raises AgentLostError where it is dead or silent, else what the method raised."""
        try:
            async with asyncio.timeout(timeout_s):
                return await getattr(self._handle, method).remote(*arguments)
        except (RayActorError, TimeoutError) as error:
            self.kill()
            raise AgentLostError(f"{self._name} does not answer: {error}") from error
        except RayTaskError as error:
            raise error.cause from error

    async def install(self, *tables: Any) -> Installed:
        return Installed(*await self.call("install", *map(_packed, tables)))

    async def sync(self, pods: Sequence[Object]) -> None:
        await self.call("sync", pods)

    async def statuses(self, seen: int, timeout_s: float) -> tuple[int, list[PodStatus]]:
        seen, reports = await self.call("statuses", seen, timeout_s, timeout_s=timeout_s + CALL_TIMEOUT_S)
        return seen, reports

    async def beat(self, timeout_s: float) -> None:
        await self.call("beat", timeout_s, timeout_s=timeout_s + CALL_TIMEOUT_S)

    async def connections(self) -> dict[str, Any]:
        return dict(await self.call("connections"))

    async def open_connections(self) -> dict[str, Any]:
        return dict(await self.call("open_connections"))

    async def served(self) -> dict[str, Any]:
        return dict(await self.call("served"))

    async def served_counts(self) -> dict[str, int]:
        return dict(await self.call("served_counts"))

    async def records(self) -> dict[str, Any]:
        return dict(await self.call("records"))

    async def cut_off(self, nodes: frozenset[int]) -> None:
        await self.call("cut_off", nodes)

    async def pid(self) -> int:
        return int(await self.call("pid"))

    async def stop(self, grace_s: float) -> None:
        try:
            await self.call("stop", grace_s, timeout_s=grace_s + CALL_TIMEOUT_S)
        finally:
            self.kill()

    def kill(self) -> None:
        ray.kill(self._handle)


class RayFleet:
    """Actors on this machine: ``plane.control.Fleet`` by Ray."""

    def __init__(self, plan: AddressPlan, options: IngressOptions):
        self._plan = plan
        self._options_of_ingress = options
        here = ray.get_runtime_context().get_node_id()
        # num_cpus=0: our actors share the machine, they do not book it. Many calls wait inside an actor (long polls).
        self._options = {
            "num_cpus": 0,
            "max_concurrency": 64,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
        }

    async def start_node(self, number: int) -> Agent:
        recording = self._options_of_ingress.recording
        agent = Agent(ray.remote(NodeActor).options(**self._options).remote(), node_name(number))
        await self._started(agent, agent.call("start", number, self._plan, recording, timeout_s=120))
        return agent

    async def start_ingress(self, number: int) -> Agent:
        agent = Agent(ray.remote(IngressActor).options(**self._options).remote(), f"ingress-{number}")
        await self._started(agent, agent.call("start", number, self._plan, self._options_of_ingress, timeout_s=120))
        return agent

    def share(self, tables: Any) -> Any:
        return ray.put(tables)

    async def _started(self, agent: Agent, start: Awaitable[Any]) -> None:
        try:
            await start
        except BaseException:
            agent.kill()
            raise


class Cluster(ControlPlane):
    """A control plane whose agents are Ray actors. Use ``running``."""

    def __init__(
        self,
        plan: AddressPlan,
        notice: Callable[[str], None],
        options: IngressOptions,
        *,
        algorithm: int,
        zones: int,
    ):
        super().__init__(plan, RayFleet(plan, options), notice, algorithm=algorithm, zones=zones)

    @property
    def ingress_address(self) -> tuple[str, int, int]:
        """(address, port of HTTP, port of HTTPS) of the Ingress."""
        return self.plan.vip(1), self.plan.bound_port(80), self.plan.bound_port(443)

    async def ingress_records(self) -> list[dict[str, Any]]:
        """What each ingress recorded, request by request; an ingress that is down has nothing to say."""
        return await self._gathered(member.agent.records() for member in self.ingresses.values() if member.agent)

    async def connections(self) -> list[dict[str, Any]]:
        """What each node's relay recorded, connection by connection."""
        return await self._gathered(member.agent.connections() for member in self.nodes.values() if member.agent)

    async def served(self) -> list[dict[str, Any]]:
        """When each request was with its pod, node by node; what a node's pods served before it was lost is lost."""
        return await self._gathered(member.agent.served() for member in self.nodes.values() if member.agent)

    async def served_counts(self) -> dict[str, int]:
        """How many requests that carry a number each pod has answered so far, by ``namespace/name``."""
        found = await self._gathered(member.agent.served_counts() for member in self.nodes.values() if member.agent)
        return {pod: count for counts in found for pod, count in counts.items()}

    async def _gathered(self, calls: Iterable[Awaitable[dict[str, Any]]]) -> list[dict[str, Any]]:
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, AgentLostError):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]


@asynccontextmanager
async def running(
    *,
    nodes: int = 3,
    ingresses: int = 1,
    instance: int = 0,
    port_offset: int | None = None,
    ray_address: str | None = None,
    recording: bool = False,
    edge: Edge = NOBODY,
    access_log: str = "",
    gateway: bool = False,
    gateway_threads: int | None = None,
    algorithm: int = RANDOM,
    zones: int = 1,
    grace_s: float = 5.0,
    progress: Callable[[str], None] = lambda line: None,
) -> AsyncIterator[Cluster]:
    """A cluster that serves, for as long as the context lasts; afterwards nothing of it is left.

    ``ray_address`` joins that Ray cluster, else ``RAY_ADDRESS`` does, else a Ray of our own is started and ended.
    ``algorithm`` is that of Services which name none, ``zones`` the number of zones that nodes are spread over,
    ``edge`` who stands in front of the ingress, ``access_log`` a file that gets a line for each request, ``gateway``
    whether HTTP/1.1 goes by compiled code, and ``gateway_threads`` by how many threads of each ingress; None: as many
    as suit the machine.
    ``port_offset`` None shifts privileged ports only where they cannot be bound. ``progress`` is called in the event
    loop with a line to show. Raises PlaneError.
    """
    plan = AddressPlan(instance)
    plan = AddressPlan(instance, needed_port_offset(plan) if port_offset is None else port_offset)
    if plan.port_offset:
        progress(f"ports below {unprivileged_port_start()} are shifted by {plan.port_offset}")
    loop = asyncio.get_running_loop()

    def from_thread(line: str) -> None:
        loop.call_soon_threadsafe(progress, line)

    await asyncio.to_thread(warm, from_thread)
    if gateway:
        await asyncio.to_thread(compile_gateway, from_thread)
    threads = gateway_threads or gateway_threads_here()
    with claimed(plan):
        async with connected(ray_address):
            options = IngressOptions(recording, edge, access_log, gateway, threads)
            cluster = Cluster(plan, progress, options, algorithm=algorithm, zones=zones)
            some = f"{nodes} node{'s' if nodes > 1 else ''} and {ingresses} ingress{'es' if ingresses > 1 else ''}"
            progress(f"starting {some}")
            try:
                await cluster.start(nodes=nodes, ingresses=ingresses)
                yield cluster
            finally:
                await cluster.stop(grace_s)


def compile_gateway(progress: Callable[[str], None]) -> None:
    """Have what the gateway runs compiled, or say what keeps it off, or off HTTPS. Blocks."""
    if why := gateway_is_kept_off_by():
        progress(f"the compiled gateway stays off, all requests go by asyncio: {why}")
        return
    from plane.ingress import gateway, terminator  # here, for they load the gateway's kernels

    gateway.warm(progress)
    if not terminator.warm(progress):
        progress(NO_COMPILED_TLS)


@asynccontextmanager
async def connected(address: str | None = None) -> AsyncIterator[None]:
    """Ray, for as long as the context lasts: the one at ``address`` or ``RAY_ADDRESS``, else one of our own.

    Raises PlaneError.
    """
    starting = asyncio.create_task(asyncio.to_thread(_start_ray, address))
    try:
        await asyncio.shield(starting)
        _take_signals_back()
        yield
    finally:
        # Also after a cancellation while it starts: a thread can't be stopped half-way, and what it starts must end.
        if await starting:
            await asyncio.to_thread(ray.shutdown)


def _take_signals_back() -> None:
    """Ray's core puts a handler that prints a stack before those of this program; these come first again."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)
                signal.siginterrupt(number, False)  # as asyncio has it


def _start_ray(address: str | None = None) -> bool:
    """Connects to Ray, or starts one on this machine; whether it is ours to end. Raises PlaneError."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    joined = address or os.environ.get("RAY_ADDRESS")
    # Ray prints the death of a worker on standard output, where `-o json` goes; the control plane says it itself.
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: None
    try:
        if joined:
            ray.init(address=joined, **quiet)
        else:
            # Ray takes 127.0.0.1 for a request to find an address that others reach, which one of our own needs not
            # have, and complains of it on the terminal where there is no network.
            ray._private.services.node_ip_address_from_perspective = lambda address=None: LOOPBACK
            # Nor need it have what reads the logs for this terminal, where none are shown, and what would add machines.
            # Both wake up all the time, at the price of whoever wants a core.
            for needless in ("start_log_monitor", "start_monitor"):
                setattr(ray._private.node.Node, needless, lambda node: None)
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address=LOOPBACK,
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"join Ray at {joined}" if joined else "start Ray on this machine"
        raise PlaneError(f"cannot {where}: {error}") from error
    return True
