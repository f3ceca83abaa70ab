"""``plane up``: a plane in the foreground, from manifests to the last closed socket.

Law: input is judged whole before anything starts; whatever ends the command (Ctrl-C, SIGTERM, an error) goes the same
way out, through the context managers, so that no process, listener or file is left.
"""

import asyncio
import contextlib
import functools
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from kernels.layout import RANDOM
from plane import garbage, kubeconfig
from plane.addresses import AddressPlan
from plane.advice import Rivals, advise
from plane.api import Api
from plane.cluster import Cluster, running
from plane.dns.names import KUBE_DNS, ZONE
from plane.errors import NotReadyError, PlaneError
from plane.frontends import algorithm_of_mode, frontends_of, nodes_of
from plane.ingress.edge import Edge, networks
from plane.manifests import Loaded, load, locate
from plane.metrics import INGRESS_PORT, NODE_PORT
from plane.model import key_of
from plane.printing import as_list
from plane.store import Store

READY_TIMEOUT_S = 60.0
# Kinds that the plane makes itself: those in a dump of another cluster name machines that are not here.
OWN_KINDS = ("Node", "Event")


def run(
    paths: Sequence[str],
    *,
    nodes: int = 3,
    ingresses: int = 1,
    zones: int = 1,
    proxy_mode: str = "iptables",
    instance: int = 0,
    port_offset: int | None = None,
    ray_address: str | None = None,
    ready_file: str | None = None,
    trusted_proxies: str = "",
    proxy_protocol: bool = False,
    access_log: str = "",
    gateway: bool = True,
    gateway_threads: int | None = None,
) -> int:
    """Runs until SIGINT or SIGTERM, then 0. Raises ManifestError and PlaneError, with nothing left running."""
    console = Console(stderr=True, highlight=False)
    algorithm = algorithm_of_mode(proxy_mode)
    edge = Edge(networks(trusted_proxies), proxy_protocol)
    loaded = checked(load(paths, sys.stdin), instance, algorithm)
    if ready_file:
        Path(ready_file).unlink(missing_ok=True)  # one left by an earlier run would be read as ours
    for warning in loaded.warnings:
        warn(console, warning)
    refuse_second(kubeconfig.default_path())
    options = {
        "nodes": nodes,
        "ingresses": ingresses,
        "zones": zones,
        "algorithm": algorithm,
        "instance": instance,
        "port_offset": port_offset,
        "ray_address": ray_address,
        "edge": edge,
        "access_log": access_log and str(Path(access_log).absolute()),  # an actor has a working directory of its own
        "gateway": gateway,
        "gateway_threads": gateway_threads,
    }
    return asyncio.run(_until_told(loaded, console, ready_file, options))


def checked(loaded: Loaded, instance: int, algorithm: int = RANDOM) -> Loaded:
    """The manifests without kinds that the plane makes itself, known to be accepted as a whole.

    Raises ManifestError with file and document, before anything is started.
    """
    kept = tuple(manifest for manifest in loaded.objects if manifest.object["kind"] not in OWN_KINDS)
    left = [
        f"{manifest.file}: {key_of(manifest.object)}: left out, the plane makes its own"
        for manifest in loaded.objects
        if manifest.object["kind"] in OWN_KINDS
    ]
    with locate(kept):
        store = Store(AddressPlan(instance))
        store.apply([manifest.object for manifest in kept])
    return Loaded(kept, (*loaded.warnings, *left, *advise(store.snapshot, algorithm=algorithm)))


def refuse_second(path: Path) -> None:
    """Raises PlaneError where the kubeconfig file is that of a plane which still answers: it would be overwritten."""
    kubeconfig.refuse_others(path)
    if not path.exists():
        return
    server = urlsplit(kubeconfig.read(path).server)
    with contextlib.suppress(OSError), socket.create_connection((server.hostname, server.port), timeout=1.0):
        raise PlaneError(
            f"a plane is running already, {path} is its kubeconfig file; end that one, or set "
            f"{kubeconfig.VARIABLE} to another file and choose another --instance"
        )


def warn(console: Console, line: str) -> None:
    console.print("[yellow]warning:[/]", end=" ")
    console.print(line, markup=False, soft_wrap=True)


async def _until_told(loaded: Loaded, console: Console, ready_file: str | None, options: dict[str, Any]) -> int:
    """Serves in a task that a signal cancels; 0 where it had served, 130 where it was stopped before."""
    serving = asyncio.Event()
    task = asyncio.create_task(_serve(loaded, console, ready_file, options, serving))
    loop = asyncio.get_running_loop()

    def end() -> None:
        if not task.cancelling():  # a second Ctrl-C must not cut the way out short
            if not serving.is_set():
                console.print("stopping: what is starting is ended first", markup=False)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await task
    except asyncio.CancelledError:
        return 0 if serving.is_set() else 128 + signal.SIGINT
    return 0


async def _serve(
    loaded: Loaded, console: Console, ready_file: str | None, options: dict[str, Any], serving: asyncio.Event
) -> None:
    def say(line: str) -> None:
        console.print(line, markup=False)

    path = kubeconfig.default_path()
    async with running(**options, progress=say) as cluster:
        serving.set()
        await cluster.apply([manifest.object for manifest in loaded.objects])
        token = secrets.token_urlsafe(32)
        advice = functools.partial(advise, algorithm=options["algorithm"], rivals=Rivals())
        api = Api(cluster.store, token=token, wait=cluster.wait, advise=advice, connections=cluster.open_connections)
        await api.start()
        try:
            kubeconfig.write(path, api.url, token, api.ca_pem)
            await _ready(cluster, console)
            garbage.settle()
            if ready_file:
                _write_whole(Path(ready_file), json.dumps(as_list(cluster.store.snapshot), indent=2) + "\n")
            _print_where(cluster, console, path)
            await cluster.broken()
        except asyncio.CancelledError:
            say("draining")
            raise
        finally:
            kubeconfig.remove(path, token)
            await api.stop()


async def _ready(cluster: Cluster, console: Console) -> None:
    """Waits until all is ready, and says what is not every minute: a pod may well come later."""
    while True:
        try:
            return await cluster.ready(READY_TIMEOUT_S)
        except NotReadyError as error:
            warn(console, str(error))


def _print_where(cluster: Cluster, console: Console, path: Path) -> None:
    address, http, https = cluster.ingress_address
    console.print("[green]ready[/]")
    if any(cluster.store.snapshot.all("Ingress")):
        console.print(f"  ingress   http://{address}:{http} https://{address}:{https}", markup=False)
    for each in frontends_of(cluster.store.snapshot, nodes_of(cluster.store.snapshot)):
        number, protocol = cluster.plan.bound_port(each.port), each.service_port.protocol
        if each.node > 1 or (each.service.namespace, each.service.name) == KUBE_DNS[1:]:
            continue
        kind = {"ClusterIP": "", "NodePort": " NodePort, on every node"}.get(each.kind, f" {each.kind}")
        console.print(f"  service   {each.ip}:{number}/{protocol}  {each.service.full_name}{kind}", markup=False)
    for whose, where in (("ingress", f"{address}:{INGRESS_PORT}"), ("node-1", f"{cluster.plan.node(1)}:{NODE_PORT}")):
        console.print(f"  metrics   http://{where}/metrics  {whose}", markup=False)
    plan = cluster.plan
    console.print(f"  dns       {plan.dns}:{plan.bound_port(53)}  {ZONE}, UDP and TCP", markup=False)
    console.print(f"  api       kubectl --kubeconfig {path} get all, or: plane get all", markup=False, soft_wrap=True)
    console.print("Ctrl-C ends it.", markup=False)


def _write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or none."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)
