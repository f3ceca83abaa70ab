"""Passwords compared with their hashes in a process of its own, one at a time, so that requests meanwhile go on.

Law: to compare takes long on purpose, and for some hashes it is Python that does it, which would hold every request of
the ingress. The process is started by the first password and ends with ``close``, or when it finds its ingress gone; a
hash that takes it longer than PATIENCE_S ends it too, and the next password has a new one. So many may wait; whoever
comes then is told at once.
"""

import asyncio
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from plane.passwords import verified

WAITING = 64  # passwords that wait or are looked at
PATIENCE_S = 10.0  # for one of them


class BusyError(Exception):
    """Nobody can say whether a password is right."""


class Hashing:
    """Of one ingress. Use from one event loop."""

    def __init__(self) -> None:
        self._waiting = 0
        self._closed = False
        self._lock = Lock()  # of ``_process`` and ``_closed``, which the thread and ``close`` look at
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: ThreadPoolExecutor | None = None  # that talks to the process, and waits for what it says

    async def verified(self, hashed: str, password: str) -> bool:
        """Whether a hash is that of a password. Raises BusyError."""
        if self._waiting >= WAITING or self._closed:
            raise BusyError("too many passwords are being looked at; come back later")
        self._thread = self._thread or ThreadPoolExecutor(1, "hashing")
        self._waiting += 1
        asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask, hashed, password)
        asking.add_done_callback(self._answered)
        return await asking

    def close(self) -> None:
        """Ends the process; who waits is told that nobody can say."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            _end(process)
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _answered(self, asking: asyncio.Future[bool]) -> None:
        self._waiting -= 1
        if not asking.cancelled():
            asking.exception()  # whoever asked may have left

    def _ask(self, hashed: str, password: str) -> bool:
        """In the thread: one question and its answer."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([hashed, password]).encode() + b"\n")
            process.stdin.flush()
            if answer := process.stdout.readline():
                return bool(json.loads(answer))
        except (OSError, ValueError):  # it has ended, or ``close`` has ended it
            pass
        with self._lock:
            if self._process is process:
                self._process = None
                _end(process)
        raise BusyError(f"the password's hash takes longer than {PATIENCE_S:g} s")

    def _started(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._closed:
                raise BusyError("the ingress stops")
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__, str(PATIENCE_S)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # no Ctrl-C of ours
                )
            return self._process


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for end in (process.stdin, process.stdout):
        if end is not None:
            end.close()


def main() -> None:
    """The process: a line of JSON for each line of it, until there are no more. Its argument is PATIENCE_S."""
    patience_s = float(sys.argv[1])
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, patience_s)  # which ends this process
        sys.stdout.buffer.write(json.dumps(verified(*json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
