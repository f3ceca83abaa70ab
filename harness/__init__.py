"""Measures: ``harness.load(run)`` gives the tables of a run in one line."""

from os import PathLike
from pathlib import Path
from typing import Any


def load(run: str | PathLike[str]) -> dict[str, Any]:
    """The tables of a run in a folder, as pyarrow's: ``requests``, and ``connections``, ``events`` and ``resources``
    where they are.

    Those of a run that was killed are what its journals hold. Raises OSError and pa.ArrowInvalid.
    """
    from harness import records, report  # whoever imports a room of the harness does not get them all

    beside = report.beside(Path(run))
    found = {"requests": records.read(Path(run)), **vars(beside)}
    return {name: table for name, table in found.items() if table is not None}
