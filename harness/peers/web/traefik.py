"""Traefik as an ingress: a router for each path, on both entry points, from a file.

Beyond its defaults: as many kept connections to backends as clients can have; no call home. It uses one core because it
gets one.
"""

import json
import subprocess
from typing import Any

from harness.peers.web.peer import Program, binary
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Rule, Site

EXACT_FIRST = 1 << 16  # longer than any path


class Traefik(Program):
    name = "traefik"

    def lacks(self) -> str:
        return "" if binary("traefik") else "no traefik found; pip install 'trafficplane[peers]'"

    def version(self) -> str:
        said = subprocess.run([binary("traefik"), "version"], capture_output=True, text=True, check=True).stdout
        return "Traefik " + said.split()[1]

    def files(self, site: Site, folder: str) -> dict[str, str]:
        static = {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "log": {"level": "ERROR"},
            "entryPoints": {
                "web": {"address": f"{site.address}:{HTTP_PORT}"},
                "websecure": {"address": f"{site.address}:{HTTPS_PORT}"},
            },
            "serversTransport": {"maxIdleConnsPerHost": 1024},
            "providers": {"file": {"filename": f"{folder}/dynamic.yml", "watch": False}},
        }
        routers: dict[str, Any] = {}
        for number, rule in enumerate(site.rules):
            router = {"rule": match(rule), "priority": priority(rule), "service": rule.upstream.name}
            routers[f"web-{number}"] = {**router, "entryPoints": ["web"]}
            routers[f"websecure-{number}"] = {**router, "entryPoints": ["websecure"], "tls": {}}
        servers = {
            upstream.name: {"loadBalancer": {"servers": [{"url": f"http://{ip}:{port}"} for ip, port in ends]}}
            for upstream in site.upstreams
            for ends in [upstream.endpoints]
        }
        pair = {"certFile": f"{folder}/site.crt", "keyFile": f"{folder}/site.key"}
        dynamic = {
            "http": {"routers": routers, "services": servers},
            "tls": {"stores": {"default": {"defaultCertificate": pair}}},
        }
        return {
            "traefik.yml": json.dumps(static),
            "dynamic.yml": json.dumps(dynamic),
            "site.crt": site.chain,
            "site.key": site.key,
        }

    def command(self, folder: str) -> list[str]:
        return [binary("traefik"), f"--configFile={folder}/traefik.yml"]


def match(rule: Rule) -> str:
    """A rule in Traefik's words; its PathPrefix knows no elements."""
    host = f"Host(`{rule.host}`)"
    if rule.exact:
        return f"{host} && Path(`{rule.path}`)"
    return f"{host} && (Path(`{rule.path}`) || PathPrefix(`{rule.path}/`))" if rule.path else host


def priority(rule: Rule) -> int:
    """Exact first, then the longest; the higher wins."""
    return 1 + len(rule.path) + (EXACT_FIRST if rule.exact else 0)
