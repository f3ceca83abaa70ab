"""A real browser, headless Chromium told what to do by W3C WebDriver, opens a page of three hosts by the ingress."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from aiohttp import ClientSession, ClientTimeout, web

from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.ingress.test_tls import issued
from tests.ingress.wire import Address, running

HOSTS = ("a.test", "b.test", "c.test")
PATIENCE_S = 60.0
# What the page does: it loads a script of each host, and has a WebSocket send back what it says.
PAGE = """<!doctype html><title>three hosts</title><script>const loaded = []</script>
{scripts}
<script>
  const said = new Promise((resolve, reject) => {{
    const socket = new WebSocket("wss://a.test:{port}/chat")
    socket.onopen = () => socket.send("hello")
    socket.onmessage = message => {{ resolve(message.data); socket.close() }}
    socket.onerror = () => reject("the WebSocket failed")
  }})
</script>"""
SEEN = """
const done = arguments[arguments.length - 1]
said.then(
  said => done({said, loaded, entries: performance.getEntries()
    .filter(row => row.nextHopProtocol !== undefined).map(row => [new URL(row.name).hostname, row.nextHopProtocol])}),
  error => done({error: String(error)}))
"""


@contextlib.asynccontextmanager
async def site(address: Address) -> AsyncIterator[None]:
    """The pod of all three hosts."""

    async def page(request: web.Request) -> web.Response:
        port = request.headers["X-Forwarded-Port"]
        scripts = "\n".join(f'<script src="https://{host}:{port}/script"></script>' for host in HOSTS)
        return web.Response(text=PAGE.format(scripts=scripts, port=port), content_type="text/html")

    async def script(request: web.Request) -> web.Response:
        text = f"loaded.push({request.host.partition(':')[0]!r})"
        # Without this a page is not told how what is of another host has come.
        return web.Response(text=text, content_type="text/javascript", headers={"Timing-Allow-Origin": "*"})

    async def chat(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{request.host.partition(':')[0]} says {message.data}")
        return socket

    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/script", script), web.get("/chat", chat)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, *address).start()
    try:
        yield
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def driver(where: Path) -> Iterator[str]:
    """The URL of a chromedriver of its own."""
    program = shutil.which("chromedriver")
    if program is None or shutil.which("chromium") is None:
        pytest.skip("chromium and chromedriver are not installed")
    with subprocess.Popen(
        [program, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"HOME": str(where)},
        start_new_session=True,  # its browsers end with it
    ) as process:
        try:
            assert process.stdout
            started = next(line for line in process.stdout if "started successfully on port" in line)
            port = int(started.rpartition(" ")[2].strip(" .\n"))
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


async def browsed(url: str, vip: str, port: int, where: Path) -> dict[str, Any]:
    """What the page has seen, in a browser for which all names are at the ingress."""
    arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-proxy-server",
        "--ignore-certificate-errors",
        f"--host-resolver-rules=MAP *.test {vip}",
        f"--user-data-dir={where}",
    ]
    always = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}

    async def call(path: str, body: dict[str, Any]) -> Any:
        async with client.post(f"{url}/session{path}", data=json.dumps(body)) as answer:
            found = (await answer.json())["value"]
            assert answer.status == 200, found
            return found

    async with ClientSession(timeout=ClientTimeout(PATIENCE_S)) as client:
        session = "/" + (await call("", {"capabilities": {"alwaysMatch": always}}))["sessionId"]
        await call(f"{session}/url", {"url": f"https://a.test:{port}/"})
        seen = await call(f"{session}/execute/async", {"script": SEEN, "args": []})
        async with client.delete(f"{url}/session{session}") as ended:
            assert ended.status == 200
    return seen


def test_a_browser_opens_three_hosts_by_http_2_and_a_websocket(vip: str, pods: list[Address], tmp_path: Path) -> None:
    authority = trustme.CA()
    secrets = [issued(authority, host, host) for host in HOSTS]
    tls = [{"secretName": host, "hosts": [host]} for host in HOSTS]
    rules = [rule(host, prefix("/", "web")) for host in HOSTS]
    snapshot = snapshot_of(service("web"), *slices("web", pods[:1]), ingress("web", *rules, tls=tls), *secrets)

    async def visit(url: str) -> dict[str, Any]:
        async with site(pods[0]), running(vip, snapshot) as here:
            return await browsed(url, vip, here.https[1], tmp_path / "profile")

    with driver(tmp_path) as url:
        seen = uvloop.run(visit(url))
    assert seen.get("error") is None
    assert seen["said"] == "a.test says hello"
    assert seen["loaded"] == list(HOSTS)
    assert {tuple(entry) for entry in seen["entries"]} == {(host, "h2") for host in HOSTS}
