"""The command line: ``plane``, with kubectl's words where it does what kubectl does.

Law: a command that talks to a running plane imports nothing that takes long, so it answers in a fraction of a second;
what is heavy is imported inside the commands that need it. Output is on stdout, everything about it on stderr. Exit
codes: 0 done, 1 failed, 2 bad input and nothing was changed.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from plane.cli import check, objects, offline, traffic, writes
from plane.cli.arguments import message
from plane.errors import ConflictError, ManifestError, NotFoundError, PlaneError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
ENTRY_POINTS = "trafficplane.commands"


class Commands(click.Group):
    """The plane's commands, and those that rooms above add by an entry point, imported only when one is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*super().list_commands(context), *sorted(row.name for row in _entry_points())]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if (command := super().get_command(context, name)) is not None:
            return command
        found = next((row for row in _entry_points() if row.name == name), None)
        return None if found is None else found.load()


def _entry_points() -> Iterable["EntryPoint"]:
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def plane() -> None:
    """Kubernetes Services and Ingress without a cluster: real manifests, real sockets, one address for each Pod."""


for command in (
    offline.up,
    writes.apply,
    writes.delete,
    writes.scale,
    objects.get,
    objects.describe,
    traffic.connections,
    offline.explain,
    check.check,
    offline.validate,
    offline.version,
):
    plane.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; every error that a person can cause is one clear line."""
    try:
        result = plane.main(arguments, prog_name="plane", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except ManifestError as error:
        return _fail("\n".join(f"error: {problem}" for problem in error.problems), BAD_INPUT)
    except click.UsageError as error:
        error.show()
        return BAD_INPUT
    except click.ClickException as error:
        return _fail(f"error: {error.format_message()}", BAD_INPUT)
    except (NotFoundError, ConflictError, PlaneError) as error:
        return _fail(message(error), FAILED)
    except click.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output, `head` perhaps, has enough; nothing more may be written when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _fail(text: str, code: int) -> int:
    click.echo(text, err=True)
    return code
