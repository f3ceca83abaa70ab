"""The echo of messages as a pod: what comes back over TCP and UDP, and how it ends."""

import asyncio
import socket

from tests.loopback import open_descriptors
from tests.pods.hosting import address, container, hosting, pod_object, refuses

PORTS = [{"containerPort": 9000}, {"containerPort": 9000, "protocol": "UDP"}, {"containerPort": 9001}]


async def test_what_comes_is_sent_back_on_every_declared_port(plan):
    ip = address(plan, 6)
    before = open_descriptors()
    async with hosting(plan) as host:
        pod = await host.ready(pod_object(ip, container("trafficplane/echo", ports=PORTS)))
        for port in (9000, 9001):
            reader, writer = await asyncio.open_connection(ip, port)
            sent = bytes(range(256)) * 20_000
            writer.write(sent)
            assert await reader.readexactly(len(sent)) == sent
            writer.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect((ip, 9000))
            client.send(b"a datagram")
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 30) == b"a datagram"
        reader, writer = await asyncio.open_connection(ip, 9000)
        writer.write(b"kept")
        assert await reader.readexactly(4) == b"kept"
        pod.terminate(30)
        writer.write(b"still there")  # it goes on for a quiet time
        assert await reader.readexactly(11) == b"still there"
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        await host.until(pod, lambda status: status.gone)
        assert refuses(ip, 9000)
    assert open_descriptors() == before
