"""Our own ingress: ``plane.ingress.server.Ingress`` as a plane has it, in a process of its own, with the Site's Routes.

``python -m harness.peers.web.ours compiled|asyncio`` is that process: with its gateway of compiled code, or without. It
gets address and Routes, pickled, on standard input, says ``ready`` once they are in force, and carries until its input
ends.
"""

import asyncio
import pickle
import sys

import uvloop

from harness import provenance
from harness.peers.process import Process
from harness.peers.web.peer import Program
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Site
from plane import __version__
from plane.descriptors import allow_descriptors
from plane.errors import PlaneError
from plane.ingress.server import Ingress

PATIENCE_S = 240.0  # compiled code may have to be compiled
GRACE_S = 0.1


class Trafficplane(Program):
    name = "trafficplane"
    way = "compiled"

    def lacks(self) -> str:
        return ""

    def version(self) -> str:
        return f"trafficplane {__version__} {provenance.commit()}".strip()

    def start(self, site: Site, core: int) -> None:
        self._process = Process([sys.executable, "-m", "harness.peers.web.ours", self.way], core)
        self._process.say(pickle.dumps((site.address, site.routes)).hex())
        if (line := self._process.line(PATIENCE_S)) != "ready":
            raise PlaneError(line)


class Asyncio(Trafficplane):
    """Without the gateway: what it hands over goes this way."""

    name = "trafficplane asyncio"
    way = "asyncio"


async def serve(*, gateway: bool) -> None:
    """Returns when standard input ends."""
    address, routes = pickle.loads(bytes.fromhex(sys.stdin.readline()))
    ingress = Ingress(address, HTTP_PORT, HTTPS_PORT, gateway=gateway)
    await ingress.start()
    installed = await ingress.install(routes)
    for _ in range(2):  # the second is answered after a breath of the gateway, which is compiled by then
        await ingress.records()
    print("; ".join(installed.problems) or "ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await ingress.stop(GRACE_S)


def main() -> None:
    allow_descriptors(20_000)
    uvloop.run(serve(gateway=sys.argv[1] == "compiled"))


if __name__ == "__main__":
    main()
