"""What is known of connections through the Service proxy, for its tests."""

import contextlib
import socket
import time

import pytest

from plane.addresses import AddressPlan
from tests.loopback import Address, dial


def pod_address(plan: AddressPlan, number: int, port: int = 8080) -> Address:
    return str(plan.pods_of(1)[1 + number]), port


def client_ip(plan: AddressPlan) -> str:
    return str(plan.pods_of(2)[7])


def read_until_shut(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1 << 20):
            pass


def assert_reset_at_once(address: Address, source: str = "") -> None:
    begun = time.monotonic()
    with pytest.raises((ConnectionResetError, ConnectionRefusedError)), dial(address, source) as client:
        client.recv(1)
    assert time.monotonic() - begun < 4  # no pod is waited for: that would take five


def refuses(address: Address) -> bool:
    try:
        dial(address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it closed during the handshake
        return False
    return False
