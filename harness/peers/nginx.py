"""nginx as an L4 proxy: its ``stream`` module, Debian's nginx with libnginx-mod-stream.

Beyond its defaults it has one worker, as it gets one core; buffers and queues as long as our relay's; no opinion on the
health of a server, as the others have none; and time-outs that no measurement meets.
"""

import re
import shutil
import subprocess
from pathlib import Path

from harness.peers.local import Local
from harness.peers.process import descendants
from harness.peers.scene import Scene, Target
from harness.peers.workloads import MOST_CONNECTIONS

# An algorithm of ours in nginx's words; it takes turns by weight unless told otherwise.
BALANCE = {"random": "random", "rr": "", "wrr": "", "lc": "least_conn", "wlc": "least_conn"}


class Nginx(Local):
    name = "nginx"

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
        self._serve(
            targets,
            lambda folder: self.config(targets, folder),
            lambda folder, file: [_binary(), "-p", folder, "-e", "stderr", "-c", file],
            core,
        )

    def pids(self) -> tuple[int, ...]:
        """The master, which only waits, and its worker."""
        return (self._process.pid, *descendants(self._process.pid)) if self._process else ()


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
