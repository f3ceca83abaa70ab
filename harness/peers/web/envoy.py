"""Envoy as an ingress: a virtual host for each host, a route for each path, as Envoy Gateway and Contour write them.

Beyond its defaults: one worker, as it gets one core; no limit on connections to backends that a measurement meets.
"""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from harness.peers.web.peer import Program
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Rule, Site, Upstream

TYPE = "type.googleapis.com/envoy.extensions."
MANAGER = TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPE + "filters.http.router.v3.Router"
TLS = TYPE + "transport_sockets.tls.v3.DownstreamTlsContext"
MOST = 100_000


class Envoy(Program):
    name = "envoy"

    def lacks(self) -> str:
        return "" if _binary() else "no envoy found; pip install 'trafficplane[peers]'"

    def version(self) -> str:
        said = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"/(\d+\.\d+\.\d+)", said)
        return f"Envoy {found[1] if found else '(version unknown)'}"

    def files(self, site: Site, folder: str) -> dict[str, str]:
        hosts = [_host(number, host, rules) for number, (host, rules) in enumerate(site.hosts.items())]
        config = {
            "static_resources": {
                "listeners": [
                    _listener("http", site.address, HTTP_PORT, hosts, None),
                    _listener("https", site.address, HTTPS_PORT, hosts, folder),
                ],
                "clusters": [_cluster(upstream) for upstream in site.upstreams],
            }
        }
        return {"envoy.json": json.dumps(config), "site.crt": site.chain, "site.key": site.key}

    def command(self, folder: str) -> list[str]:
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return [_binary(), "-c", f"{folder}/envoy.json", *options]


def _host(number: int, host: str, rules: list[Rule]) -> dict[str, Any]:
    routes = [{"match": _match(rule), "route": {"cluster": rule.upstream.name}} for rule in rules]
    return {"name": f"host-{number}", "domains": [host, f"{host}:*"], "routes": routes}


def _match(rule: Rule) -> dict[str, str]:
    if rule.exact:
        return {"path": rule.path}
    return {"path_separated_prefix": rule.path} if rule.path else {"prefix": "/"}


def _listener(name: str, ip: str, port: int, hosts: list[dict[str, Any]], folder: str | None) -> dict[str, Any]:
    manager = {
        "@type": MANAGER,
        "stat_prefix": name,
        "use_remote_address": True,
        "route_config": {"name": name, "virtual_hosts": hosts},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if folder is not None:
        files = {
            "certificate_chain": {"filename": f"{folder}/site.crt"},
            "private_key": {"filename": f"{folder}/site.key"},
        }
        tls = {"@type": TLS, "common_tls_context": {"tls_certificates": [files]}}
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    address = {"socket_address": {"address": ip, "port_value": port}}
    return {"name": name, "address": address, "tcp_backlog_size": 4096, "filter_chains": [chain]}


def _cluster(upstream: Upstream) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}}
        for ip, port in upstream.endpoints
    ]
    limits = {"max_connections": MOST, "max_pending_requests": MOST, "max_requests": MOST}
    return {
        "name": upstream.name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": upstream.name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _binary() -> str:
    """Path of the binary that the package carries, or of the system's; empty where there is none."""
    package = importlib.util.find_spec("envoy")
    bundled = Path(package.origin).parent / "_bin" / "envoy" if package and package.origin else None
    return str(bundled) if bundled and bundled.is_file() else shutil.which("envoy") or ""
