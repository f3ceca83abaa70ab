"""What an ingress is here: the one interface behind which all of them are measured, and what most have in common.

Law: as with ``harness.peers.peer``: started, reached, measured, stopped, and then nothing of it is left. What it cannot
do it says before it is started: ``lacks`` of this machine, ``refuses`` of a workload.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Protocol

from harness.peers.process import Process, descendants
from harness.peers.web.client import port_of
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Site
from harness.peers.web.workloads import Workload


class Peer(Protocol):
    """A way from client to backends."""

    name: str
    routes: bool  # whether it knows hosts and paths; who does not is not held to the corpus

    def lacks(self) -> str:
        """What this machine has not got that it needs, and the remedy; empty where nothing."""

    def version(self) -> str:
        """Exact version, for people."""

    def refuses(self, workload: Workload) -> str:
        """Why it does not carry a workload; empty where it does."""

    def start(self, site: Site, core: int) -> None:
        """Carry the site on one core; returns once it listens. Raises PlaneError."""

    def reach(self, site: Site, workload: Workload) -> tuple[str, int]:
        """Where a client connects to."""

    def pids(self) -> tuple[int, ...]:
        """Its processes, while it runs."""

    def stop(self) -> None:
        """End whatever ``start`` has begun, however far that came."""


class Program:
    """A peer that is one program, with files in a folder of its own."""

    name: str
    routes = True

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: Process | None = None

    def files(self, site: Site, folder: str) -> dict[str, str]:
        """Its configuration, by file name."""
        raise NotImplementedError

    def command(self, folder: str) -> list[str]:
        raise NotImplementedError

    def refuses(self, workload: Workload) -> str:
        return ""

    def start(self, site: Site, core: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"trafficplane-{self.name}-")
        folder = self._folder.name
        for name, text in self.files(site, folder).items():
            Path(folder, name).write_text(text)
        self._process = Process(self.command(folder), core)
        self._process.wait_for_listeners(("TCP", site.address, port) for port in (HTTP_PORT, HTTPS_PORT))

    def reach(self, site: Site, workload: Workload) -> tuple[str, int]:
        return site.address, port_of(workload)

    def pids(self) -> tuple[int, ...]:
        return (self._process.pid, *descendants(self._process.pid)) if self._process else ()

    def stop(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def binary(name: str) -> str:
    """Path of a program, beside this Python or the system's; empty where there is none."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name) or ""
