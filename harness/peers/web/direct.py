"""No ingress: the client goes to the first backend itself. What it reaches is the ceiling of client and backends."""

import platform

from harness.peers.web.site import Site
from harness.peers.web.workloads import Workload


class Direct:
    name = "direct"
    routes = False

    def lacks(self) -> str:
        return ""

    def version(self) -> str:
        return f"Linux {platform.release()}"

    def refuses(self, workload: Workload) -> str:
        if workload.rules > 1:
            return "backends know no rules"
        return "backends speak no TLS" if workload.tls else ""

    def start(self, site: Site, core: int) -> None:
        """There is nothing to start."""

    def reach(self, site: Site, workload: Workload) -> tuple[str, int]:
        return site.rules[0].upstream.endpoints[0]

    def pids(self) -> tuple[int, ...]:
        return ()

    def stop(self) -> None:
        """There is nothing to stop."""
