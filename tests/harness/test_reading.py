"""What the documentation shows of reading a run, run on one that is kept."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from harness import hops, records

ROOT = Path(__file__).parents[2]
RUN = ROOT / "results" / "reference" / "rr"
SECTION = (ROOT / "docs" / "records.md").read_text().partition("### Reading it\n")[2].partition("\n### ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


def test_each_way_of_reading_a_run_that_is_shown_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RUN)
    names: dict[str, Any] = {}  # which one block has from another
    given = [_run(block.replace("results/quickstart/…", str(RUN)), names) for block in BLOCKS]
    table = records.read(RUN)
    answered = table.filter(pc.is_valid(table["done_ns"]))
    by_pod = {
        pod: table.filter(pc.equal(table["pod"], pod))["service_ns"].drop_null().to_numpy()
        for pod in table["pod"].unique().drop_null().to_pylist()
    }
    assert len(by_pod) == 4
    tables, arrow, duckdb, parts, polars, pandas = given
    assert (tables, parts) == (None, None)  # blocks that name what they have found
    assert names["tables"]["requests"].equals(table)
    assert arrow.num_rows == table.num_rows - table["error"].null_count
    assert np.array_equal(names["parts"], hops.parts_ns(answered))
    ranked = {pod: int(np.sort(times)[-(-len(times) * 99 // 100) - 1]) for pod, times in by_pod.items()}
    assert {pod: p99 for pod, _, p99 in duckdb.fetchall() if pod} == ranked
    nearest = {pod: np.quantile(times, 0.99, method="nearest") for pod, times in by_pod.items()}
    assert {pod: p99 for pod, p99 in polars.rows() if pod} == nearest
    assert pandas.to_dict() == {pod: pytest.approx(np.quantile(times, 0.99)) for pod, times in by_pod.items()}


def _run(block: str, names: dict[str, Any]) -> Any:
    """Runs a block of Python and gives what its last line is worth, None where that names something."""
    tree = ast.parse(block)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "records.md", "exec"), names)
    return eval(ast.unparse(last), names) if last else None
