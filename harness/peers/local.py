"""What peers have in common that are one program on loopback and listen at the Services' own addresses."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.peers.peer import LOOPBACK, Address, Ground
from harness.peers.process import Process
from harness.peers.scene import Target


class Local:
    """``_process`` is the program while it runs; a configuration is written into a folder of its own."""

    name: str

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: Process | None = None

    def ground(self) -> Ground:
        return LOOPBACK

    def reach(self, target: Target) -> tuple[Address, ...]:
        return ((target.ip, target.port),)

    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process else ()

    def stop(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _serve(
        self,
        targets: Sequence[Target],
        config: Callable[[str], str],
        command: Callable[[str, str], list[str]],
        core: int,
    ) -> None:
        """Runs ``command(folder, file)``, the file being ``config(folder)``; returns once it listens everywhere."""
        self._folder = tempfile.TemporaryDirectory(prefix=f"trafficplane-{self.name}-")
        file = Path(self._folder.name, f"{self.name}.conf")
        file.write_text(config(self._folder.name))
        self._process = Process(command(self._folder.name, str(file)), core)
        self._process.wait_for_listeners((target.protocol, target.ip, target.port) for target in targets)
