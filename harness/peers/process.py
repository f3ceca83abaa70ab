"""Processes of a benchmark: started on one core, spoken to by lines, ended by their ids.

Law: a process that is started here is ended by ``end``, or ends by itself when this one is gone: ours watch their
standard input. They are in sessions of their own, so a Ctrl-C reaches only this process, which ends them in order.
Only its main thread starts any.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from plane.addresses import ip_to_int
from plane.errors import PlaneError

PATIENCE_S = 30.0
GRACE_S = 5.0


class Process:
    """A command that runs on one core, or on any. ``prefix`` is what leads to where it is to run (``Ground``)."""

    def __init__(self, command: Sequence[str], core: int | None, prefix: Sequence[str] = ()):
        self._name = command[2] if command[1] == "-m" else Path(command[0]).name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in ``end``
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        with on_core(core), _signals_wait() as arrived:
            self._process = subprocess.Popen(
                [*prefix, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                start_new_session=True,
            )
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        if arrived:
            self.end()
            raise KeyboardInterrupt

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, line: str) -> None:
        """Writes a line to the process. Raises PlaneError where it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            raise PlaneError(self._gone()) from None

    def line(self, patience_s: float = PATIENCE_S) -> str:
        """The next line it prints. Raises PlaneError where there is none, with what it said on standard error."""
        try:
            line = self._lines.get(timeout=patience_s)
        except queue.Empty:
            raise PlaneError(f"{self._name}: no answer within {patience_s:g} s; {self._said()}") from None
        if not line:
            raise PlaneError(self._gone())
        return line.rstrip("\n")

    def wait_for_listeners(self, listeners: Iterable[tuple[str, str, int]]) -> None:
        """Returns once each (protocol, address, port) has a socket. Raises PlaneError where the process ends first."""
        deadline = time.monotonic() + PATIENCE_S
        for protocol, ip, port in listeners:
            while not is_listening(protocol, ip, port):
                if self._process.poll() is not None:
                    raise PlaneError(self._gone())
                if time.monotonic() > deadline:
                    where = f"{ip}:{port}/{protocol}"
                    raise PlaneError(f"{self._name}: not on {where} within {PATIENCE_S:g} s; {self._said()}")
                time.sleep(0.01)

    def end(self) -> None:
        """By the end of its input and SIGTERM, and after a grace by SIGKILL, it and what it has started."""
        children = descendants(self.pid)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in children:
            _await_end(child)
        self._reader.join(GRACE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")

    def _gone(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        return f"{self._name}: ended with {self._process.returncode}; {self._said()}"

    def _said(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return "it said: " + "; ".join(lines[-3:]) if lines else "it said nothing"


@contextlib.contextmanager
def _signals_wait() -> Iterator[list[int]]:
    """Those that would end this process are only noted meanwhile: what has just been started would not be ended."""
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: arrived.append(number))
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Has this thread, and what it starts, run on one core meanwhile; None: as before."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def is_listening(protocol: str, ip: str, port: int) -> bool:
    """Whether a socket of this network namespace waits there, found without a connection (proc(5), /proc/net/tcp)."""
    wanted, state = f"{socket.htonl(ip_to_int(ip)):08X}:{port:04X}", {"TCP": "0A", "UDP": "07"}[protocol]
    rows = (line.split() for line in Path(f"/proc/self/net/{protocol.lower()}").read_text().splitlines())
    return any(row[1] == wanted and row[3] == state for row in rows)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have; without itself."""
    found = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has ended
        return []
    for task in tasks:
        with contextlib.suppress(OSError):  # one thread has
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def _await_end(pid: int) -> None:
    """Returns once a process that was not ours to wait for is gone; after a grace it is killed."""
    deadline = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.01)
        os.kill(pid, 9)
