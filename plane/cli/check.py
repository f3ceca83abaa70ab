"""``plane check``: manifests held against a file of requests and what must become of them, offline, for CI."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plane.cli.arguments import Command, files_option, manifest_paths, paths_argument
from plane.errors import ManifestError, Problem

if TYPE_CHECKING:
    from plane.check import Result

SHOWN_REASONS = 2  # of a case that fails; `plane explain` says them all


@click.command(cls=Command)
@click.argument("tests", metavar="TESTS")
@files_option
@paths_argument
@click.option("--proxy-mode", default="iptables", metavar="MODE", help="As of `plane up`.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Another form than text.")
def check(tests: str, paths: tuple[str, ...], more_paths: tuple[str, ...], proxy_mode: str, output: str | None) -> int:
    """Hold manifests against TESTS, a file of requests and what must become of them.

    From manifests alone: no plane, no cluster. Exit code 0 where all is as expected, 1 where something is not, 2 for
    bad input.
    """
    files = manifest_paths(paths, more_paths)
    from plane import offline  # with the kernels, which take a second to load
    from plane.check import judge_all, parse
    from plane.frontends import algorithm_of_mode

    expected = parse(_read(tests), tests)
    results = judge_all(offline.snapshot(files), expected, algorithm_of_mode(proxy_mode), tests)
    failed = sum(not result.passed for result in results)
    if output == "json":
        rows = [result.to_json() for result in results]
        click.echo(json.dumps({"passed": len(rows) - failed, "failed": failed, "cases": rows}, indent=2))
    else:
        _show(results)
        click.echo(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _read(path: str) -> str:
    """Raises ManifestError."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is not UTF-8: {error}"
        raise ManifestError([Problem(path, 0, "Check", "", f"cannot be read: {reason}")]) from None


def _show(results: "list[Result]") -> None:
    width = max(len(result.name) for result in results)
    for result in results:
        mark = click.style("ok  ", fg="green") if result.passed else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {result.name:{width}}  {result.outcome}")
        for difference in result.differences:
            click.echo(f"        {difference.field:11} expected  {_shown(difference.expected)}")
            click.echo(f"        {'':11} got       {_shown(difference.got)}")
        for number, reason in enumerate(result.reasons[:SHOWN_REASONS] if result.differences else ()):
            click.echo(f"        {'because' if number == 0 else '':11} {reason}")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return {None: "none", True: "true", False: "false"}.get(value, str(value))  # type: ignore[call-overload]
