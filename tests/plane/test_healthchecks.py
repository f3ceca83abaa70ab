"""The health check server with clients that stay, dawdle, or ask while a port goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvloop

from plane.addresses import AddressPlan
from plane.healthchecks import HealthCheck, HealthServer

PATIENCE_S = 30.0
PORTS = range(31900, 31910)
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@contextlib.asynccontextmanager
async def clients(server: HealthServer, address: str) -> AsyncIterator[list]:
    """A server that answers on all of PORTS, and a client of each that has been answered."""
    checks = [HealthCheck(port, "default", f"web-{port}", {1: 1}) for port in PORTS]
    assert await server.install(checks) == ()
    connected = [await asyncio.open_connection(address, port) for port in PORTS]
    try:
        for client in connected:
            assert await asked(*client) == b"200"
        yield connected
    finally:
        for _, writer in connected:
            writer.close()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The status of the answer, nothing where the connection has ended."""
    with contextlib.suppress(ConnectionError):
        writer.write(REQUEST)
    return await status(reader)


async def status(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        length = next(row for row in head.split(b"\r\n") if row.lower().startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        return head.split()[1]
    return b""


async def test_clients_that_stay_do_not_keep_a_port_from_going(plan: AddressPlan) -> None:
    server = HealthServer(plan.node(1), 1)
    async with clients(server, plan.node(1)) as connected:
        left = HealthCheck(PORTS[0], "default", "web", {})
        async with asyncio.timeout(PATIENCE_S):
            assert await server.install([left]) == ()
        assert await asked(*connected[0]) == b"503"
        assert [await asked(*client) for client in connected[1:]] == [b""] * (len(PORTS) - 1)
        async with asyncio.timeout(PATIENCE_S):
            await server.stop()
        assert await asked(*connected[0]) == b""


async def test_a_request_that_comes_while_its_port_goes_is_answered_or_closed(plan: AddressPlan) -> None:
    server = HealthServer(plan.node(1), 1)
    async with clients(server, plan.node(1)) as connected:
        for _, writer in connected:
            writer.write(REQUEST)
        async with asyncio.timeout(PATIENCE_S):
            await server.install([])
        assert {await status(reader) for reader, _ in connected} <= {b"200", b""}


def test_ports_come_and_go_under_clients_that_never_stop_asking(plan: AddressPlan) -> None:
    # In the loop that Ray's actors have: asyncio's own, of Python 3.11, forgets a connection that it has accepted in
    # the very step in which its listener is closed.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(come_and_go(HealthServer(plan.node(1), 1), plan.node(1)))


async def come_and_go(server: HealthServer, address: str) -> None:
    seen, done = set(), asyncio.Event()

    async def keep_asking(port: int) -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(address, port)
                seen.add(await asked(reader, writer))
                writer.close()
            await asyncio.sleep(0)

    asking = [asyncio.create_task(keep_asking(port)) for port in PORTS]
    number = 0
    while number < 8 or not seen >= {b"200", b"503"}:
        number += 1
        checks = [HealthCheck(port, "default", "web", {1: number % 3}) for port in PORTS if (port + number) % 2]
        async with asyncio.timeout(PATIENCE_S):
            assert await server.install(checks) == ()
        await asyncio.sleep(0)
    done.set()
    async with asyncio.timeout(PATIENCE_S):
        await server.stop()
        await asyncio.gather(*asking)
    assert seen <= {b"200", b"503", b""}
