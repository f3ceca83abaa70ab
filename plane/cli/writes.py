"""``plane apply``, ``delete`` and ``scale``: changes of a running plane."""

import time
from collections.abc import Callable, Sequence

import click

from plane.cli.arguments import (
    Command,
    Decorated,
    connect,
    files_option,
    manifest_paths,
    message,
    named,
    namespace_option,
    paths_argument,
)
from plane.client import Client, StatusError
from plane.errors import NotFoundError, PlaneError
from plane.kinds import KINDS
from plane.model import Key, Object
from plane.printing import resource_name

ACKNOWLEDGE_S = 30.0
READY_S = 60.0
SCALABLE = ("Deployment", "ReplicaSet")


def timeout_option(command: Decorated) -> Decorated:
    seconds = click.FloatRange(min=0)
    text = "Seconds to --wait."
    return click.option("--timeout", type=seconds, default=READY_S, show_default=True, metavar="S", help=text)(command)


@click.command(cls=Command)
@files_option
@paths_argument
@namespace_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--wait", is_flag=True, help="Return when the pods of all applied Deployments are ready.")
@timeout_option
def apply(
    paths: tuple[str, ...],
    more_paths: tuple[str, ...],
    namespace: str | None,
    dry_run: bool,
    wait: bool,
    timeout: float,
) -> int:
    """Create or update what manifests say: all of it, or nothing if any of it is wrong.

    Returns when traffic goes by the new tables everywhere.
    """
    from plane.manifests import load, locate  # the schemas take a while, and no other command needs them

    with connect() as client:
        files = manifest_paths(paths, more_paths)
        loaded = load(files, namespace=namespace or client.namespace)
        if not loaded.objects:
            raise click.UsageError("no objects in " + ", ".join(files))
        with locate(loaded.objects):
            applied = client.apply([row.object for row in loaded.objects], dry_run=dry_run)
        for line in (*loaded.warnings, *applied.warnings):
            click.echo(f"Warning: {line}", err=True)
        for verb, key in applied.results:
            click.echo(f"{resource_name(key)} {verb}{' (dry run)' if dry_run else ''}")
        if dry_run:
            return 0
        generation, deadline = applied.generation, time.monotonic() + timeout
        for _, key in applied.results if wait else ():
            if key.kind in SCALABLE:
                generation = max(generation, _until_ready(client, key, deadline))
        return _acknowledged(client, generation)


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[KIND NAME…|KIND/NAME…]")
@files_option
@namespace_option
@click.option("--grace-period", type=click.IntRange(min=-1), default=-1, metavar="S", help="Seconds a pod has to end.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there counts as deleted.")
@click.option("--wait/--no-wait", default=True, help="Return when the objects are gone (or at once).")
def delete(
    words: tuple[str, ...],
    paths: tuple[str, ...],
    namespace: str | None,
    grace_period: int,
    ignore_not_found: bool,
    wait: bool,
) -> int:
    """Delete objects by name, or those that manifests name."""
    if not words and not paths:
        raise click.UsageError("say what to delete: KIND NAME, KIND/NAME or -f PATH")
    failures: list[Exception] = []
    with connect() as client:
        going: list[tuple[Key, str]] = []
        for key in _keys(client, words, paths, namespace):
            try:
                uid = client.get(key)["metadata"].get("uid", "")
                client.delete(key, None if grace_period < 0 else grace_period)
            except NotFoundError as error:
                if not ignore_not_found:
                    failures.append(error)
                continue
            click.echo(f'{KINDS[key.kind].qualified} "{key.name}" deleted')
            going.append((key, uid))
        for key, uid in going if wait else ():
            _until_gone(client, key, uid)
    for failure in failures:
        click.echo(message(failure), err=True)
    return 1 if failures else 0


@click.command(cls=Command)
@click.argument("words", nargs=-1, required=True, metavar="deployment NAME|deployment/NAME")
@click.option(
    "--replicas", type=click.IntRange(min=0), required=True, metavar="N", help="How many pods there shall be."
)
@namespace_option
@click.option("--wait", is_flag=True, help="Return when that many pods are ready and no others get traffic.")
@timeout_option
def scale(words: tuple[str, ...], replicas: int, namespace: str | None, wait: bool, timeout: float) -> int:
    """Set how many pods a Deployment or a ReplicaSet has."""
    wanted = named(words)
    for kind, _ in wanted:
        if kind.kind not in SCALABLE:
            raise click.UsageError(f"{kind.plural} cannot be scaled; deployments and replicasets can")
    with connect() as client:
        keys = [Key(kind.kind, namespace or client.namespace, name) for kind, name in wanted]
        for key in keys:
            client.scale(key, replicas)
            click.echo(f"{resource_name(key)} scaled")
        deadline = time.monotonic() + timeout
        code = 0
        for key in keys if wait else ():
            code |= _acknowledged(client, _until_ready(client, key, deadline))
    return code


def _keys(client: Client, words: Sequence[str], paths: Sequence[str], namespace: str | None) -> list[Key]:
    """The objects to delete; with ``-f``, what follows it are paths too."""
    place = namespace or client.namespace
    if not paths:
        return [Key(kind.kind, place if kind.namespaced else "", name) for kind, name in named(words)]
    from plane.manifests import load
    from plane.model import key_of

    loaded = load(manifest_paths(paths, words), namespace=place)
    return [key_of(row.object) for row in loaded.objects]


def _acknowledged(client: Client, generation: int) -> int:
    """Waits until traffic goes by the generation; says so and fails where it does not."""
    try:
        client.wait(generation, ACKNOWLEDGE_S)
    except StatusError as error:
        if error.code != 504:
            raise
        click.echo(f"Warning: {error}", err=True)
        return 1
    return 0


def _until_ready(client: Client, key: Key, deadline: float) -> int:
    """Waits until a Deployment or ReplicaSet has the pods it wants, all of its newest template and ready.

    Returns the generation at which it had. Raises PlaneError where time runs out.
    """
    obj = _until(client, key, _is_ready, deadline)
    if obj is None:
        raise NotFoundError(f'{KINDS[key.kind].plural} "{key.name}" was deleted')
    return int(obj["metadata"]["resourceVersion"])


def _is_ready(obj: Object | None) -> bool:
    if obj is None:
        return True
    status, wanted = obj.get("status") or {}, obj["spec"].get("replicas", 1)
    fields = ("replicas", "readyReplicas", *(("updatedReplicas",) if obj["kind"] == "Deployment" else ()))
    return all(status.get(field, 0) == wanted for field in fields)


def _until_gone(client: Client, key: Key, uid: str) -> None:
    """Waits until the object is gone, or another one has its name."""
    _until(client, key, lambda obj: obj is None or obj["metadata"].get("uid", "") != uid, None)


def _until(client: Client, key: Key, met: Callable[[Object | None], bool], deadline: float | None) -> Object | None:
    """Follows an object until it is as it should be; None stands for one that is not there."""
    kind = KINDS[key.kind]
    while True:
        try:
            obj: Object | None = client.get(key)
        except NotFoundError:
            obj = None
        if obj is None or met(obj):
            return obj
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise PlaneError(
                f"{resource_name(key)} is not ready in time; see: plane describe {kind.singular} {key.name}"
            )
        version = obj["metadata"]["resourceVersion"]
        for change, row in client.watch(kind, key.namespace, since=version, name=key.name, timeout_s=left):
            if change == "DELETED" or met(row):
                break
