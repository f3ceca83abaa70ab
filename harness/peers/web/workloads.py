"""What is asked of an ingress: the rows of the table."""

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20
ANSWERS = (100, 10 * KIB, MIB)  # bytes of an answer at /bytes/N
POSTED = 100  # bytes of the answer to a POST


@dataclass(frozen=True)
class Workload:
    """A closed loop of so many connections.

    answer_bytes  of each answer's body
    posted_bytes  of each request's body; 0: a GET
    fresh         each request has a connection of its own; with ``tls`` a whole handshake, without resumption
    rules         how many hosts have rules; requests go to a hundred of them in turn, if there are so many
    """

    name: str
    connections: int
    answer_bytes: int
    posted_bytes: int = 0
    fresh: bool = False
    tls: bool = False
    rules: int = 1

    @property
    def method(self) -> str:
        return "POST" if self.posted_bytes else "GET"

    @property
    def target(self) -> str:
        return "/post" if self.posted_bytes else f"/bytes/{self.answer_bytes}"


WORKLOADS = (
    Workload("get 100 B, 1", 1, 100),
    Workload("get 100 B, 64", 64, 100),
    Workload("get 100 B, 1000", 1000, 100),
    Workload("get 10 KiB, 64", 64, 10 * KIB),
    Workload("get 1 MiB, 16", 16, MIB),
    Workload("post 10 KiB, 64", 64, POSTED, posted_bytes=10 * KIB),
    Workload("new 64", 64, 100, fresh=True),
    Workload("tls 64", 64, 100, tls=True),
    Workload("tls new 8", 8, 100, fresh=True, tls=True),
    Workload("100 rules", 64, 100, rules=100),
    Workload("10000 rules", 64, 100, rules=10_000),
)
BY_NAME = {each.name: each for each in WORKLOADS}
