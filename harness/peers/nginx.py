"""nginx as an L4 proxy: its ``stream`` module, Debian's nginx with libnginx-mod-stream.

Beyond its defaults it has one worker, as it gets one core; buffers and queues as long as our relay's; no opinion on the
health of a server, as the others have none; and time-outs that no measurement meets.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.peers.peer import LOOPBACK, Address, Ground
from harness.peers.process import Process, descendants
from harness.peers.scene import Scene, Target
from harness.peers.workloads import MOST_CONNECTIONS

# An algorithm of ours in nginx's words; it takes turns by weight unless told otherwise.
BALANCE = {"random": "random", "rr": "", "wrr": "", "lc": "least_conn", "wlc": "least_conn"}


class Nginx:
    name = "nginx"

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: Process | None = None

    def lacks(self) -> str:
        if not _binary():
            return "no nginx found; apt install nginx-light libnginx-mod-stream"
        if "--with-stream" not in _build().replace("--with-stream=dynamic", "").split() and not _module():
            return "nginx has no stream module; apt install libnginx-mod-stream"
        return ""

    def version(self) -> str:
        found = re.search(r"nginx/(\S+)", _build())
        return f"nginx {found[1] if found else '(version unknown)'}"

    def refuses(self, target: Target) -> str:
        if target.algorithm not in BALANCE:
            return f"nginx has no {target.algorithm}; it has {', '.join(BALANCE)}"
        return ""

    def config(self, targets: tuple[Target, ...], folder: str) -> str:
        """nginx.conf for these targets."""
        module = f"load_module {_module()};\n" if _module() else ""
        return (
            f"{module}daemon off;\npid {folder}/pid;\nerror_log stderr warn;\n"
            f"worker_processes 1;\nworker_rlimit_nofile {4 * MOST_CONNECTIONS};\n"
            f"events {{\n    worker_connections {3 * MOST_CONNECTIONS};\n}}\n"
            "stream {\n    proxy_timeout 1h;\n    proxy_buffer_size 32k;\n"
            + "".join(_section(target) for target in targets)
            + "}\n"
        )

    def start(self, scene: Scene, core: int) -> None:
        targets = tuple(target for target in scene.targets if not self.refuses(target))
        self._folder = tempfile.TemporaryDirectory(prefix="trafficplane-nginx-")
        file = Path(self._folder.name, "nginx.conf")
        file.write_text(self.config(targets, self._folder.name))
        self._process = Process([_binary(), "-p", self._folder.name, "-e", "stderr", "-c", str(file)], core)
        self._process.wait_for_listeners((target.protocol, target.ip, target.port) for target in targets)

    def ground(self) -> Ground:
        return LOOPBACK

    def reach(self, target: Target) -> tuple[Address, ...]:
        return ((target.ip, target.port),)

    def pids(self) -> tuple[int, ...]:
        """The master, which only waits, and its worker."""
        return (self._process.pid, *descendants(self._process.pid)) if self._process else ()

    def stop(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _section(target: Target) -> str:
    servers = (f"server {each.ip}:{each.port} weight={each.weight} max_fails=0" for each in target.backends)
    upstream = [*filter(None, [BALANCE[target.algorithm]]), *servers]
    listen = f"{target.ip}:{target.port}" + (" udp" if target.protocol == "UDP" else " backlog=4096")
    return _block(f"upstream {target.word}", upstream) + _block(
        "server", [f"listen {listen}", f"proxy_pass {target.word}"]
    )


def _block(name: str, directives: list[str]) -> str:
    return f"    {name} {{\n" + "".join(f"        {line};\n" for line in directives) + "    }\n"


def _binary() -> str:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or ""


def _build() -> str:
    """What nginx says of how it was built."""
    return subprocess.run([_binary(), "-V"], capture_output=True, text=True, check=True).stderr


def _module() -> str:
    """Path of the stream module where it is one to load; empty where it is built in, or missing."""
    found = re.search(r"--modules-path=(\S+)", _build())
    file = Path(found[1] if found else "/usr/lib/nginx/modules", "ngx_stream_module.so")
    return str(file) if file.is_file() else ""
