"""kube-proxy's own way: a node's kernel rewrites addresses, by the rules that kube-proxy's nftables mode would write.

Client, node and backends have a network namespace each. The node routes between the other two and does what kube-proxy
has its kernel do; with ``rules=False`` it only routes, which shows what of the difference to ``direct`` is the way
through three namespaces and what is the rules'. Addresses are the Scene's with 10 in the place of 127, which no other
namespace may be reached by.

The node's work is done in interrupts, for no process. So that it is on the core of the proxy under test, as others' is,
packets that reach the node are steered there (RPS, Documentation/networking/scaling.rst), and those that leave it to
the other core; what it costs is how long that core was not idle.

Law: a namespace lives as long as the process that holds it, and with it go its links, addresses, rules and connection
tracking. That process ends when its input does, so nothing is left even if this one is killed.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator

from harness.peers.peer import Address, Ground
from harness.peers.process import Process
from harness.peers.scene import Scene, Target
from plane.errors import PlaneError

OCTET = 10
TOOLS = {
    "nft": "nftables",
    "ip": "iproute2",
    "sysctl": "procps",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "tee": "coreutils",
}
PICK = {"random": "numgen random", "rr": "numgen inc"}
FIREWALL = "/sbin:/usr/sbin:/usr/local/sbin"
NODE_TO = {"client": "169.254.1.1", "backends": "169.254.2.1"}


class Nftables:
    """``rules``: whether the node rewrites addresses, or only routes."""

    def __init__(self, *, rules: bool = True):
        self.name = "nftables" if rules else "routed"
        self._rules = rules
        self._spaces: dict[str, Process] = {}

    def lacks(self) -> str:
        missing = [f"{tool} (apt install {package})" for tool, package in TOOLS.items() if not _which(tool)]
        if missing:
            return "not found: " + ", ".join(missing)
        if os.geteuid() != 0:
            return "making network namespaces needs root; run it as root"
        tried = subprocess.run([_which("unshare"), "--net", "--mount", "true"], capture_output=True, text=True)
        if tried.returncode:
            return f"no network namespace can be made: {tried.stderr.strip()}; run it where CAP_SYS_ADMIN is given"
        return ""

    def version(self) -> str:
        kernel = f"Linux {platform.release()}"
        if not self._rules:
            return kernel
        said = subprocess.run([_which("nft"), "--version"], capture_output=True, text=True, check=True).stdout
        return f"{' '.join(said.split()[:2])}, {kernel}"

    def refuses(self, target: Target) -> str:
        if self._rules and target.algorithm not in PICK:
            return f"kube-proxy's nftables mode has no {target.algorithm}; it has random"
        if self._rules and any(each.weight != 1 for each in target.backends):
            return "kube-proxy knows no weights"
        return ""

    def config(self, targets: tuple[Target, ...]) -> str:
        """What ``nft -f`` reads: names and shape are those of kube-proxy's table."""
        targets = tuple(target for target in targets if not self.refuses(target))
        services = ",\n".join(f"      {self._service(target)} : goto service-{target.word}" for target in targets)
        chains = "".join(chain for target in targets for chain in self._chains(target))
        return (
            "table ip kube-proxy {\n"
            "  map service-ips {\n    type ipv4_addr . inet_proto . inet_service : verdict\n"
            f"    elements = {{\n{services}\n    }}\n  }}\n"
            f"{chains}"
            "  chain services {\n    ip daddr . meta l4proto . th dport vmap @service-ips\n  }\n"
            "  chain nat-prerouting {\n    type nat hook prerouting priority dstnat; policy accept;\n"
            "    jump services\n  }\n"
            "}\n"
        )

    def _service(self, target: Target) -> str:
        return f"{self.ground().address(target.ip)} . {target.protocol.lower()} . {target.port}"

    def _chains(self, target: Target) -> Iterator[str]:
        names = [f"endpoint-{i}-{target.word}" for i in range(len(target.backends))]
        for name, each in zip(names, target.backends, strict=True):
            where = f"{self.ground().address(each.ip)}:{each.port}"
            yield f"  chain {name} {{\n    meta l4proto {target.protocol.lower()} dnat to {where}\n  }}\n"
        chosen = ", ".join(f"{i} : goto {name}" for i, name in enumerate(names))
        yield (
            f"  chain service-{target.word} {{\n"
            f"    {PICK[target.algorithm]} mod {len(names)} vmap {{ {chosen} }}\n  }}\n"
        )

    def start(self, scene: Scene, core: int) -> None:
        for name in ("client", "node", "backends"):
            script = "mount -t sysfs sysfs /sys && ip link set lo up && echo ready && exec cat"
            holder = Process([_which("unshare"), "--net", "--mount", "sh", "-c", script], core)
            self._spaces[name] = holder
            if holder.line() != "ready":
                raise PlaneError(f"the namespace of {name} is not ready")
        pods = sorted({self.ground().address(each.ip) for target in scene.targets for each in target.backends})
        clients = [self.ground().address(ip) for ip in scene.clients]
        self._link("client", clients, core)
        self._link("backends", pods, core)
        self._on_node("sysctl", "-qw", "net.ipv4.ip_forward=1")
        # Over loopback Linux lets ports of closed connections be used again after a second without being told.
        self._on("client", "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1")
        if self._rules:
            self._on_node("nft", "-f", "-", text=self.config(scene.targets))

    def _link(self, name: str, addresses: list[str], core: int) -> None:
        """A cable between the node and a neighbour that has these addresses, and sends everything to the node."""
        here, there = NODE_TO[name], f"to-{name}"
        others = sum(1 << each for each in os.sched_getaffinity(0) if each != core) or 1 << core
        pid = str(self._spaces[name].pid)
        self._on_node("ip", "link", "add", there, "type", "veth", "peer", "name", "eth0", "netns", pid)
        self._on_node("ip", "address", "add", f"{here}/32", "dev", there)
        self._on_node("ip", "link", "set", there, "up")
        for address in addresses:
            self._on(name, "ip", "address", "add", f"{address}/32", "dev", "eth0")
        self._on(name, "ip", "link", "set", "eth0", "up")
        self._on(name, "ip", "route", "add", here, "dev", "eth0", "scope", "link")
        self._on(name, "ip", "route", "add", "default", "via", here, "dev", "eth0", "src", addresses[0])
        for address in addresses:
            self._on_node("ip", "route", "add", address, "dev", there)
        self._on_node("tee", f"/sys/class/net/{there}/queues/rx-0/rps_cpus", text=f"{1 << core:x}")
        self._on(name, "tee", "/sys/class/net/eth0/queues/rx-0/rps_cpus", text=f"{others:x}")

    def ground(self) -> Ground:
        return Ground(self._inside("client"), self._inside("backends"), OCTET)

    def reach(self, target: Target) -> tuple[Address, ...]:
        if self._rules:
            return ((self.ground().address(target.ip), target.port),)
        return tuple((self.ground().address(each.ip), each.port) for each in target.backends)

    def pids(self) -> tuple[int, ...]:
        return ()

    def stop(self) -> None:
        for holder in self._spaces.values():
            holder.end()
        self._spaces.clear()

    def _inside(self, name: str) -> tuple[str, ...]:
        """What a command is preceded by to run in a namespace."""
        holder = self._spaces.get(name)
        return (_which("nsenter"), "--net", "--mount", "--target", str(holder.pid)) if holder else ()

    def _on_node(self, *command: str, text: str = "") -> None:
        self._on("node", *command, text=text)

    def _on(self, name: str, *command: str, text: str = "") -> None:
        words = [*self._inside(name), _which(command[0]), *command[1:]]
        done = subprocess.run(words, input=text, capture_output=True, text=True)
        if done.returncode:
            raise PlaneError(f"{self.name}: {' '.join(command)}: {done.stderr.strip()}")


def _which(tool: str) -> str:
    return shutil.which(tool) or shutil.which(tool, path=FIREWALL) or ""
