"""Two runs that differ in one thing, as two load-balancing algorithms: is one better, and where does it save the time?

marimo edit notebooks/two_algorithms.py -- --base RUN --other RUN, or without them those in results/reference/.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium")


@app.cell
def _():
    from pathlib import Path

    import marimo as mo
    import numpy as np
    from matplotlib.figure import Figure

    import harness
    from harness import hops, plots, records, report
    from harness.compare import comparison, table

    return Figure, Path, comparison, harness, hops, mo, np, plots, records, report, table


@app.cell
def _(Path, harness, mo, records):
    reference = Path(__file__).parents[1] / "results/reference"
    folders = [Path(mo.cli_args().get(name) or reference / run) for name, run in (("base", "rr"), ("other", "lc"))]
    runs = [harness.load(folder)["requests"] for folder in folders]
    facts = [records.provenance_of(run) for run in runs]
    names = [fact.get("variant") or fact["run"] for fact in facts]
    mo.md(f"# {names[1]} held against {names[0]}\n\n{runs[0].num_rows:,} and {runs[1].num_rows:,} requests.")
    return folders, names, runs


@app.cell
def _(comparison, folders, mo, table):
    compared = comparison.summarise(folders, [], 0.02, force=False)
    (pair,) = compared["comparisons"]
    findings = [
        {
            "load": row["load"],
            "metric": row["metric"],
            "base": table.value_text(row["metric"], row["base"]["value"]),
            "other": table.value_text(row["metric"], row["other"]["value"]),
            "change": table.change_text(row["metric"], row["change"]["value"]),
            "verdict": row["verdict"],
        }
        for row in pair["findings"]
    ]
    mo.vstack(
        [
            mo.md(f"## Is one better?\n\nBy a bootstrap and a permutation test: {pair['test']}."),
            mo.ui.table(findings),
        ]
    )
    return (findings,)


@app.cell
def _(Figure, names, np, plots, runs):
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="ms", ylabel="share of requests that are faster", xscale="log")
    for name, run in zip(names, runs, strict=True):
        ordered = np.sort(plots.latencies_ns(run)) / 1e6
        axes.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), label=name)
    axes.legend()
    figure
    return


@app.cell
def _(hops, mo, names, report, runs):
    around = [report.summarise(run)["loads"][0]["hops"] for run in runs]
    saved = [
        {"part": part}
        | {
            f"{name} {percentile}": round(means[percentile].get(part, 0) / 1e6, 2)
            for percentile in ("p50", "p99")
            for name, means in zip(names, around, strict=True)
        }
        for part in hops.NAMES
        if any(part in means["p99"] for means in around)
    ]
    mo.vstack(
        [mo.md("## Where it saves the time\n\nMean ms around the median and the 99th percentile."), mo.ui.table(saved)]
    )
    return (saved,)


if __name__ == "__main__":
    app.run()
