"""What pods write down of the requests they have served."""

import asyncio

import numpy as np
import pytest

from kernels.layout_load import SERVED
from plane.addresses import AddressPlan, ip_to_int
from plane.pods.pod import Pod
from plane.pods.served import FIRST_ROWS, ROW, Served, columns, counts
from tests.pods.hosting import AGNHOST, PATIENCE_S, address, client, container, hosting, pod_object

RESPONDER = "trafficplane/responder"
NUMBER = "00000000000000ff"
APPS = """
import asyncio
from aiohttp import web

async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        await asyncio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await send({"type": "http.response.body", "body": b"2"})

async def slow(request):
    await asyncio.sleep(0.02)
    return web.Response(text="12")

def application():
    made = web.Application()
    made.router.add_get("/", slow)
    return made
"""


def test_rows_are_kept_however_many_and_of_numbers_only() -> None:
    one, other, idle = Served("default/a", 1), Served("default/b", 2), Served("default/b", 2)
    for number in range(3 * FIRST_ROWS):
        one.add(f"{number:016x}", number, number + 1)
    for odd in ("", "0123", "0x00000000000000", "+00000000000000f", "0" * 32, "00000000_0000000"):
        other.add(odd, 1, 2)
    other.add("FFFFFFFFFFFFFFFF", 5, 9)
    found = columns([one, other, idle])
    assert found["request_id"].tolist() == [*range(3 * FIRST_ROWS), 2**64 - 1]
    assert found["done_ns"].tolist() == [*range(1, 3 * FIRST_ROWS + 1), 9]
    assert found["container"].tolist() == [0] * 3 * FIRST_ROWS + [1]
    assert found["ips"].tolist() == [1, 2, 2]
    assert found["pods"] == ["default/a", "default/b", "default/b"]
    assert counts([one, other, idle]) == {"default/a": 3 * FIRST_ROWS, "default/b": 1}
    assert [len(column) for column in columns([]).values()] == [0] * 6


def test_rows_may_come_many_at_once() -> None:
    assert ROW == SERVED  # so that those of compiled code may
    served = Served("default/a", 1)
    served.add(NUMBER, 1, 2)
    many = np.array([(number, number + 1, number + 2) for number in range(3 * FIRST_ROWS)], ROW)
    served.add_rows(many)
    served.add(NUMBER, 3, 4)
    assert served.rows().tolist() == [(0xFF, 1, 2), *many.tolist(), (0xFF, 3, 4)]


@pytest.mark.parametrize("app", ["", "served_apps:app", "served_apps:application", RESPONDER])
async def test_each_kind_of_server_writes_down_how_long_it_took(
    plan: AddressPlan, app: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served_apps.py").write_text(APPS)
    monkeypatch.syspath_prepend(tmp_path)
    ip = address(plan, 91)
    served = Served("default/web-0", ip_to_int(ip))
    netexec = container(AGNHOST, args=["netexec", "--udp-port=-1"])
    obj = pod_object(ip, netexec, app=app) if app != RESPONDER else pod_object(ip, container(RESPONDER))
    async with hosting(plan) as host:
        pod = Pod(obj, plan, host.prober, host._on_change, lambda spec: served)
        host.pods.append(pod)
        pod.start()
        await host.until(pod, lambda status: status.ready)
        async with client() as session:
            for headers in ({"X-Request-ID": NUMBER}, {}):
                async with session.get(f"http://{ip}:8080/", headers=headers) as answer:
                    assert await answer.read()
    async with asyncio.timeout(PATIENCE_S):
        while not len(served):  # compiled code hands rows over when its breath ends
            await asyncio.sleep(0.005)
    (row,) = served.rows()
    assert row["request_id"] == 0xFF
    took_ns = int(row["done_ns"] - row["received_ns"])
    assert (15_000_000 if app.startswith("served") else 0) <= took_ns < PATIENCE_S * 1e9
