"""No proxy at all: the client goes to the backends itself. What it reaches is the generator's own ceiling."""

import platform

from harness.peers.peer import LOOPBACK, Address, Ground
from harness.peers.scene import Scene, Target


class Direct:
    name = "direct"

    def lacks(self) -> str:
        return ""

    def version(self) -> str:
        return f"Linux {platform.release()}"

    def refuses(self, target: Target) -> str:
        return ""

    def start(self, scene: Scene, core: int) -> None:
        """There is nothing to start."""

    def ground(self) -> Ground:
        return LOOPBACK

    def reach(self, target: Target) -> tuple[Address, ...]:
        return tuple((each.ip, each.port) for each in target.backends)

    def pids(self) -> tuple[int, ...]:
        return ()

    def stop(self) -> None:
        """There is nothing to stop."""
