"""Ray Serve's own proxy, with a replica behind it that answers what the backends answer.

Law: what Serve cannot be told is said, not imitated. It routes by path prefix to applications of its own cluster, so
it is not held to the corpus, has one rule and no TLS, and a replica stands in the place of the backends, on their core.
What is measured is the proxy: it has the subject's core, and its CPU is the subject's.

``python -m harness.peers.web.rayserve ADDRESS PORT CORE`` is the process that starts the cluster: it says ``ready``
and the proxy's process id, and ends the cluster when its input ends.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

from harness.peers.process import Process, descendants
from harness.peers.rounds import cores
from harness.peers.web.backends import body_of
from harness.peers.web.site import HTTP_PORT, Site
from harness.peers.web.workloads import POSTED, Workload
from plane.errors import PlaneError

PATIENCE_S = 120.0  # a cluster has to come up
PROXY = "ray::ProxyActor"
REQUESTS_AT_ONCE = 4_096  # as many as clients can have under way, as with the other peers' connections


class RayServe:
    name = "ray serve"
    routes = False

    def __init__(self) -> None:
        self._process: Process | None = None
        self._proxy = 0

    def lacks(self) -> str:
        found = importlib.util.find_spec("fastapi")
        return "" if found else "no Ray Serve found; pip install 'trafficplane[peers]'"

    def version(self) -> str:
        return f"Ray Serve {importlib.metadata.version('ray')}"

    def refuses(self, workload: Workload) -> str:
        if workload.rules > 1:
            return "Ray Serve's proxy knows no hosts"
        return "Ray Serve's proxy speaks no TLS by default" if workload.tls else ""

    def start(self, site: Site, core: int) -> None:
        words = [sys.executable, "-m", "harness.peers.web.rayserve", site.address, str(HTTP_PORT), str(core)]
        self._process = Process(words, cores().others)
        said, _, pid = self._process.line(PATIENCE_S).partition(" ")
        if said != "ready":
            raise PlaneError(f"{said} {pid}")
        self._proxy = int(pid)

    def reach(self, site: Site, workload: Workload) -> tuple[str, int]:
        return site.address, HTTP_PORT

    def pids(self) -> tuple[int, ...]:
        return (self._proxy,) if self._process else ()

    def stop(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


def serve(address: str, port: int, core: int) -> None:
    """Returns when standard input ends."""
    import ray
    from ray import serve as ray_serve
    from starlette.requests import Request
    from starlette.responses import Response

    class Replica:
        def __init__(self) -> None:
            self._posted = body_of(POSTED)

        async def __call__(self, request: Request) -> Response:
            if request.method == "POST":
                await request.body()
                return Response(self._posted, media_type="text/plain")
            return Response(body_of(int(request.url.path.rpartition("/")[2])), media_type="text/plain")

    ray.init(address="local", include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        ray_serve.start(proxy_location="HeadOnly", http_options={"host": address, "port": port})
        deployment: Any = ray_serve.deployment(max_ongoing_requests=REQUESTS_AT_ONCE)(Replica)
        ray_serve.run(deployment.bind(), route_prefix="/")
        proxy = _proxy_of(os.getpid())
        for thread in Path(f"/proc/{proxy}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread.name), {core})
        print(f"ready {proxy}", flush=True)
        sys.stdin.read()
    finally:
        ray_serve.shutdown()
        ray.shutdown()


def _proxy_of(driver: int) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for pid in descendants(driver):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(PROXY.encode()):
                    return pid
        time.sleep(0.1)
    raise PlaneError(f"no process {PROXY} among those of Ray")


def main() -> None:
    address, port, core = sys.argv[1:]
    serve(address, int(port), int(core))


if __name__ == "__main__":
    main()
