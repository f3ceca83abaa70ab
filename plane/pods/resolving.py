"""What names mean in a pod: ``dnsPolicy``, ``dnsConfig``, ``hostAliases``, ``hostname``; for apps and for ``/dial``.

Law: a pod asks the DNS server of its own node, from its own address, as with NodeLocal DNSCache, along the search path
of its namespace; what the cluster does not know is the machine's to say. The loop of an app asks so for whatever it
connects to. ``socket.getaddrinfo`` and ``gethostbyname`` do where ``resolver_here`` is set, and ask the machine
everywhere else; it is set in the thread of an app's loop and in those of its executor, and goes along with tasks and
with ``asyncio.to_thread``. It is not set in a bare ``threading.Thread`` of an app, and ``socket.connect`` with a name
never comes by here.
https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
"""

import asyncio
import functools
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import uvloop

from plane.dns.names import NODE_PORT, SERVICES, ZONE
from plane.dns.resolver import Found, Resolver, UnresolvedError, is_address, machine_getaddrinfo, threads
from plane.model import Object
from plane.pods.spec import ContainerSpec

NDOTS = 5  # the kubelet's, with ClusterFirst
TIMEOUT_S, ATTEMPTS = 2, 2  # of name servers on this machine; the bounds of options below are glibc's
DNS_PORT = 53  # of name servers given by hand
EXECUTOR_THREADS = 32

resolver_here: ContextVar[Resolver | None] = ContextVar("resolver_here", default=None)


def resolver_of(spec: ContainerSpec) -> Resolver:
    """The resolver of a pod that has its address."""
    pod, config = spec.pod["spec"], spec.pod["spec"].get("dnsConfig") or {}
    policy = pod.get("dnsPolicy") or "ClusterFirst"
    given = tuple((address, DNS_PORT) for address in config.get("nameservers") or ())
    options = {row["name"]: row.get("value") or "" for row in config.get("options") or ()}
    servers: tuple[tuple[str, int], ...] = ()
    search: tuple[str, ...] = ()
    if policy.startswith("ClusterFirst"):
        servers = ((spec.plan.node(spec.plan.node_of(spec.ip)), NODE_PORT),)
        search = f"{spec.namespace}.{SERVICES}", SERVICES, ZONE

    def number(name: str, otherwise: int, least: int, most: int) -> int:
        given = options.get(name, "")
        return min(max(int(given), least), most) if given.isdecimal() else otherwise

    return Resolver(
        servers=servers + given,
        search=tuple(dict.fromkeys((*search, *(config.get("searches") or ())))),
        ndots=number("ndots", NDOTS if search else 1, 0, 15),
        timeout_s=number("timeout", TIMEOUT_S, 1, 30),
        attempts=number("attempts", ATTEMPTS, 1, 5),
        source=spec.ip,
        hosts=_hosts(spec),
        machine=policy != "None",
    )


def _hosts(spec: ContainerSpec) -> dict[str, list[str]]:
    """The pod's ``/etc/hosts``, as the kubelet writes it."""
    found: dict[str, list[str]] = {}
    names = [spec.hostname]
    if spec.pod["spec"].get("subdomain"):
        names.append(f"{spec.hostname}.{spec.pod['spec']['subdomain']}.{spec.namespace}.{SERVICES}")
    for name in names:
        found[name.lower()] = [spec.ip]
    aliases: Sequence[Object] = spec.pod["spec"].get("hostAliases") or ()
    for row in aliases:
        for name in row.get("hostnames") or ():
            found.setdefault(name.lower(), []).append(row["ip"])
    return found


def getaddrinfo(
    resolver: Resolver, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[Any]:
    """``socket.getaddrinfo`` as this pod has it. Blocks. Raises socket.gaierror."""
    if not _is_name(host) or family not in (socket.AF_UNSPEC, socket.AF_INET) or flags & socket.AI_NUMERICHOST:
        return machine_getaddrinfo(host, port, family, type, proto, flags)
    name = host.decode() if isinstance(host, bytes) else host
    try:
        found = resolver.look_up(name)
    except UnresolvedError as problem:
        raise socket.gaierror(socket.EAI_NONAME, f"{name}: {problem}") from problem
    if not isinstance(found, Found):
        return machine_getaddrinfo(found.name, port, family, type, proto, flags)
    flags &= ~socket.AI_ADDRCONFIG  # by which a machine that has loopback only has no IPv4
    rows = [machine_getaddrinfo(ip, port, socket.AF_INET, type, proto, flags) for ip in found.addresses]
    return [row for each in rows for row in each]


def _is_name(host: Any) -> bool:
    """Whether there is anything to ask for: a host may be none, or an address already."""
    return bool(host) and not is_address(host.decode() if isinstance(host, bytes) else host)


def attend() -> None:
    """From here on ``socket`` asks for names as ``resolver_here`` says; calling it again changes nothing."""
    socket.getaddrinfo = _getaddrinfo
    socket.gethostbyname = _gethostbyname


def _getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
    resolver = resolver_here.get()
    if resolver is None:
        return machine_getaddrinfo(host, port, family, type, proto, flags)
    return getaddrinfo(resolver, host, port, family, type, proto, flags)


def _gethostbyname(host: str) -> str:
    return str(_getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])


class PodLoop(uvloop.Loop):
    """uvloop's loop, for a pod: what it connects to by name is asked for as the pod would."""

    def __init__(self, resolver: Resolver):
        super().__init__()
        self._resolver = resolver
        self.set_default_executor(
            ThreadPoolExecutor(EXECUTOR_THREADS, initializer=resolver_here.set, initargs=(resolver,))
        )

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        if not _is_name(host):
            return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        ask = functools.partial(getaddrinfo, self._resolver, host, port, family, type, proto, flags)
        return await self.run_in_executor(threads, ask)

    async def create_connection(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        if not _is_name(host):
            return await super().create_connection(protocol_factory, host, port, **options)
        asked = {name: options.get(name) or 0 for name in ("family", "proto", "flags")}
        if options.get("ssl") and options.get("server_hostname") is None:
            options["server_hostname"] = host
        problems: list[OSError] = []
        for row in await self.getaddrinfo(host, port, type=socket.SOCK_STREAM, **asked):
            try:
                return await super().create_connection(protocol_factory, *row[4][:2], **options)
            except OSError as problem:
                problems.append(problem)
        raise problems[0]

    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], Any], local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> Any:
        if remote_addr and _is_name(remote_addr[0]):
            rows = await self.getaddrinfo(*remote_addr, family=options.get("family") or 0, type=socket.SOCK_DGRAM)
            remote_addr = rows[0][4][:2]
        return await super().create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **options)


async def addresses(resolver: Resolver, host: str) -> tuple[str, ...]:
    """The addresses of a name, asked for in a thread. Raises OSError."""
    try:
        return (await asyncio.get_running_loop().run_in_executor(threads, resolver.addresses, host)).addresses
    except UnresolvedError as problem:
        raise socket.gaierror(socket.EAI_NONAME, f"lookup {host}: {problem}") from problem
