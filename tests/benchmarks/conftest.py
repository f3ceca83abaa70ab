"""What the benchmarks found beside time, shown below pytest-benchmark's own tables."""

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A line for each benchmark with what it noted: ratios to its baseline, CPU, bytes."""
    session = getattr(config, "_benchmarksession", None)
    noted = [row for row in (session.benchmarks if session else ()) if row and row.extra_info]
    if not noted:
        return
    terminalreporter.section("noted by the benchmarks")
    for row in sorted(noted, key=lambda row: (row.group or "", row.name)):
        facts = "  ".join(f"{name} {value}" for name, value in row.extra_info.items())
        terminalreporter.write_line(f"{row.group}: {row.name}  {facts}")
