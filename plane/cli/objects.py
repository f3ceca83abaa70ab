"""``plane get`` and ``plane describe``: what is in the plane."""

from collections.abc import Iterator

import click

from plane import printing
from plane.cli.arguments import Command, connect, message, namespace_option, targets
from plane.client import Client
from plane.columns import utc_now
from plane.describe import describe as described
from plane.describe import needed
from plane.errors import NotFoundError
from plane.kinds import Kind
from plane.model import Key, Object


@click.command(cls=Command)
@click.argument("words", nargs=-1, required=True, metavar="KIND[,KIND…]|all|KIND/NAME [NAME…]")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@click.option("-o", "--output", type=click.Choice(printing.FORMATS), help="Another form than a table.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only objects with such labels: app=web,tier!=db.")
@click.option("-w", "--watch", is_flag=True, help="Go on and show each change, until Ctrl-C.")
def get(
    words: tuple[str, ...], namespace: str | None, all_namespaces: bool, output: str | None, selector: str, watch: bool
) -> int:
    """Show objects as a table, or as JSON or YAML."""
    wanted = targets(words)
    if any(name for _, name in wanted):
        if all_namespaces:
            raise click.UsageError("an object cannot be shown by name across all namespaces; use -n")
        if selector:
            raise click.UsageError("a selector cannot be used together with names")
    with connect() as client:
        place = None if all_namespaces else namespace or client.namespace
        if watch:
            return _watch(client, wanted, place, output, selector)
        objects, version, failures = _found(client, wanted, place, selector)
        if output in (None, "wide"):
            _print_tables(wanted, objects, place, wide=output == "wide", quiet=bool(failures))
        elif output == "name":
            click.echo(printing.as_names(objects), nl=False)
        else:
            single = len(wanted) == 1 and bool(wanted[0][1])
            if objects or not single:
                whole = objects[0] if single else printing.list_of(objects, version)
                click.echo(printing.as_json(whole) if output == "json" else printing.as_yaml(whole), nl=False)
    for error in failures:
        click.echo(message(error), err=True)
    return 1 if failures else 0


def _found(
    client: Client, wanted: list[tuple[Kind, str]], namespace: str | None, selector: str
) -> tuple[list[Object], str, list[NotFoundError]]:
    """The objects in the order asked for, the resourceVersion of the last list, and what is not there."""
    objects: list[Object] = []
    failures: list[NotFoundError] = []
    version = ""
    for kind, name in wanted:
        if not name:
            rows, version = client.list(kind, namespace, selector)
            objects += rows
            continue
        try:
            objects.append(client.get(Key(kind.kind, (namespace or "") if kind.namespaced else "", name)))
        except NotFoundError as error:
            failures.append(error)
    return objects, version, failures


def _print_tables(
    wanted: list[tuple[Kind, str]], objects: list[Object], namespace: str | None, *, wide: bool, quiet: bool
) -> None:
    """A table for each kind; of several kinds the names say which."""
    kinds = list(dict.fromkeys(kind.kind for kind, _ in wanted))
    now, tables = utc_now(), []
    for kind in kinds:
        rows = [obj for obj in objects if obj["kind"] == kind]
        if rows:
            table = printing.Table(kind, wide=wide, namespaces=namespace is None, prefix=len(kinds) > 1)
            tables.append(table.text(rows, now))
    click.echo("\n".join(tables), nl=False)
    if not tables and not quiet:
        inside = f" in {namespace} namespace" if namespace and all(kind.namespaced for kind, _ in wanted) else ""
        click.echo(f"No resources found{inside}{'.' if inside else ''}", err=True)


def _watch(
    client: Client, wanted: list[tuple[Kind, str]], namespace: str | None, output: str | None, selector: str
) -> int:
    if len(wanted) != 1:
        raise click.UsageError("-w shows one kind, or one object of it")
    [(kind, name)] = wanted
    table = printing.Table(kind.kind, wide=output == "wide", namespaces=namespace is None)
    for objects in _changes(client, kind, name, namespace, selector):
        if output in (None, "wide"):
            click.echo(table.text(objects, utc_now()), nl=False)
        elif output == "name":
            click.echo(printing.as_names(objects), nl=False)
        else:
            for obj in objects:
                click.echo(printing.as_json(obj) if output == "json" else f"---\n{printing.as_yaml(obj)}", nl=False)
    return 0


def _changes(client: Client, kind: Kind, name: str, namespace: str | None, selector: str) -> Iterator[list[Object]]:
    """What there is, then what changes."""
    if name:
        found = [client.get(Key(kind.kind, (namespace or "") if kind.namespaced else "", name))]
        version = found[0]["metadata"]["resourceVersion"]
    else:
        found, version = client.list(kind, namespace, selector)
    if found:
        yield found
    for _, obj in client.watch(kind, namespace, since=version, selector=selector, name=name):
        yield [obj]


@click.command(cls=Command)
@click.argument("words", nargs=-1, required=True, metavar="KIND [NAME…]|KIND/NAME")
@namespace_option
def describe(words: tuple[str, ...], namespace: str | None) -> int:
    """Show objects in full, with what belongs to them and their events."""
    wanted = targets(words)
    texts: list[str] = []
    failures: list[NotFoundError] = []
    with connect() as client:
        place = namespace or client.namespace
        snapshot = client.snapshot(list(dict.fromkeys(row for kind, _ in wanted for row in needed(kind.kind))))
        now = utc_now()
        for kind, name in wanted:
            inside = place if kind.namespaced else ""
            rows = [obj for obj in snapshot.all(kind.kind) if obj["metadata"].get("namespace", "") == inside]
            for each in [name] if name else [obj["metadata"]["name"] for obj in rows]:
                try:
                    texts.append(described(snapshot, Key(kind.kind, inside, each), now))
                except NotFoundError as error:
                    failures.append(error)
    click.echo("\n\n".join(texts), nl=False)
    if not texts and not failures:
        click.echo(f"No resources found in {place} namespace.", err=True)
    for failure in failures:
        click.echo(message(failure), err=True)
    return 1 if failures else 0
