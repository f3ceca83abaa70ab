"""A thread that drives a compiled loop, breath by breath.

Law: while it runs nobody else touches what compiled code writes. Whoever wants something of that has it done between
two breaths (``ask``); before the thread has begun, and once it has ended, he does it himself. A failure ends the thread
and nothing else: what it holds is closed, who has asked is answered, and its owner is told why, last.
"""

import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from plane.errors import PlaneError

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


class Driver:
    """What is called in the thread, over and over, is ``breathe``, which ends early once ``wake`` is readable.

    epoll    the set that breaths wait for; wake: a descriptor for it
    breathe  returns 0, or ``-errno`` where its set is broken
    close    called at the end, with what the thread has failed of, None where it was told to stop
    fail     called after that, should it have failed
    """

    def __init__(
        self,
        name: str,
        breathe: Callable[[], int],
        close: Callable[[Exception | None], object],
        fail: Callable[[Exception], object],
    ):
        self.name = name
        self.epoll = select.epoll()
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.running = False
        self._breathe = breathe
        self._close = close
        self._fail = fail
        self._questions: queue.SimpleQueue[tuple[Callable[[], object], Future]] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def has_begun(self) -> bool:
        return self._thread is not None

    @property
    def has_stopped(self) -> bool:
        return self.epoll.closed

    def start(self) -> None:
        self.running = True
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns once the thread has ended; from then on nothing of it is left."""
        if self.has_stopped:
            return
        self._stopping = True
        os.eventfd_write(self.wake, 1)
        if self._thread is not None:
            self._thread.join()
        self.epoll.close()
        os.close(self.wake)

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """What ``question`` returns or raises when it is called between two breaths."""
        return self.asked(question).result()

    def asked(self, question: Callable[[], Answer]) -> Future[Answer]:
        """The same, for whoever does not wait for it, or not yet."""
        future: Future[Answer] = Future()
        with self._asking:
            if self.running:
                self._questions.put((question, future))
                os.eventfd_write(self.wake, 1)
            else:
                _settle(future, question)
        return future

    def tell(self, question: Callable[[], object]) -> None:
        """Have ``question`` called likewise, and wait for nothing; what it raises is logged."""
        future: Future[object] = Future()
        future.add_done_callback(self._said)
        with self._asking:
            if self.running:
                self._questions.put((question, future))
                os.eventfd_write(self.wake, 1)
                return
        question()

    def _said(self, future: Future[object]) -> None:
        if (problem := future.exception()) is not None:
            log.error("%s: what its thread was told has failed", self.name, exc_info=problem)

    # What follows runs in the thread.

    def _run(self) -> None:
        problem = None
        try:
            while not self._stopping:
                self._answer()
                status = self._breathe()
                if status < 0:
                    raise PlaneError(f"{self.name}: epoll_wait: {os.strerror(-status)}")
        except Exception as failure:
            log.exception("%s: its thread has failed", self.name)
            problem = failure
        try:
            self._close(problem)
        finally:
            with self._asking:
                self.running = False
                self._answer()
        if problem is not None:
            self._fail(problem)

    def _answer(self) -> None:
        for _ in range(self._questions.qsize()):
            question, future = self._questions.get()
            _settle(future, question)


def _settle(future: Future[Answer], question: Callable[[], Answer]) -> None:
    try:
        future.set_result(question())
    except BaseException as problem:
        future.set_exception(problem)
