"""Flows as they were: from an Arrow IPC file, from CSV, or from a capture of packets.

Law: what a file says is checked whole before any of it is used; what is wrong is named by file, column and row, or by
file and packet.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.flows import captures, columns
from kernels.layout import Flows
from plane.families import IPV4, Family


class Trace(NamedTuple):
    """Flows and what is known beside, as columns of equal length.

    arrival_ns, duration_ns, bytes  int64, 0 or more; None where the file does not say
    notes                           what was left out of the file
    """

    flows: Flows
    arrival_ns: np.ndarray | None = None
    duration_ns: np.ndarray | None = None
    bytes: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def read_trace(path: Path, family: Family = IPV4) -> Trace:
    """The flows of a file, in its order; of a capture by its suffix, in the order of time. Raises ScenarioError.

    Of a capture there are those of the family; in other files all are of it.
    """
    if path.suffix.lower() in captures.SUFFIXES:
        flows, arrival_ns, duration_ns, sizes, notes = captures.read(path, family)
        return Trace(flows, arrival_ns, duration_ns, sizes, tuple(f"{path}: {note}" for note in notes))
    flows, beside = columns.read_measured(path, family)
    return Trace(flows, beside.get("arrival_ns"), beside.get("duration_ns"), beside.get("bytes"))
