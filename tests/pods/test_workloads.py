"""The other images that have a workload of their own, and the echo server in the place of all others."""

import asyncio
import json

import pytest
from multidict import CIMultiDict
from yarl import URL

from tests.pods.hosting import AGNHOST, WHOAMI, address, ask, client, container, datagram, fetch, hosting, pod_object


@pytest.fixture
def ip(plan):
    return address(plan, 2)


async def test_whoami_says_who_answers_and_repeats_the_request(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(WHOAMI, args=["--port=8000", "--name", "Iris"])))
        sent = {"X-B": "2", "X-A": "1", "User-Agent": "test", "Host": "example.com"}
        reply = await fetch(f"http://{ip}:8000/path?q=1", method="POST", headers=sent, data=b"body", source=ip)
        lines = reply.body.splitlines()
        assert lines[:4] == ["Name: Iris", "Hostname: web-0", "IP: 127.0.0.1", f"IP: {ip}"]
        assert lines[4].startswith(f"RemoteAddr: {ip}:")
        assert lines[5:9] == ["POST /path?q=1 HTTP/1.1", "Host: example.com", "User-Agent: test", "Content-Length: 4"]
        assert lines.index("X-A: 1") < lines.index("X-B: 2")
        assert reply.body.endswith("\r\n\r\nbody")


async def test_a_long_body_that_waits_to_be_asked_for_is_read(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(WHOAMI, args=["--port=8000"])))
        body = b"x" * 3_000_000
        reply = await fetch(f"http://{ip}:8000/", method="POST", data=body, expect100=True)
        assert reply.body.endswith("\r\n\r\n" + body.decode())


async def test_whoami_api_is_json_and_shows_env_when_asked(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(WHOAMI, env={"WHOAMI_PORT_NUMBER": "8000", "COLOR": "red"})))
        reply = await fetch(f"http://{ip}:8000/api?env=true", headers={"X-A": "1"})
        said = json.loads(reply.body)
        assert reply.headers["Content-Type"] == "application/json"
        assert {
            "hostname": "web-0",
            "ip": ["127.0.0.1", ip],
            "method": "GET",
            "host": f"{ip}:8000",
        }.items() <= said.items()
        assert (said["url"], said["headers"]["X-A"], said["environ"]["COLOR"]) == ("/api?env=true", ["1"], "red")
        assert "environ" not in json.loads((await fetch(f"http://{ip}:8000/api")).body)


async def test_whoami_health_is_what_was_posted(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(WHOAMI, args=["-port", "8000"])))
        url = f"http://{ip}:8000/health"
        assert (await fetch(url)).status == 200
        assert (await fetch(url, method="POST", data=b"503")).status == 200
        assert (await fetch(url)).status == 503
        assert (await fetch(url, method="POST", data=b"well")).status == 400
        assert (await fetch(url)).status == 503


async def test_http_echo_says_its_text_on_every_path(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container("hashicorp/http-echo", args=["-text=apple", "-status-code=203"])))
        for path in ("/", "/any/path"):
            reply = await fetch(f"http://{ip}:5678{path}")
            assert (reply.status, reply.body, reply.headers["X-App-Name"]) == (203, "apple\n", "http-echo")
        assert (await fetch(f"http://{ip}:5678/health")).body == '{"status":"ok"}\n'


async def test_http_echo_listens_where_it_is_told_and_text_may_come_from_env(plan, ip):
    async with hosting(plan) as host:
        row = container("hashicorp/http-echo:1.0", args=["-listen", ":9000"], env={"ECHO_TEXT": "<h1>pear</h1>"})
        await host.ready(pod_object(ip, row))
        reply = await fetch(f"http://{ip}:9000/")
        assert (reply.body, reply.headers["Content-Type"]) == ("<h1>pear</h1>\n", "text/html; charset=utf-8")


async def test_nginx_has_a_welcome_page_and_nothing_else(plan, ip):
    base = f"http://{ip}:{plan.bound_port(80)}"
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container("nginx:1.27")))
        welcome = await fetch(base + "/")
        assert (welcome.status, welcome.headers["Server"], welcome.headers["Content-Type"]) == (
            200,
            "nginx",
            "text/html",
        )
        assert "<h1>Welcome to nginx!</h1>" in welcome.body
        missing = await fetch(base + "/missing")
        assert (missing.status, missing.headers["Server"]) == (404, "nginx")
        assert "<h1>404 Not Found</h1>" in missing.body
        assert (await fetch(base + "/", method="POST")).status == 405


async def test_conformance_echo_answers_the_request_as_json(plan, ip):
    env = {"HTTP_PORT": "8000", "NAMESPACE": "ns", "INGRESS_NAME": "ing", "SERVICE_NAME": "svc", "POD_NAME": "p-1"}
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container("registry.k8s.io/ingressconformance/echoserver:v0.0.1", env=env)))
        assert (await fetch(f"http://{ip}:8000/health")).body == "OK"
        sent = CIMultiDict([("x-two", "a"), ("x-two", "b"), ("Host", "foo.bar.com"), ("user-agent", "test")])
        url = URL(f"http://{ip}:8000/some/%2Fpath?q=%2F", encoded=True)
        reply = await fetch(url, method="PUT", headers=sent, skip_auto_headers=["Accept"])
        said = json.loads(reply.body)
        assert said["headers"]["X-Two"] == ["a", "b"]
        assert said["headers"]["User-Agent"] == ["test"]
        assert "Host" not in said["headers"]
        del said["headers"]
        assert said == {
            "path": "/some/%2Fpath?q=%2F",
            "host": "foo.bar.com",
            "method": "PUT",
            "proto": "HTTP/1.1",
            "namespace": "ns",
            "ingress": "ing",
            "service": "svc",
            "pod": "p-1",
        }


async def test_conformance_echo_listens_on_3000_unless_told(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container("gcr.io/k8s-staging-gateway-api/echo-basic:v1")))
        assert json.loads((await fetch(f"http://{ip}:3000/")).body)["pod"] == ""


async def test_any_other_image_is_an_echo_server_on_each_declared_port(plan, ip):
    ports = [{"containerPort": 8000}, {"containerPort": 8001}, {"containerPort": 8053, "protocol": "UDP"}]
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container("example.com/shop:v3", ports=ports, command=["serve"])))
        for port in (8000, 8001):
            said = json.loads((await fetch(f"http://{ip}:{port}/x")).body)
            assert (said["path"], said["pod"], said["namespace"]) == ("/x", "web-0", "default")
        assert await datagram(ip, 8053, b"\x00raw") == b"\x00raw"


async def test_any_other_image_without_ports_is_on_80(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container("example.com/shop:v3")))
        assert (await fetch(f"http://{ip}:{plan.bound_port(80)}/")).status == 200


async def test_containers_of_a_pod_share_its_address(plan, ip):
    async with hosting(plan) as host:
        rows = container(AGNHOST, args=["netexec"]), container("hashicorp/http-echo", name="echo", args=["-text=hi"])
        await host.ready(pod_object(ip, *rows))
        assert (await fetch(f"http://{ip}:8080/hostname")).body == "web-0"
        assert (await fetch(f"http://{ip}:5678/")).body == "hi\n"


async def test_requests_on_one_connection_and_http_1_0_are_answered_in_turn(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(AGNHOST, args=["netexec"])))
        reader, writer = await asyncio.open_connection(ip, 8080)
        one = b"GET /echo?msg=%d HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(one % 1 + one % 2 + b"GET /echo?msg=3 HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(30):
            answers = await reader.read()
        writer.close()
        assert [part[-1:] for part in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"1", b"2", b"3"]
        assert answers.count(b"Connection: close") == 1


async def test_a_long_request_line_is_served(plan, ip):
    async with hosting(plan) as host:
        await host.ready(pod_object(ip, container(AGNHOST, args=["netexec"])))
        async with client() as session:
            reply = await ask(session, f"http://{ip}:8080/echo?msg={'a' * 20_000}")
            assert len(reply.body) == 20_000


async def test_a_port_that_is_taken_is_named_with_the_remedy_and_tried_again(plan, ip):
    other = await asyncio.start_server(lambda reader, writer: writer.close(), ip, 8080)
    async with hosting(plan) as host:
        pod = host.start(pod_object(ip, container(AGNHOST, args=["netexec"])))
        status = await host.until(pod, lambda status: status.reason == "CrashLoopBackOff")
        assert not status.ready
        assert status.phase == "Pending"
        assert f"cannot listen on {ip}:8080/TCP" in status.message
        assert "change the port" in status.message
        other.close()
        await other.wait_closed()
        status = await host.until(pod, lambda status: status.ready)
        assert status.restarts >= 1
        assert (status.reason, status.message) == ("", "")


async def test_two_containers_on_one_port_say_so(plan, ip):
    async with hosting(plan) as host:
        rows = container(AGNHOST, args=["netexec"]), container(AGNHOST, name="second", args=["netexec"])
        pod = host.start(pod_object(ip, *rows))
        status = await host.until(pod, lambda status: status.reason == "CrashLoopBackOff")
        assert "another container of the pod" in status.message
        assert status.message.startswith('container "')


async def test_a_pod_that_is_never_restarted_fails_with_the_reason(plan, ip):
    async with hosting(plan) as host:
        pod = host.start(pod_object(ip, container(AGNHOST, args=["connect"]), restartPolicy="Never"))
        status = await host.until(pod, lambda status: status.phase == "Failed")
        assert '"connect" is not run by the plane' in status.message


async def test_a_pod_whose_argument_is_wrong_waits_and_names_it(plan, ip):
    async with hosting(plan) as host:
        pod = host.start(pod_object(ip, container(AGNHOST, args=["netexec", "--tls-cert-file=x"])))
        status = await host.until(pod, lambda status: status.reason == "RunContainerError")
        assert (status.phase, status.ready) == ("Pending", False)
        assert "--tls-cert-file=x" in status.message
