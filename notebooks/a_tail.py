"""A run and its tail: what was measured, where the time of the slowest requests went, and which pods they met.

marimo edit notebooks/a_tail.py -- --run results/quickstart/…, or without --run the one in results/reference/.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium")


@app.cell
def _():
    from pathlib import Path

    import duckdb
    import marimo as mo
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    import harness
    from harness import hops, plots, report

    return Path, duckdb, harness, hops, mo, np, pa, pc, plots, report


@app.cell
def _(Path, harness, mo):
    folder = Path(mo.cli_args().get("run") or Path(__file__).parents[1] / "results/reference/rr")
    tables = harness.load(folder)
    requests = tables["requests"]
    mo.md(f"# A run and its tail: `{folder.name}`\n\nOne row for each of {requests.num_rows:,} requests that were due.")
    return folder, requests


@app.cell
def _(mo, requests):
    columns = [
        {"column": field.name, "type": str(field.type)}
        | {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
        for field in requests.schema
    ]
    mo.vstack(
        [mo.md("Each column says what it is, in which unit, and what OpenTelemetry calls it."), mo.ui.table(columns)]
    )
    return


@app.cell
def _(folder, mo, report, requests):
    summary = report.summarise(requests, report.beside(folder))
    in_ms = [
        {"load": load["name"], "requests": load["scheduled"], "errors": load["errors"]}
        | {name: ns and round(ns / 1e6, 2) for name, ns in load["latency_ns"].items()}
        for load in summary["loads"]
    ]
    mo.vstack([mo.md("## Latency, ms"), mo.ui.table(in_ms)])
    return (summary,)


@app.cell
def _(mo, plots, summary):
    mo.vstack(
        [
            mo.md("## Where the time went\n\nOf the median, and of the tail."),
            *(mo.Html(plots.decomposition(load)) for load in summary["loads"] if load["hops"]),
        ]
    )
    return


@app.cell
def _(hops, mo, np, pc, requests):
    answered = requests.filter(pc.is_valid(requests["done_ns"]))
    parts = hops.parts_ns(answered)
    latency_ns = pc.subtract(answered["done_ns"], answered["intended_ns"]).to_numpy()
    slowest = np.argsort(-latency_ns, kind="stable")[: max(len(latency_ns) // 100, 10)]
    tail = [
        {"latency": round(latency_ns[row] / 1e6, 2), "pod": answered["pod"][int(row)].as_py()}
        | {name: round(part / 1e6, 2) for name, part in zip(hops.NAMES, parts[row], strict=True) if part}
        for row in slowest
    ]
    mo.vstack(
        [mo.md("## The slowest hundredth, request by request\n\nThe parts of each sum up to it."), mo.ui.table(tail)]
    )
    return answered, latency_ns, parts, slowest


@app.cell
def _(hops, mo, np, parts, slowest):
    share = parts[slowest].sum(axis=0) / parts[slowest].sum()
    most = hops.HOPS[int(np.argmax(share))]
    culprit = most.name
    mo.md(f"**{share.max():.0%}** of the time of these requests went to **{culprit}**: {most.meaning}.")
    return (culprit,)


@app.cell
def _(answered, duckdb, hops, latency_ns, mo, pa, parts, slowest):
    rows = answered.append_column("latency_ns", pa.array(latency_ns))
    rows = rows.append_column("in_pod_ns", pa.array(parts[:, hops.NAMES.index("pod")]))
    rows = rows.append_column("in_tail", pa.array([row in set(slowest.tolist()) for row in range(len(latency_ns))]))
    by_pod = duckdb.sql(
        """
        select pod, count(*) as requests, count(*) filter (in_tail) as in_tail,
               round(quantile_disc(latency_ns, 0.99) / 1e6, 2) as p99_ms,
               round(avg(in_pod_ns) / 1e6, 2) as mean_in_pod_ms
        from rows group by pod order by p99_ms desc
        """
    ).to_arrow_table()
    mo.vstack(
        [mo.md("## Which pods they met\n\nDuckDB asks the Arrow tables as they are."), mo.ui.table(by_pod.to_pylist())]
    )
    return (by_pod,)


if __name__ == "__main__":
    app.run()
