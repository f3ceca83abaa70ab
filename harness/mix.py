"""The requests of a load as they are on the wire, and which of them each row is.

Law: all of it is there before the first request. A row's request follows from its number alone: ``order`` holds one for
each number, and is gone through again and again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.records import Asked, Names
from harness.workload import Echo, Workload


@dataclass(frozen=True)
class Mix:
    """What a load sends.

    workloads  each of its different requests
    names      what each of these is called in the rows
    order      uint32[...]: row n asks ``workloads[order[n % len(order)]]``
    """

    workloads: Sequence[Workload | Echo]
    names: Sequence[str]
    order: np.ndarray

    @classmethod
    def of(cls, workload: Workload | Echo) -> "Mix":
        """The same request again and again."""
        return cls([workload], [workload.called], np.zeros(1, np.uint32))

    @property
    def protocol(self) -> str:
        """``http``, ``tcp`` or ``udp``."""
        return self.workloads[0].protocol

    @property
    def keep_alive(self) -> bool:
        return self.workloads[0].keep_alive

    def asked(self, numbers: np.ndarray) -> Asked:
        """What rows of these numbers asked for, int64[n]."""
        which = self.order[numbers % len(self.order)]
        return Asked(*(Names(place[which], texts) for place, texts in self._columns))

    def asked_first(self, rows: int) -> Asked:
        """The same of the first so many rows."""
        return self.asked(np.arange(rows))

    @cached_property
    def _columns(self) -> list[tuple[np.ndarray, list[str]]]:
        """Of the requests' names and of their paths: the place int32 of each workload's in a list, and that list.

        An empty one is none, -1.
        """
        columns = []
        for each in (self.names, [workload.path for workload in self.workloads]):
            places = {text: place for place, text in enumerate(dict.fromkeys(filter(None, each)))}
            columns.append((np.array([places.get(text, -1) for text in each], np.int32), list(places)))
        return columns
