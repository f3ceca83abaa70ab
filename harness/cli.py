"""``plane bench``: run a scenario, or print again what a run measured.

Exit codes: 0 every objective met, 1 one missed or the plane failed, 2 bad input, 130 interrupted.
"""

import json
import sys
from pathlib import Path
from typing import NoReturn

import click

INTERRUPTED = 130


@click.group()
def bench() -> None:
    """Measure Services and Ingresses: every request a row."""


@bench.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder of results."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="What to print at the end.")
@click.option("--instance", type=int, default=0, show_default=True, help="Which of this machine's planes, 0 to 5.")
@click.option("--port-offset", type=int, help="Added to ports that may not be bound.  [default: 0 if they may]")
@click.option("--address", help="Ray cluster to join.  [default: $RAY_ADDRESS, else a local one]")
def run(scenario: Path, out: Path, output: str, instance: int, port_offset: int | None, address: str | None) -> None:
    """Run the scenario file SCENARIO and print its report; rows and summary go to OUT/<scenario>/<run>/."""
    from harness import run as runner
    from harness.tables import console, tables
    from plane.errors import ManifestError, PlaneError

    surface = runner.Surface(out, instance, port_offset, address)
    try:
        result = runner.run(scenario, surface, console(stderr=True))
    except ManifestError as error:
        _fail("\n".join(str(problem) for problem in error.problems), 2)
    except PlaneError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted before the first request: nothing was measured", INTERRUPTED)
    if output == "json":
        click.echo(json.dumps({**result.summary, "results": str(result.folder)}, indent=2))
    else:
        console().print(tables(result.summary))
        click.echo(f"\nresults in {result.folder}")
    sys.exit(INTERRUPTED if result.summary["interrupted"] else int(not result.summary["met"]))


@bench.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="What to print.")
def report(run: Path, output: str) -> None:
    """Print the report of RUN again, a folder of results or its requests.arrow, from its rows alone."""
    import pyarrow as pa

    from harness import records
    from harness.report import summarise
    from harness.tables import console, tables

    try:
        summary = summarise(records.read(run))
    except (OSError, ValueError, pa.ArrowException) as error:
        _fail(f"{run}: cannot be read as a run: {error}", 2)
    if output == "json":
        click.echo(json.dumps(summary, indent=2))
    else:
        console().print(tables(summary))
    sys.exit(int(not summary["met"]))


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
