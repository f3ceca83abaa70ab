"""What a peer is: the one interface behind which everything that carries traffic is measured.

Law: a peer is started, reached, measured and stopped, and after ``stop`` nothing of it is left: no process, listener,
namespace or file. It renders its configuration from the Scene. What it cannot do it says before it is started:
``lacks`` of this machine, ``refuses`` of a target.
"""

from typing import NamedTuple, Protocol

from harness.peers.scene import Scene, Target

Address = tuple[str, int]


class Ground(NamedTuple):
    """Where client and backends of a peer live.

    client    what a command is preceded by to run where clients are
    backends  likewise for backends
    octet     what addresses of the Scene begin with here, in the place of 127
    """

    client: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    octet: int = 127

    def address(self, ip: str) -> str:
        """What an address of the Scene is here."""
        return f"{self.octet}.{ip.partition('.')[2]}"


LOOPBACK = Ground()


class Peer(Protocol):
    """A way from client to backends."""

    name: str

    def lacks(self) -> str:
        """What this machine has not got that it needs, and the remedy; empty where nothing."""

    def version(self) -> str:
        """Exact version, for people."""

    def refuses(self, target: Target) -> str:
        """Why it does not carry a target; empty where it does."""

    def start(self, scene: Scene, core: int) -> None:
        """Carry the targets that it does not refuse, on one core; returns once it does. Raises PlaneError."""

    def ground(self) -> Ground:
        """Where its client and backends live, while it runs."""

    def reach(self, target: Target) -> tuple[Address, ...]:
        """Where a client on its ground connects to, while it runs; several: in turn."""

    def pids(self) -> tuple[int, ...]:
        """Its processes, while it runs; empty where what it does is done by the kernel or by nobody."""

    def stop(self) -> None:
        """End whatever ``start`` has begun, however far that came."""
