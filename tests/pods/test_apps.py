"""Python apps as pods."""

import asyncio
import contextlib
import textwrap
import time

import aiohttp
import pytest

from tests.pods.hosting import (
    AGNHOST,
    address,
    ask,
    client,
    container,
    eventually,
    fetch,
    hosting,
    pod_object,
    refuses,
    says_close,
)

ASGI = """
    import asyncio, os, sys, time
    greeting = os.environ.get("GREETING", "hello")
    mark = os.environ.get("MARK")
    count = 0

    async def app(scope, receive, send):
        global count
        if scope["type"] == "lifespan":
            return
        count += 1
        if scope["path"] == "/slow":
            await asyncio.sleep(float(scope["query_string"]))
        if scope["path"] == "/block":
            mark and open(mark, "w").close()
            time.sleep(float(scope["query_string"]))
        if scope["path"] == "/exit":
            asyncio.get_running_loop().call_soon(sys.exit, 3)
            await asyncio.sleep(60)
        body = f"{greeting} {count} {scope['client'][0]}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})
"""
AIOHTTP = """
    import asyncio
    from aiohttp import web

    events = []

    async def hello(request):
        return web.Response(text="hello " + " ".join(events))

    async def slow(request):
        await asyncio.sleep(float(request.query_string))
        return web.Response(text="done")

    async def upload(request):
        return web.Response(text=str(len(await request.read())))

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"streamed")
        return response

    async def context(app):
        events.append("started")
        yield

    def make():
        app = web.Application()
        app.cleanup_ctx.append(context)
        app.add_routes([web.get("/", hello), web.get("/slow", slow), web.get("/stream", stream)])
        app.add_routes([web.post("/upload", upload)])
        return app

    async def make_later():
        return make()

    app = make()
    nothing = 3
"""


@pytest.fixture
def ip(plan):
    return address(plan, 2)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write_module(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))

    return write_module


def app_pod(ip, app, *, name="web-0", port=None, **fields):
    ports = {"ports": [{"containerPort": port}]} if port else {}
    return pod_object(ip, container("example.com/mine", **ports, **fields), name=name, app=app)


async def test_an_asgi_app_runs_on_its_first_port_and_sees_its_client_and_env(plan, ip, write):
    write("greeter", ASGI)
    caller = address(plan, 9)
    async with hosting(plan) as host:
        await host.ready(app_pod(ip, "greeter:app", port=9000, env={"GREETING": "salut"}))
        assert (await fetch(f"http://{ip}:9000/", source=caller)).body == f"salut 1 {caller}"


@pytest.mark.parametrize("attribute", ["app", "make", "make_later"])
async def test_an_aiohttp_application_or_a_function_that_makes_one_runs_on_8080(plan, ip, write, attribute):
    write("greeter", AIOHTTP)
    async with hosting(plan) as host:
        await host.ready(app_pod(ip, f"greeter:{attribute}"))
        assert (await fetch(f"http://{ip}:8080/")).body == "hello started"


async def test_replicas_share_no_state_of_their_module(plan, write):
    write("greeter", ASGI)
    first, second = address(plan, 2), address(plan, 3)
    async with hosting(plan) as host:
        await host.ready(app_pod(first, "greeter:app", name="web-0"))
        await host.ready(app_pod(second, "greeter:app", name="web-1"))
        for _ in range(3):
            last = await fetch(f"http://{first}:8080/")
        assert last.body.split()[1] == "3"
        assert (await fetch(f"http://{second}:8080/")).body.split()[1] == "1"


async def test_a_blocking_app_stalls_only_itself(plan, ip, write, tmp_path):
    write("greeter", ASGI)
    blocking = tmp_path / "blocking"
    other, third = address(plan, 3), address(plan, 4)
    async with hosting(plan) as host:
        await host.ready(app_pod(ip, "greeter:app", name="web-0", env={"MARK": str(blocking)}))
        await host.ready(app_pod(other, "greeter:app", name="web-1"))
        await host.ready(pod_object(third, container(AGNHOST, args=["netexec"])))
        blocked = asyncio.create_task(fetch(f"http://{ip}:8080/block?3"))
        await eventually(lambda: asyncio.to_thread(blocking.exists))
        for _ in range(10):
            await fetch(f"http://{other}:8080/")
            await fetch(f"http://{third}:8080/hostname")
        assert not blocked.done()
        assert (await blocked).status == 200


@pytest.mark.parametrize(
    ("text", "app", "said"),
    [
        (None, "missing:app", "No module named 'missing'"),
        ("app = undefined", "broken:app", "NameError: name 'undefined' is not defined (broken.py, line 1)"),
        ("x = 1", "broken:app", "has no attribute 'app'"),
        ("app = 3", "broken:app", 'app "broken:app" is a int; it must be an ASGI app'),
        ("raise SystemExit('no licence')", "broken:app", "SystemExit: no licence"),
        ("def app():\n    raise ValueError('no database')", "broken:app", "ValueError: no database"),
    ],
)
async def test_an_app_that_cannot_be_loaded_says_why_and_harms_no_other_pod(plan, ip, write, text, app, said):
    if text is not None:
        write("broken", text)
    other = address(plan, 3)
    async with hosting(plan) as host:
        await host.ready(pod_object(other, container(AGNHOST, args=["netexec"]), name="web-1"))
        pod = host.start(app_pod(ip, app))
        status = await host.until(pod, lambda status: status.reason == "CrashLoopBackOff")
        assert (status.phase, status.ready) == ("Pending", False)
        assert said in status.message
        assert (await fetch(f"http://{other}:8080/hostname")).body == "web-1"
        assert refuses(ip, 8080)


async def test_an_app_that_is_mended_starts_at_the_next_try(plan, ip, write):
    write("mended", "app = undefined")
    async with hosting(plan) as host:
        pod = host.start(app_pod(ip, "mended:app"))
        await host.until(pod, lambda status: status.reason == "CrashLoopBackOff")
        write("mended", ASGI)
        status = await host.until(pod, lambda status: status.ready)
        assert status.restarts >= 1


async def test_a_failed_startup_is_told(plan, ip, write):
    write(
        "failing",
        """
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "Traceback\\nValueError: no database"})
        """,
    )
    async with hosting(plan) as host:
        pod = host.start(app_pod(ip, "failing:app"))
        status = await host.until(pod, lambda status: status.reason == "CrashLoopBackOff")
        assert "start-up failed: ValueError: no database" in status.message


async def test_an_app_that_exits_is_started_again(plan, ip, write):
    write("greeter", ASGI)
    async with hosting(plan) as host:
        pod = await host.ready(app_pod(ip, "greeter:app"))
        with contextlib.suppress(aiohttp.ClientError):
            await fetch(f"http://{ip}:8080/exit")
        status = await host.until(pod, lambda status: status.reason == "CrashLoopBackOff")
        assert "the app ended: SystemExit: 3" in status.message
        await host.until(pod, lambda status: status.ready)
        assert (await fetch(f"http://{ip}:8080/")).status == 200


async def test_an_app_s_port_that_is_taken_is_named(plan, ip, write):
    write("greeter", ASGI)
    other = await asyncio.start_server(lambda reader, writer: writer.close(), ip, 8080)
    async with hosting(plan) as host:
        pod = host.start(app_pod(ip, "greeter:app"))
        status = await host.until(pod, lambda status: status.reason == "CrashLoopBackOff")
        assert f"cannot listen on {ip}:8080/TCP" in status.message
    other.close()
    await other.wait_closed()


@pytest.mark.parametrize(("text", "attribute"), [(ASGI, "app"), (AIOHTTP, "make")])
async def test_a_draining_app_finishes_what_is_in_flight_and_closes_kept_connections(plan, ip, write, text, attribute):
    write("greeter", text)
    async with hosting(plan) as host, client() as kept:
        pod = await host.ready(app_pod(ip, f"greeter:{attribute}"))
        assert "Connection" not in (await ask(kept, f"http://{ip}:8080/")).headers
        slow = asyncio.create_task(fetch(f"http://{ip}:8080/slow?2.5"))
        idle = await asyncio.open_connection(ip, 8080)
        pod.terminate(30)
        await host.until(pod, lambda status: not status.ready)
        await eventually(lambda: says_close(kept, f"http://{ip}:8080/"))
        async with asyncio.timeout(30):
            assert await idle[0].read() == b""
            assert not pod.status.gone
            assert (await slow).status == 200
        await host.until(pod, lambda status: status.gone)
        idle[1].close()
        assert refuses(ip, 8080)


async def test_a_draining_aiohttp_app_takes_the_rest_of_an_upload(plan, ip, write):
    write("greeter", AIOHTTP)
    async with hosting(plan) as host:
        pod = await host.ready(app_pod(ip, "greeter:app"))
        reader, writer = await asyncio.open_connection(ip, 8080)
        writer.write(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf")
        idle = await asyncio.open_connection(ip, 8080)
        pod.terminate(30)
        async with asyncio.timeout(30):
            # The listener is closed by the time that an idle connection is.
            assert await idle[0].read() == b""
            writer.write(b"rest")
            answer = await reader.read()
        writer.close()
        idle[1].close()
        assert answer.endswith(b"\r\n\r\n8")
        await host.until(pod, lambda status: status.gone)


async def test_a_stream_that_starts_while_draining_says_close(plan, ip, write):
    write("greeter", AIOHTTP)
    async with hosting(plan) as host:
        pod = await host.ready(app_pod(ip, "greeter:app"))
        pod.terminate(30)
        async with client() as session:
            await eventually(lambda: says_close(session, f"http://{ip}:8080/stream"))
        assert (await fetch(f"http://{ip}:8080/stream")).body == "streamed"


async def test_an_app_that_blocks_past_its_grace_is_let_go(plan, ip, write, tmp_path):
    write("greeter", ASGI)
    blocking = tmp_path / "blocking"
    async with hosting(plan) as host:
        pod = await host.ready(app_pod(ip, "greeter:app", env={"MARK": str(blocking)}))
        stuck = asyncio.create_task(fetch(f"http://{ip}:8080/block?9"))
        await eventually(lambda: asyncio.to_thread(blocking.exists))
        begun = time.monotonic()
        pod.terminate(0.5)
        await host.until(pod, lambda status: status.gone)
        assert time.monotonic() - begun < 8
        with pytest.raises(aiohttp.ClientError):
            await stuck
        assert refuses(ip, 8080)
