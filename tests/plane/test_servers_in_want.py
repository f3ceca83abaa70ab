"""What must not keep our HTTP servers from serving: want of descriptors, and clients that dawdle.

Each is in a process of its own; as with ``test_robustness.py``, nothing is left.
"""

import contextlib
import socket
import ssl

import pytest

from plane.addresses import AddressPlan
from tests.loopback import Address, dial, eventually
from tests.plane.test_robustness import pod_address
from tests.processes import Process

pytestmark = pytest.mark.usefixtures("nothing_is_left")

SERVERS = pytest.mark.parametrize("role", ["health", "http", "api"])


def server_address(plan: AddressPlan, role: str) -> Address:
    return pod_address(plan, 1) if role == "http" else (plan.node(1), 31999)


def client_of(role: str, address: Address) -> socket.socket:
    """A connection to one of our HTTP servers."""
    connection = dial(address)
    if role != "api":
        return connection
    try:
        return ssl._create_unverified_context().wrap_socket(connection)
    except BaseException:
        connection.close()
        raise


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer token\r\n\r\n"


def answers(client: socket.socket, request: bytes = REQUEST) -> bool:
    client.sendall(request)
    return client.recv(65536).startswith(b"HTTP/1.1 200")


def serves(role: str, address: Address) -> bool:
    with contextlib.suppress(OSError), client_of(role, address) as client:
        return answers(client)
    return False


@SERVERS
def test_a_server_without_descriptors_serves_whom_it_has_and_recovers(plan: AddressPlan, role: str) -> None:
    address = server_address(plan, role)
    with Process(role, *address) as server, client_of(role, address) as first:
        assert answers(first)
        server.ask("leave_descriptors", 10)
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(dial(address))
            for _ in range(10):
                assert answers(first)
        eventually(lambda: serves(role, address))


@SERVERS
def test_clients_that_send_a_byte_at_a_time_hold_up_nobody(plan: AddressPlan, role: str) -> None:
    address = server_address(plan, role)
    with Process(role, *address), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(client_of(role, address)) for _ in range(100)]
        silent = [stack.enter_context(dial(address)) for _ in range(100)]  # where there is TLS, within its handshake
        for byte in REQUEST[:10]:
            for client in slow:
                client.sendall(bytes([byte]))
            assert serves(role, address)
        assert all(answers(client, REQUEST[10:]) for client in slow)
        assert len(silent) == 100
