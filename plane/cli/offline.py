"""Commands that need no running plane: ``up`` starts one, ``explain`` and ``validate`` read manifests, ``version``."""

import json

import click

from plane import __version__
from plane.cli.arguments import Command, files_option, manifest_paths, paths_argument


@click.command(cls=Command)
@files_option
@paths_argument
@click.option("--nodes", type=click.IntRange(1, 250), default=3, show_default=True, metavar="N", help="Nodes to run.")
@click.option(
    "--ingresses", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Ingress processes to run."
)
@click.option("--zones", type=click.IntRange(1, 250), default=1, show_default=True, help="Zones to spread nodes over.")
@click.option(
    "--proxy-mode",
    default="iptables",
    show_default=True,
    metavar="MODE",
    help="How Services that do not say it balance: iptables, nftables, ipvs, or an algorithm such as maglev or lc.",
)
@click.option(
    "--trusted-proxies",
    default="",
    metavar="CIDR,…",
    help="Proxies in front of the ingress whose X-Forwarded-For and its kin count.",
)
@click.option(
    "--proxy-protocol", is_flag=True, help="Connections to the ingress begin with a header of the PROXY protocol."
)
@click.option("--access-log", default="", metavar="F", help="File that gets a line of JSON for each request.")
@click.option(
    "--gateway/--no-gateway",
    default=True,
    show_default=True,
    help="HTTP/1.1, plain and by TLS, goes by compiled code as far as that takes it.",
)
@click.option(
    "--gateway-threads",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Threads of each ingress that do so; without it, half of the cores and 4 at most.",
)
@click.option("--ready-file", metavar="F", help="Written once all is ready: what `plane get all -A -o json` prints.")
@click.option(
    "--port-offset",
    type=click.IntRange(0, 64511),
    metavar="N",
    help="Added to ports below 1024; without it, only where they need a privilege.",
)
@click.option(
    "--instance",
    type=click.IntRange(0, 5),
    default=0,
    show_default=True,
    metavar="N",
    help="Which of the six address plans, so that several planes run on one machine.",
)
@click.option("--address", envvar="RAY_ADDRESS", metavar="RAY", help="Join this Ray cluster instead of starting one.")
def up(
    paths: tuple[str, ...],
    more_paths: tuple[str, ...],
    nodes: int,
    ingresses: int,
    zones: int,
    proxy_mode: str,
    trusted_proxies: str,
    proxy_protocol: bool,
    access_log: str,
    gateway: bool,
    gateway_threads: int | None,
    ready_file: str | None,
    port_offset: int | None,
    instance: int,
    address: str | None,
) -> int:
    """Run a plane in the foreground, until Ctrl-C."""
    if gateway_threads is not None and not gateway:
        raise click.UsageError("--gateway-threads are those of the gateway; leave it out, or --no-gateway")
    from plane.up import run  # Ray takes seconds to import

    return run(
        manifest_paths(paths, more_paths, required=False),
        nodes=nodes,
        ingresses=ingresses,
        zones=zones,
        proxy_mode=proxy_mode,
        instance=instance,
        port_offset=port_offset,
        ray_address=address,
        ready_file=ready_file,
        trusted_proxies=trusted_proxies,
        proxy_protocol=proxy_protocol,
        access_log=access_log,
        gateway=gateway,
        gateway_threads=gateway_threads,
    )


@click.command(cls=Command)
@click.argument("url", required=False)
@files_option
@paths_argument
@click.option("--all", "everything", is_flag=True, help="All rules of all Ingresses, in the order they are matched.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request.")
@click.option("--method", default="GET", show_default=True, metavar="M", help="Method of the request.")
@click.option("--from-ip", metavar="IP", help="Address the request or connection comes from.")
@click.option("--from-pod", metavar="[NS/]NAME", help="Pod the connection comes from (tcp:// and udp://).")
@click.option("--node", metavar="NODE", help="Node at which a client from outside arrives (tcp:// and udp://).")
@click.option("--proxy-mode", default="iptables", metavar="MODE", help="As of `plane up`.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Another form than text.")
def explain(
    url: str | None,
    paths: tuple[str, ...],
    more_paths: tuple[str, ...],
    everything: bool,
    headers: tuple[str, ...],
    method: str,
    from_ip: str | None,
    from_pod: str | None,
    node: str | None,
    proxy_mode: str,
    output: str | None,
) -> int:
    """Say where a request to URL, or a connection to tcp://HOST:PORT, would go and why; with --all, the whole table.

    From manifests alone, or from what `kubectl get svc,endpointslices,nodes,pods,ingress -A -o yaml` prints: no plane,
    no cluster.
    """
    if everything and url and paths and "://" not in url:  # what a shell put behind -f in place of *.yaml
        more_paths, url = (url, *more_paths), None
    files, sent = manifest_paths(paths, more_paths), _headers(headers)
    if everything == bool(url):
        raise click.UsageError("explain what? write one URL, or --all")
    from plane import offline  # with the kernels, which take a second to load
    from plane.explain import explain as explained
    from plane.explain.table import render, routing_table
    from plane.frontends import algorithm_of_mode

    if not url:
        rules = routing_table(offline.snapshot(files))
        listing = {"rules": [rule.to_json() for rule in rules]}
        click.echo(render(rules) if output is None else f"{json.dumps(listing, indent=2)}\n", nl=False)
        return 0
    found = explained(
        offline.snapshot(files),
        url,
        method=method,
        headers=sent,
        from_ip=from_ip,
        from_pod=from_pod,
        node=node,
        algorithm=algorithm_of_mode(proxy_mode),
    )
    click.echo(found.render() if output is None else f"{json.dumps(found.to_json(), indent=2)}\n", nl=False)
    return 0


def _headers(given: tuple[str, ...]) -> list[tuple[str, str]]:
    """Headers as (name, value). Raises UsageError."""
    found = []
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"-H {text!r} is no header; write 'Name: value'")
        found.append((name.strip(), value.strip()))
    return found


@click.command(cls=Command)
@files_option
@paths_argument
@click.option("-n", "--namespace", default="default", metavar="NS", help="Namespace of objects that name none.")
def validate(paths: tuple[str, ...], more_paths: tuple[str, ...], namespace: str) -> int:
    """Check manifests as `plane up` and `plane apply` would: exit code 0, or 2 with everything that is wrong."""
    from plane.advice import advise
    from plane.manifests import load, locate
    from plane.offline import settled

    loaded = load(manifest_paths(paths, more_paths), namespace=namespace)
    with locate(loaded.objects):
        snapshot = settled(row.object for row in loaded.objects)
    for line in (*loaded.warnings, *advise(snapshot)):
        click.echo(f"Warning: {line}", err=True)
    count = len(loaded.objects)
    click.echo(f"{count} object{'' if count == 1 else 's'} valid")
    return 0


@click.command(cls=Command)
def version() -> int:
    """Print the version."""
    click.echo(f"trafficplane {__version__}")
    return 0
