"""Our own relay: ``plane.proxy.Proxy`` as a node has it, in a process of its own, with the Fib of the Scene.

``python -m harness.peers.relay`` is that process. It gets plan and Fib, pickled, on standard input, says ``ready`` once
every frontend listens, and carries until its input ends.
"""

import pickle
import sys

from harness import provenance
from harness.peers.local import Local
from harness.peers.process import Process
from harness.peers.scene import NODE, Scene, Target
from plane import __version__
from plane.errors import PlaneError
from plane.proxy import Proxy


class Relay(Local):
    name = "relay"

    def lacks(self) -> str:
        return ""

    def version(self) -> str:
        return f"trafficplane {__version__} {provenance.commit()}".strip()

    def refuses(self, target: Target) -> str:
        return ""

    def start(self, scene: Scene, core: int) -> None:
        self._process = Process([sys.executable, "-m", "harness.peers.relay"], core)
        self._process.say(pickle.dumps((scene.plan, scene.fib())).hex())
        if (line := self._process.line()) != "ready":
            raise PlaneError(line)


def main() -> None:
    plan, fib = pickle.loads(bytes.fromhex(sys.stdin.readline()))
    proxy = Proxy(plan, NODE)
    proxy.start()
    installed = proxy.install(fib)
    print("; ".join(installed.problems) or "ready", flush=True)
    sys.stdin.read()
    proxy.stop(0)


if __name__ == "__main__":
    main()
