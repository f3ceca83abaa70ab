"""``plane bench``: run a scenario, print again what a run measured, write it for other tools, compare runs, or measure
the plane beside peers.

Exit codes: 0 every objective met, 1 one missed or the plane failed, 2 bad input, 130 interrupted.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.ending import INTERRUPTED, fail
from harness.peers.command import peers

if TYPE_CHECKING:
    from rich.console import Console

    from harness.flows.running import Result


@click.group()
def bench() -> None:
    """Measure Services and Ingresses: every request a row."""


bench.add_command(peers)


@bench.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--out", default="results", show_default=True, help="Folder of results, or a URL they are copied to.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="What to print at the end.")
@click.option("--instance", type=int, default=0, show_default=True, help="Which of this machine's planes, 0 to 5.")
@click.option("--port-offset", type=int, help="Added to ports that may not be bound.  [default: 0 if they may]")
@click.option("--address", help="Ray cluster to join.  [default: $RAY_ADDRESS, else a local one]")
def run(scenario: Path, out: str, output: str, instance: int, port_offset: int | None, address: str | None) -> None:
    """Run the scenario file SCENARIO and print its report; rows and summary go to OUT/<scenario>/<run>/.

    Of a scenario with repeats or a matrix there are several runs, in a folder of their own below OUT/<scenario>/. Where
    OUT is a URL, as s3://bucket/folder, a run is written to results/ here, and copied when it has ended.
    """
    from harness import run as runner

    def measure(surface: runner.Surface, said: "Console") -> "Result":
        return runner.run(scenario, surface, said)

    summary = _results(
        measure, out, output, (instance, port_offset, address), "anything was finished: nothing was measured"
    )
    sys.exit(INTERRUPTED if summary["interrupted"] else int(not summary["met"]))


def _results(
    measure: "Callable[[Any, Console], Result]",
    out: str,
    output: str,
    plane: tuple[int, int | None, str | None],
    nothing: str,
) -> Mapping[str, Any]:
    """What ``measure`` came to, which is put to ``out`` and printed; on errors exits as all commands do.

    plane    instance, port offset and address of Ray
    nothing  what an interruption before there is any result comes to
    """
    from harness import run as runner
    from harness.destination import destination
    from harness.tables import console
    from plane.errors import ManifestError, PlaneError

    try:
        goes = destination(out)
    except ValueError as error:
        fail(str(error), 2)
    try:
        result = measure(runner.Surface(goes.folder, *plane), console(stderr=True))
    except ManifestError as error:
        fail("\n".join(str(problem) for problem in error.problems), 2)
    except PlaneError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail(f"interrupted before {nothing}", INTERRUPTED)
    try:
        copied = goes.keep(result.folder)
    except OSError as error:
        fail(f"results are in {result.folder}, but can't be copied to {out}: {error}", 1)
    if output == "json":
        there = {"copied_to": copied} if copied else {}
        click.echo(json.dumps({**result.summary, "results": str(result.folder), **there}, indent=2))
    else:
        console().print(_tables(result.summary))
        click.echo(f"\nresults in {result.folder}" + (f", and in {copied}" if copied else ""))
    return result.summary


def _share(context: click.Context, option: click.Parameter, text: str) -> float:
    from harness import units

    try:
        if not text.endswith("%") or (share := units.share(text)) == 0:
            raise ValueError(f"{text!r} is no share: write a part of more than 0, as 5%")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return float(share)


@bench.command("max-rate")
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--load", metavar="NAME", help="Whose rate is looked for.  [default: the only load]")
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="NAME=LIMIT",
    help="As p99=100ms or errors=0.1%, in place of the scenario's of that name. May be repeated.",
)
@click.option("--start", metavar="RATE", help="Rate of the first probe, as 100/s.  [default: that of the load]")
@click.option("--duration", help="Of each load in a probe, as 5s.  [default: its own]")
@click.option("--precision", default="5%", show_default=True, callback=_share, help="How closely the rate is found.")
@click.option(
    "--tolerance",
    default="5%",
    show_default=True,
    callback=_share,
    help="By how much a rate may be missed and is kept.",
)
@click.option("--at-least", metavar="RATE", help="Exit with 1 where the rate found is less.")
@click.option("--out", default="results", show_default=True, help="Folder of results, or a URL they are copied to.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="What to print at the end.")
@click.option("--instance", type=int, default=0, show_default=True, help="Which of this machine's planes, 0 to 5.")
@click.option("--port-offset", type=int, help="Added to ports that may not be bound.  [default: 0 if they may]")
@click.option("--address", help="Ray cluster to join.  [default: $RAY_ADDRESS, else a local one]")
def max_rate(
    scenario: Path,
    load: str | None,
    objectives: tuple[str, ...],
    start: str | None,
    duration: str | None,
    precision: float,
    tolerance: float,
    at_least: str | None,
    out: str,
    output: str,
    instance: int,
    port_offset: int | None,
    address: str | None,
) -> None:
    """Find the highest rate at which a load of the scenario file SCENARIO is answered and keeps its objectives.

    The rate is doubled while it is kept, then bisected, then the rate found is tried once more, all on one plane.
    Other loads of the scenario run beside each probe.

    Exit codes: 0 found, 1 there is none, or less than --at-least, 2 bad input, 130 interrupted.
    """
    from harness import maxrate, units
    from harness import run as runner

    wanted = maxrate.Wanted(load, objectives, start, duration, precision, tolerance)
    try:
        maxrate.check(wanted)
    except ValueError as error:
        fail(str(error), 2)
    try:
        least = 0.0 if at_least is None else float(units.rate(at_least))
    except ValueError as error:
        fail(f"--at-least {error}", 2)

    def measure(surface: runner.Surface, said: "Console") -> "Result":
        return runner.max_rate(scenario, wanted, surface, said)

    nothing = "the first probe had ended: nothing was found"
    summary = _results(measure, out, output, (instance, port_offset, address), nothing)
    if summary["interrupted"]:
        sys.exit(INTERRUPTED)
    if summary["met"] and summary["rate"] < least:
        fail(f"{units.format_rate(summary['rate'])} is less than --at-least {at_least}", 1)
    sys.exit(int(not summary["met"]))


@bench.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Choice(["table", "json", "html"]), default="table", help="What to print.")
def report(run: Path, output: str) -> None:
    """Print the report of RUN again from its rows alone: a folder of results, its requests.arrow, or a folder of runs
    that belong together."""
    import pyarrow as pa

    from harness import maxrate, page, records, rounds
    from harness.flows import growth, pages, queues, running, waiting
    from harness.flows import summary as flows
    from harness.report import NOTHING, beside, summarise
    from harness.tables import console

    try:
        table, others = None, NOTHING
        if running.holds_run(run):
            summary = flows.summarise(*running.read(run))
        elif (run / queues.FILE).exists():
            summary = waiting.summarise(*queues.read(run))
        elif (run / maxrate.FILE).exists():
            summary = maxrate.read(run)
        elif growth.is_growth(run):
            summary = growth.summarise(run)
        elif rounds.is_rounds(run):
            summary = rounds.summarise(run)
        else:
            table, others = records.read(run), beside(run)
            summary = summarise(table, others)
    except (OSError, ValueError, pa.ArrowException) as error:
        fail(f"{run}: cannot be read as a run: {error}", 2)
    if output == "json":
        click.echo(json.dumps(summary, indent=2))
    elif output == "html":
        if summary.get("kind") == rounds.KIND:
            fail(f"{run}: runs that belong together have no page, each of them has; print it as table or json", 2)
        if summary.get("kind") == maxrate.KIND:
            fail(f"{run}: a search has no page, each of its probes has; print it as table or json", 2)
        text = pages.page_of(run, summary) if table is None else page.page(table, summary, others)
        click.echo(text, nl=False)
    else:
        console().print(_tables(summary))
    sys.exit(int(not summary["met"]))


@bench.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--as", "form", type=click.Choice(["vegeta", "fortio", "hgrm"]), required=True, help="Format.")
@click.option("--load", metavar="NAME", help="Of which load; fortio and hgrm have room for one.  [default: all]")
@click.option("--to", type=click.File("w", lazy=True), default="-", help="A file.  [default: standard output]")
def export(run: Path, form: str, load: str | None, to: Any) -> None:
    """Write the rows of RUN, a folder of results or its requests.arrow, for another tool.

    vegeta is the CSV of `vegeta encode`, for `vegeta report` and `vegeta plot`; fortio the JSON of `fortio load -json`,
    for `fortio report`; hgrm the percentiles of HdrHistogram, as wrk2 prints them, for its plotters. A request without
    an answer has the load's timeout there; warm-up is left out.
    """
    import pyarrow as pa

    from harness import export as exports
    from harness import records
    from plane.errors import ManifestError

    try:
        exports.write(records.read(run), form, load, to)
    except exports.ExportError as error:
        fail(f"{run}: {error}", 2)
    except (OSError, ValueError, pa.ArrowException, ManifestError) as error:
        fail(f"{run}: cannot be read as a run: {error}", 2)


def _least(text: str) -> float:
    """``--ignore-below``. Raises ValueError."""
    from harness import units

    if text != "0" and not text.endswith("%"):
        raise ValueError(f"--ignore-below {text!r} is no share: write 0, or a part, as 2%")
    return float(units.share(0 if text == "0" else text))


@bench.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=click.Path(exists=True, path_type=Path))
@click.option("--fail-if", "limits", multiple=True, metavar="LIMIT", help="As 'p99 > +5%'. May be repeated.")
@click.option("--ignore-below", default="2%", show_default=True, metavar="SHARE", help="A smaller change is none.")
@click.option("--force", is_flag=True, help="Compare runs of different scenarios, and interrupted ones.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="What to print.")
def compare(runs: tuple[Path, ...], limits: tuple[str, ...], ignore_below: str, force: bool, output: str) -> None:
    """Hold runs against the first of them. RUN is a folder of results, or one of folders that repeat each other.

    Of the folder that a scenario with a matrix leaves, given alone, each variant is one, and the first the base.

    Exit codes: 0 done, 1 a --fail-if is so, 2 bad input or runs that may not be compared.
    """
    from harness import rounds
    from harness.compare.comparison import summarise
    from harness.compare.limits import limit
    from harness.compare.sides import CompareError
    from harness.compare.table import tables
    from harness.tables import console

    if len(runs) == 1:
        runs = (*rounds.sides(runs[0]),) or runs
    if len(runs) < 2:
        raise click.UsageError("name two runs or more: the first is what the others are held against")
    try:
        least = _least(ignore_below)
        summary = summarise(runs, [limit(text) for text in limits], least, force=force)
    except (CompareError, ValueError) as error:
        fail(str(error), 2)
    if output == "json":
        click.echo(json.dumps(summary, indent=2))
    else:
        console().print(tables(summary))
    sys.exit(int(bool(summary["broken"])))


def _tables(summary: Mapping[str, Any]) -> Any:
    from harness import maxrate, rounds, tables
    from harness.flows import growth, waiting
    from harness.flows import table as flows

    kinds = {
        "flows": flows.tables,
        "queues": waiting.tables,
        growth.KIND: growth.tables,
        maxrate.KIND: maxrate.tables,
        rounds.KIND: rounds.tables,
    }
    return kinds.get(summary.get("kind", ""), tables.tables)(summary)
