"""agnhost as its users know it, over real sockets."""

import json
import re

import pytest

from plane.addresses import AddressPlan
from tests.pods.hosting import AGNHOST, address, container, datagram, fetch, hosting, pod_object, refuses


@pytest.fixture
async def netexec(plan):
    """Address and HTTP base of a netexec pod named web-0."""
    ip = address(plan, 2)
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(AGNHOST, args=["netexec"])))
        yield ip, f"http://{ip}:8080"


async def test_netexec_answers_its_endpoints(netexec):
    _, base = netexec
    replies = {path: await fetch(base + path) for path in ("/hostname", "/hostName", "/healthz", "/echo?msg=a%20b")}
    assert {path: (reply.status, reply.body) for path, reply in replies.items()} == {
        "/hostname": (200, "web-0"),
        "/hostName": (200, "web-0"),
        "/healthz": (200, ""),
        "/echo?msg=a%20b": (200, "a b"),
    }
    assert replies["/hostname"].headers["Content-Type"] == "text/plain; charset=utf-8"
    assert replies["/hostname"].headers["Date"].endswith("GMT")
    for path in ("/", "/what/else?x=1"):
        reply = await fetch(base + path)
        assert reply.status == 200
        assert re.match(r"NOW: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \+0000 UTC", reply.body)


async def test_clientip_is_the_address_the_caller_bound(netexec, plan):
    _, base = netexec
    caller = address(plan, 9, node=8)
    reply = await fetch(base + "/clientip", source=caller)
    assert re.fullmatch(re.escape(caller) + r":\d+", reply.body)


async def test_echo_takes_a_code_and_forms(netexec):
    _, base = netexec
    assert (await fetch(base + "/echo?msg=gone&code=410")).status == 410
    assert (await fetch(base + "/echo?msg=x&code=ten")).body.startswith("argument 'code' must be an integer")
    assert (await fetch(base + "/echo?msg=x&code=7")).status == 400
    posted = await fetch(base + "/echo?msg=query", method="POST", data={"msg": "form", "code": "201"})
    assert (posted.status, posted.body) == (201, "form")


@pytest.mark.parametrize("code", [204, 304])
async def test_a_status_without_body_has_none(netexec, code):
    _, base = netexec
    reply = await fetch(base + f"/echo?msg=unseen&code={code}")
    assert (reply.status, reply.body) == (code, "")
    assert "Content-Length" not in reply.headers


async def test_head_has_the_headers_and_no_body(netexec):
    _, base = netexec
    reply = await fetch(base + "/hostname", method="HEAD")
    assert (reply.headers["Content-Length"], reply.body) == ("5", "")


async def test_header_gives_one_or_all(netexec):
    _, base = netexec
    sent = {"X-Mine": "yes", "User-Agent": "test"}
    assert (await fetch(base + "/header?key=x-mine", headers=sent)).body == "yes"
    assert (await fetch(base + "/header?key=x-other", headers=sent)).body == ""
    everything = json.loads((await fetch(base + "/header", headers=sent)).body)
    assert everything["X-Mine"] == ["yes"]
    assert "Host" not in everything


async def test_redirect_goes_where_it_is_told_and_cannot_add_headers(netexec):
    _, base = netexec
    reply = await fetch(base + "/redirect?location=/echo%3Fmsg=x&code=307")
    assert (reply.status, reply.headers["Location"]) == (307, "/echo?msg=x")
    reply = await fetch(base + "/redirect?location=/a%0D%0AX-Smuggled:%20yes")
    assert "X-Smuggled" not in reply.headers


@pytest.mark.parametrize(
    ("path", "status"), [("/shell?cmd=id", 403), ("/exit", 501), ("/shutdown", 501), ("/upload", 501)]
)
async def test_what_would_touch_the_machine_is_refused_with_the_reason(netexec, path, status):
    _, base = netexec
    reply = await fetch(base + path)
    assert reply.status == status
    assert "here" in reply.body or "delete the pod" in reply.body


async def test_dial_reaches_other_pods_from_the_pods_own_address(netexec):
    ip, base = netexec
    reply = await fetch(base + f"/dial?host={ip}&port=8080&request=clientip&tries=2")
    callers = json.loads(reply.body)["responses"]
    assert [caller.rpartition(":")[0] for caller in callers] == [ip, ip]
    reply = await fetch(base + f"/dial?host={ip}&port=8081&request=clientip&protocol=udp")
    assert json.loads(reply.body)["responses"][0].startswith(ip + ":")
    reply = await fetch(base + f"/dial?host={ip}&port=1&request=hostname")
    assert len(json.loads(reply.body)["errors"]) == 1
    for bad in (
        "request=x",
        f"host={ip}&port=80",
        f"host={ip}&port=80&request=x&protocol=sctp",
        "host=x&port=0&request=x",
    ):
        assert (await fetch(base + "/dial?" + bad)).status == 400


async def test_netexec_answers_udp_commands(netexec, plan):
    ip, _ = netexec
    caller = address(plan, 9)
    assert await datagram(ip, 8081, b"hostname\n") == b"web-0"
    assert (await datagram(ip, 8081, b"clientip", source=caller)).startswith(caller.encode() + b":")
    assert await datagram(ip, 8081, b"echo Hello There") == b"hello there"


async def test_ports_are_where_the_arguments_say(plan):
    ip = address(plan, 2)
    async with hosting(plan) as host:
        args = ["netexec", "--http-port", "9090", "--udp-port=9091"]
        await host.ready(pod_object(ip, container(AGNHOST, args=args)))
        assert (await fetch(f"http://{ip}:9090/hostname")).body == "web-0"
        assert await datagram(ip, 9091, b"hostname") == b"web-0"
        assert refuses(ip, 8080)


async def test_http_override_answers_every_request_with_one_path(plan):
    ip = address(plan, 2)
    async with hosting(plan) as host:
        args = ["netexec", "--http-override=/echo?msg=mine&code=203", "--udp-port=-1"]
        await host.ready(pod_object(ip, container(AGNHOST, args=args)))
        reply = await fetch(f"http://{ip}:8080/hostname", method="POST", data=b"x")
        assert (reply.status, reply.body) == (203, "mine")


async def test_a_port_that_needs_a_privilege_is_shifted_as_the_plan_says(plan):
    shifted = AddressPlan(plan.instance, 8000)
    ip = address(plan, 2)
    async with hosting(shifted) as host:
        await host.ready(pod_object(ip, container(AGNHOST, args=["netexec", "--http-port=80"])))
        assert (await fetch(f"http://{ip}:{shifted.bound_port(80)}/hostname")).body == "web-0"
        assert refuses(ip, 80)


async def test_serve_hostname_serves_http_or_udp(plan):
    with_http, with_udp = address(plan, 2), address(plan, 3)
    async with hosting(plan) as host:
        args = ["serve-hostname", "--port=9000"]
        await host.ready(pod_object(with_http, container(AGNHOST, args=[*args, "--close"])))
        await host.ready(pod_object(with_udp, container(AGNHOST, args=[*args, "--http=false", "--udp"])))
        reply = await fetch(f"http://{with_http}:9000/any")
        assert (reply.body, reply.headers["Connection"]) == ("web-0", "close")
        assert await datagram(with_udp, 9000, b"?") == b"web-0"


async def test_hostname_is_the_pods_where_it_says_one(plan):
    ip = address(plan, 2)
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(AGNHOST, args=["netexec"]), hostname="other"))
        assert (await fetch(f"http://{ip}:8080/hostname")).body == "other"


@pytest.mark.parametrize("image", [AGNHOST, "registry.k8s.io/pause:3.10"])
async def test_a_pausing_pod_is_ready_and_listens_nowhere(plan, image):
    ip = address(plan, 2)
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(image)))
        assert refuses(ip, 8080)
        assert refuses(ip, plan.bound_port(80))
