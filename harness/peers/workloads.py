"""What is measured: the rows of the table, and which Service port each goes through."""

from dataclasses import dataclass

REQUEST_BYTES = 64


@dataclass(frozen=True)
class Workload:
    """A closed loop of so many clients.

    port          name of the Service port it goes through
    answer_bytes  of each answer; over UDP a datagram is echoed
    fresh         each request has a connection of its own: connect, one exchange, close
    unit          what is counted: ``requests``, ``connections``, ``datagrams``, or ``bytes``
    """

    name: str
    port: str
    connections: int
    answer_bytes: int
    unit: str
    fresh: bool = False
    protocol: str = "TCP"


WORKLOADS = (
    Workload("kept 1", "small", 1, REQUEST_BYTES, "requests"),
    Workload("kept 64", "small", 64, REQUEST_BYTES, "requests"),
    Workload("kept 4000", "small", 4000, REQUEST_BYTES, "requests"),
    Workload("new 64", "small", 64, REQUEST_BYTES, "connections", fresh=True),
    Workload("bulk 64 KiB", "64-kib", 16, 1 << 16, "bytes"),
    Workload("bulk 1 MiB", "1-mib", 16, 1 << 20, "bytes"),
    Workload("bulk 16 MiB", "16-mib", 4, 1 << 24, "bytes"),
    Workload("udp 64", "echo", 64, REQUEST_BYTES, "datagrams", protocol="UDP"),
)
BY_NAME = {each.name: each for each in WORKLOADS}
ANSWER_BYTES = {each.port: each.answer_bytes for each in WORKLOADS}
MOST_CONNECTIONS = max(each.connections for each in WORKLOADS)
