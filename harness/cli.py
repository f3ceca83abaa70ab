"""``plane bench``: run a scenario, print again what a run measured, compare runs, or measure the plane beside peers.

Exit codes: 0 every objective met, 1 one missed or the plane failed, 2 bad input, 130 interrupted.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from rich.console import Console

    from harness.flows.running import Result

INTERRUPTED = 130


@click.group()
def bench() -> None:
    """Measure Services and Ingresses: every request a row."""


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
        measure, out, output, (instance, port_offset, address), "the first request: nothing was measured"
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
        _fail(str(error), 2)
    try:
        result = measure(runner.Surface(goes.folder, *plane), console(stderr=True))
    except ManifestError as error:
        _fail("\n".join(str(problem) for problem in error.problems), 2)
    except PlaneError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail(f"interrupted before {nothing}", INTERRUPTED)
    try:
        copied = goes.keep(result.folder)
    except OSError as error:
        _fail(f"results are in {result.folder}, but can't be copied to {out}: {error}", 1)
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
        _fail(str(error), 2)
    try:
        least = 0.0 if at_least is None else float(units.rate(at_least))
    except ValueError as error:
        _fail(f"--at-least {error}", 2)

    def measure(surface: runner.Surface, said: "Console") -> "Result":
        return runner.max_rate(scenario, wanted, surface, said)

    nothing = "the first probe had ended: nothing was found"
    summary = _results(measure, out, output, (instance, port_offset, address), nothing)
    if summary["interrupted"]:
        sys.exit(INTERRUPTED)
    if summary["met"] and summary["rate"] < least:
        _fail(f"{units.format_rate(summary['rate'])} is less than --at-least {at_least}", 1)
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
        if (run / running.FILE).exists():
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
        _fail(f"{run}: cannot be read as a run: {error}", 2)
    if output == "json":
        click.echo(json.dumps(summary, indent=2))
    elif output == "html":
        if summary.get("kind") == rounds.KIND:
            _fail(f"{run}: runs that belong together have no page, each of them has; print it as table or json", 2)
        if summary.get("kind") == maxrate.KIND:
            _fail(f"{run}: a search has no page, each of its probes has; print it as table or json", 2)
        text = pages.page_of(run, summary) if table is None else page.page(table, summary, others)
        click.echo(text, nl=False)
    else:
        console().print(_tables(summary))
    sys.exit(int(not summary["met"]))


def _least(text: str) -> float:
    """``--ignore-below``. Raises ValueError."""
    from harness import units

    if text != "0" and not text.endswith("%"):
        raise ValueError(f"--ignore-below {text!r} is no share: write 0, or a part, as 2%")
    return float(units.share(0 if text == "0" else text))


def _folder(_: click.Context, __: click.Parameter, given: Path) -> Path:
    """A folder of this machine, and no URL, which would be taken for one."""
    if ":/" in str(given):  # a Path makes one slash of two
        raise click.BadParameter(f"{given} is no folder; only `plane bench run` takes a URL")
    return given


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
        _fail(str(error), 2)
    if output == "json":
        click.echo(json.dumps(summary, indent=2))
    else:
        console().print(tables(summary))
    sys.exit(int(bool(summary["broken"])))


@bench.command()
@click.argument("what", type=click.Choice(["services", "ingress"]), default="services")
@click.option(
    "-f",
    "--filename",
    "paths",
    multiple=True,
    metavar="PATH",
    help="Manifests.  [default: configs/peers, for ingress configs/peers-ingress]",
)
@click.option("--only", multiple=True, metavar="NAME", help="A subject to measure beside direct. May be repeated.")
@click.option("--workload", "workloads", multiple=True, metavar="NAME", help="A workload to measure. May be repeated.")
@click.option(
    "--rounds", type=click.IntRange(1), help="How often each subject has its turn.  [default: 5, for ingress 3]"
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    help="How long each is measured, for ingress whole seconds.  [default: 2, for ingress 1]",
)
@click.option("--quick", is_flag=True, help="One short round: to see that it works, not to quote.")
@click.option(
    "--client",
    type=click.Choice(["compiled", "wrk"]),
    help="Who asks by plain HTTP; by TLS it is wrk.  [default: compiled; ingress only]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=_folder,
    default=Path("results"),
    show_default=True,
    help="Folder of results.",
)
@click.option("--write", type=click.Path(path_type=Path), help="A Markdown file to put the table into as well.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="What to print at the end.")
def peers(
    what: str,
    paths: tuple[str, ...],
    only: tuple[str, ...],
    workloads: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    client: str | None,
    out: Path,
    write: Path | None,
    output: str,
) -> None:
    """Measure our relay beside HAProxy, nginx and kube-proxy's own way, or our ingress beside others, each on one core.

    WHAT is services (the default) or ingress.

    Exit codes: 0 done, 1 a subject gave wrong answers or none, 2 bad input, 130 interrupted.
    """
    from harness.peers.table import markdown, tables
    from harness.tables import console
    from plane.errors import ManifestError, PlaneError

    if client and what != "ingress":
        raise click.BadParameter("services are asked by their own client only", param_hint="--client")
    try:
        if what == "ingress":
            compared = _ingress(paths, only, workloads, rounds, seconds, quick, client or "compiled", out)
        else:
            compared = _services(paths, only, workloads, rounds, seconds, quick, out)
    except ManifestError as error:
        _fail("\n".join(str(problem) for problem in error.problems), 2)
    except PlaneError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted before the first row: nothing was measured", INTERRUPTED)
    if write is not None:
        write.write_text(markdown(compared.summary))
    if output == "json":
        click.echo(json.dumps({**compared.summary, "results": str(compared.folder)}, indent=2))
    else:
        console().print(tables(compared.summary))
        click.echo(f"\nresults in {compared.folder}")
    sys.exit(INTERRUPTED if compared.summary["interrupted"] == "true" else int(compared.summary["errors"] > 0))


def _services(
    paths: tuple[str, ...],
    only: tuple[str, ...],
    workloads: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    out: Path,
) -> Any:
    from harness.peers.comparison import compare
    from harness.peers.rounds import Effort
    from harness.peers.rounds import peers as every
    from harness.peers.workloads import BY_NAME
    from harness.tables import console

    _one_of("--only", only, every())
    _one_of("--workload", workloads, BY_NAME)
    effort = Effort(
        rounds or (1 if quick else 5),
        seconds or (0.5 if quick else 2.0),
        0.2 if quick else 0.5,
        tuple(BY_NAME[name] for name in BY_NAME if not workloads or name in workloads),
    )
    return compare(paths or ("configs/peers",), only, effort, out, console(stderr=True))


def _ingress(
    paths: tuple[str, ...],
    only: tuple[str, ...],
    workloads: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    client: str,
    out: Path,
) -> Any:
    from harness.peers.web.comparison import compare
    from harness.peers.web.rounds import Effort
    from harness.peers.web.rounds import peers as every
    from harness.peers.web.workloads import BY_NAME
    from harness.tables import console

    _one_of("--only", only, every())
    _one_of("--workload", workloads, BY_NAME)
    if seconds is not None and not float(seconds).is_integer():
        raise click.BadParameter(f"{seconds:g}: the client of ingress knows whole seconds only", param_hint="--seconds")
    chosen = tuple(BY_NAME[name] for name in BY_NAME if not workloads or name in workloads)
    effort = Effort(rounds or (1 if quick else 3), int(seconds or 1), chosen, client)
    return compare(paths or ("configs/peers-ingress",), only, effort, out, console(stderr=True))


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


def _one_of(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError, with exit code 2, for a name that is none of these."""
    known = list(known)
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r}: choose from {', '.join(known)}", param_hint=option)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
