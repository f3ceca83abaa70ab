"""An app that asks for names and connects by them, in every way that Python apps do."""

import asyncio
import socket
import threading
import urllib.request
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web


async def by_loop(host: str, port: int) -> str:
    rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return said(rows)


async def by_socket(host: str, port: int) -> str:
    return said(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


async def by_socket_in_a_thread(host: str, port: int) -> str:
    return said(await asyncio.to_thread(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))


async def by_socket_in_the_executor(host: str, port: int) -> str:
    return said(await asyncio.get_running_loop().run_in_executor(None, socket.getaddrinfo, host, port))


async def by_gethostbyname(host: str, port: int) -> str:
    return socket.gethostbyname(host)


async def by_aiohttp(host: str, port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/hostname") as answer:
        return await answer.text()


async def by_urllib(host: str, port: int) -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://{host}:{port}/hostname", timeout=30) as answer:
            return answer.read().decode()

    return await asyncio.to_thread(get)


async def by_streams(host: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET /hostname HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()


async def by_datagrams(host: str, port: int) -> str:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    class Question(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            answer.set_result(data.decode())

    transport, _ = await loop.create_datagram_endpoint(Question, remote_addr=(host, port))
    transport.sendto(b"hostname")
    try:
        return await asyncio.wait_for(answer, 30)
    finally:
        transport.close()


async def by_sock_connect(host: str, port: int) -> str:
    with socket.socket() as connecting:
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, (host, port))
        return str(connecting.getpeername()[0])


async def by_a_thread_of_its_own(host: str, port: int) -> str:
    """The one way that asks the machine, as ``plane.pods.resolving`` says."""
    found: list[str] = []

    def ask() -> None:
        try:
            found.append(said(socket.getaddrinfo(host, port)))
        except socket.gaierror:
            found.append("unknown")

    thread = threading.Thread(target=ask)
    thread.start()
    await asyncio.to_thread(thread.join)
    return found[0]


def said(rows: list) -> str:
    return " ".join(sorted({row[4][0] for row in rows}))


WAYS: dict[str, Callable[[str, int], Awaitable[str]]] = {
    name.removeprefix("by_"): way for name, way in list(globals().items()) if name.startswith("by_")
}


async def answer(request: web.Request) -> web.Response:
    """``/WAY?host=&port=``: what came of it, 404 and the error where a name is not known."""
    try:
        way = WAYS[request.match_info["way"]]
        return web.Response(text=await way(request.query["host"], int(request.query.get("port", "0"))))
    except OSError as problem:
        return web.Response(text=str(problem), status=404)


def app() -> web.Application:
    made = web.Application()
    made.add_routes([web.get("/{way}", answer)])
    return made
