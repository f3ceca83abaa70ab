"""Servers that behave in a known way, for drivers to be held against."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from harness.drivers.http import Destination
from harness.drivers.stream import Task
from harness.mix import Mix
from harness.workload import Workload

MS = 1_000_000
S = 1_000_000_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, ip: str = "127.0.0.1") -> AsyncIterator[Destination]:
    """A server that hands every connection to ``handler`` and closes it afterwards."""
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accepted, ip, 0)
    try:
        yield Destination(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def own_temporary_files() -> Iterator[Path]:
    """Where those of this process are made meanwhile, so that none of another is taken for one."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def answering(answer: bytes) -> Handler:
    """Gives that answer to every request of a connection, which stays open."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            writer.write(answer)

    return handler


async def head(reader: asyncio.StreamReader) -> bytes:
    """The head of the next request, empty where the client has closed."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def open_loop(destination: Destination, rate: int, duration_ms: int, **other: Any) -> Task:
    return _task(destination, duration_ms, rate=Fraction(rate), **other)


def in_turn(destination: Destination, rate: int, duration_ms: int, **other: Any) -> Task:
    """An open loop whose requests go one after the other, however slow the machine: over one connection at a time."""
    return open_loop(destination, rate, duration_ms, connections=1, **other)


def closed_loop(destination: Destination, connections: int, duration_ms: int, **other: Any) -> Task:
    return _task(destination, duration_ms, connections=connections, **other)


def _task(destination: Destination, duration_ms: int, **other: Any) -> Task:
    given: dict[str, Any] = {
        "mix": Mix.of(other.pop("workload", Workload("test"))),
        "rate": None,
        "connections": 1000,
        "start_ns": 0,
        "timeout_ns": 60 * S,
        "id_key": 7 << 40,
    }
    return Task(destination=destination, duration_ns=duration_ms * MS, **{**given, **other})
