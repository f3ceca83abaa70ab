"""``plane bench peers``: the plane measured beside others, each on a core of its own."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click

from harness.ending import INTERRUPTED, fail


class Asked(NamedTuple):
    """What is to be measured, and how long; None: as is usual for it."""

    paths: tuple[str, ...]
    only: tuple[str, ...]
    workloads: tuple[str, ...]
    rounds: int | None
    seconds: float | None
    quick: bool
    client: str | None
    out: Path


def _folder(_: click.Context, __: click.Parameter, given: Path) -> Path:
    """A folder of this machine, and no URL, which would be taken for one."""
    if ":/" in str(given):  # a Path makes one slash of two
        raise click.BadParameter(f"{given} is no folder; only `plane bench run` takes a URL")
    return given


@click.command()
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
def peers(what: str, write: Path | None, output: str, **options: Any) -> None:
    """Measure our relay beside HAProxy, nginx and kube-proxy's own way, or our ingress beside others, each on one core.

    WHAT is services (the default) or ingress.

    Exit codes: 0 done, 1 a subject gave wrong answers or none, 2 bad input, 130 interrupted.
    """
    from harness.peers.table import markdown, tables
    from harness.tables import console
    from plane.errors import ManifestError, PlaneError

    asked = Asked(**options)
    if asked.client and what != "ingress":
        raise click.BadParameter("services are asked by their own client only", param_hint="--client")
    try:
        compared = _ingress(asked) if what == "ingress" else _services(asked)
    except ManifestError as error:
        fail("\n".join(str(problem) for problem in error.problems), 2)
    except PlaneError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("interrupted before the first row: nothing was measured", INTERRUPTED)
    if write is not None:
        write.write_text(markdown(compared.summary))
    if output == "json":
        click.echo(json.dumps({**compared.summary, "results": str(compared.folder)}, indent=2))
    else:
        console().print(tables(compared.summary))
        click.echo(f"\nresults in {compared.folder}")
    sys.exit(INTERRUPTED if compared.summary["interrupted"] == "true" else int(compared.summary["errors"] > 0))


def _services(asked: Asked) -> Any:
    from harness.peers.comparison import compare
    from harness.peers.rounds import Effort
    from harness.peers.rounds import peers as every
    from harness.peers.workloads import BY_NAME
    from harness.tables import console

    _one_of("--only", asked.only, every())
    _one_of("--workload", asked.workloads, BY_NAME)
    effort = Effort(
        asked.rounds or (1 if asked.quick else 5),
        asked.seconds or (0.5 if asked.quick else 2.0),
        0.2 if asked.quick else 0.5,
        tuple(BY_NAME[name] for name in BY_NAME if not asked.workloads or name in asked.workloads),
    )
    return compare(asked.paths or ("configs/peers",), asked.only, effort, asked.out, console(stderr=True))


def _ingress(asked: Asked) -> Any:
    from harness.peers.web.comparison import compare
    from harness.peers.web.rounds import Effort
    from harness.peers.web.rounds import peers as every
    from harness.peers.web.workloads import BY_NAME
    from harness.tables import console

    _one_of("--only", asked.only, every())
    _one_of("--workload", asked.workloads, BY_NAME)
    if asked.seconds is not None and not float(asked.seconds).is_integer():
        raise click.BadParameter(
            f"{asked.seconds:g}: the client of ingress knows whole seconds only", param_hint="--seconds"
        )
    chosen = tuple(BY_NAME[name] for name in BY_NAME if not asked.workloads or name in asked.workloads)
    effort = Effort(
        asked.rounds or (1 if asked.quick else 3), int(asked.seconds or 1), chosen, asked.client or "compiled"
    )
    return compare(asked.paths or ("configs/peers-ingress",), asked.only, effort, asked.out, console(stderr=True))


def _one_of(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError, with exit code 2, for a name that is none of these."""
    known = list(known)
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r}: choose from {', '.join(known)}", param_hint=option)
