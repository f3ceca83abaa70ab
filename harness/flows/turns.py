"""Runs that are made one after the other into one folder, and what they say together.

Law: each is a run like any other. One that was interrupted is the last; what was made until then is summed up.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.flows.running import SUMMARY_FILE, Result


def taken(
    turns: Iterable[tuple[str, Callable[[], Result]]],
    folder: Path,
    has_rows: Callable[[Path], bool],
    summarise: Callable[[Path], dict[str, Any]],
    console: Console,
) -> Result:
    """Makes the runs, each said by its line, and leaves the summary of the folder in it.

    Raises what a run raises; but where there are rows already, a KeyboardInterrupt ends the turns.
    """
    ended = False
    for line, run in turns:
        console.print(line, markup=False, soft_wrap=True)
        try:
            ended = run().summary["interrupted"]
        except KeyboardInterrupt:
            if not has_rows(folder):
                raise
            ended = True
        if ended:
            break
    summary = {**summarise(folder), "interrupted": ended}
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return Result(folder, summary)
