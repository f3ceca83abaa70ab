"""What commands take: ``KIND NAME``, ``KIND/NAME``, ``-n``, ``-f``, and pflag's spelling of booleans."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from plane.client import Client, StatusError
from plane.errors import ConflictError, NotFoundError
from plane.kinds import KINDS, Kind, by_alias
from plane.kubeconfig import default_path, read
from plane.printing import ALL

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def namespace_option(command: Decorated) -> Decorated:
    text = "Namespace; without it the one of the kubeconfig file, else default."
    return click.option("-n", "--namespace", metavar="NS", help=text)(command)


def paths_argument(command: Decorated) -> Decorated:
    """What a shell makes of ``-f *.yaml``: one path behind ``-f``, the others here."""
    return click.argument("more_paths", nargs=-1, metavar="")(command)


def files_option(command: Decorated) -> Decorated:
    text = "File or folder of manifests, - for standard input. May be repeated."
    return click.option("-f", "--filename", "paths", multiple=True, metavar="PATH", help=text)(command)


class Command(click.Command):
    """A command whose flags may also be written as kubectl's: ``--wait=false``."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        flags = {name: row for row in self.params if isinstance(row, click.Option) and row.is_flag for name in row.opts}
        plain: list[str] = []
        for place, word in enumerate(args):
            if word == "--":
                plain += args[place:]
                break
            name, _, value = word.partition("=")
            row = flags.get(name)
            if row is None or value not in ("true", "false"):
                plain.append(word)
            elif value == "true":
                plain.append(name)
            elif row.secondary_opts:
                plain.append(row.secondary_opts[0])
        return super().parse_args(context, plain)


def message(error: Exception) -> str:
    """An error in kubectl's words."""
    match error:
        case NotFoundError():
            reason = "NotFound"
        case ConflictError():
            reason = "Conflict"
        case StatusError():
            reason = error.reason
        case _:
            return f"error: {error}"
    return f"Error from server ({reason}): {error}"


def connect() -> Client:
    """A client of the running plane. Raises PlaneError where there is none."""
    return Client(read(default_path()))


def kind_of(word: str) -> Kind:
    """The kind that ``svc``, ``services`` or ``deployment.apps`` names. Raises UsageError."""
    name, _, group = word.partition(".")
    kind = by_alias(name)
    if kind is None or not kind.group.startswith(group.removeprefix(f"{kind.version}.")):
        known = ", ".join(row.plural for row in KINDS.values())
        raise click.UsageError(f'the plane has no resource type "{word}"; it has {known}')
    return kind


def targets(words: Sequence[str]) -> list[tuple[Kind, str]]:
    """(kind, name) for each object asked for, the name empty where all of a kind are meant. Raises UsageError.

    Takes ``svc``, ``svc,ing``, ``all``, ``svc NAME NAME`` and ``svc/NAME ing/NAME``.
    """
    if any("/" in word for word in words):
        pairs = [word.partition("/") for word in words]
        if not all(kind and name and "/" not in name for kind, _, name in pairs):
            raise click.UsageError("where one argument is KIND/NAME, all must be")
        return [(kind_of(kind), name) for kind, _, name in pairs]
    first, *names = words
    kinds: list[Kind] = []
    for word in first.split(","):
        if word == "all" and names:
            raise click.UsageError("all takes no names; say which kind")
        kinds += [KINDS[name] for name in ALL] if word == "all" else [kind_of(word)]
    return [(kind, name) for kind in dict.fromkeys(kinds) for name in names or [""]]


def named(words: Sequence[str]) -> list[tuple[Kind, str]]:
    """Like ``targets``, but every object must be named."""
    found = targets(words)
    if not all(name for _, name in found):
        raise click.UsageError("which one? write KIND NAME or KIND/NAME")
    return found


def manifest_paths(paths: Sequence[str], more: Sequence[str], *, required: bool = True) -> list[str]:
    """Paths of ``-f``, and those that a shell put behind it in place of ``-f *.yaml``. Raises UsageError."""
    if more and not paths:
        raise click.UsageError(f"unexpected argument {more[0]}; manifests are named by -f PATH")
    if required and not paths:
        raise click.UsageError("which manifests? write -f PATH")
    return [*paths, *more]
