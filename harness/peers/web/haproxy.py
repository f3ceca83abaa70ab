"""HAProxy as an ingress: hosts and paths looked up in map files, as HAProxy's ingress controller does.

Beyond its defaults: one thread, as it gets one core; connections to backends shared by all clients; the fields that our
ingress adds; time-outs that no measurement meets.
"""

from harness.peers.haproxy import Haproxy as Tcp
from harness.peers.haproxy import _binary
from harness.peers.web.peer import Program
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Rule, Site, Upstream


class Haproxy(Program):
    name = "haproxy"

    def lacks(self) -> str:
        return Tcp().lacks()

    def version(self) -> str:
        return Tcp().version()

    def files(self, site: Site, folder: str) -> dict[str, str]:
        config = (
            "global\n    nbthread 1\n    maxconn 8000\n"
            "defaults\n    mode http\n    http-reuse always\n    maxconn 8000\n    backlog 4096\n"
            "    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n    timeout http-keep-alive 1h\n"
            f"frontend site\n    bind {site.address}:{HTTP_PORT}\n"
            f"    bind {site.address}:{HTTPS_PORT} ssl crt {folder}/site.pem\n"
            "    http-request set-var(txn.path) path\n"
            "    http-request set-var(txn.key) req.hdr(host),lower,field(1,:),concat(,txn.path)\n"
            "    http-request set-header X-Request-ID %[uuid]\n"
            "    http-request set-header X-Real-IP %[src]\n"
            "    http-request set-header X-Forwarded-For %[src]\n"
            "    http-request set-header X-Forwarded-Host %[req.hdr(host)]\n"
            "    http-request set-header X-Forwarded-Port %[dst_port]\n"
            "    http-request set-header X-Forwarded-Proto http if !{ ssl_fc }\n"
            "    http-request set-header X-Forwarded-Proto https if { ssl_fc }\n"
            f"    use_backend %[var(txn.key),map_str({folder}/exact.map)]"
            f" if {{ var(txn.key),map_str({folder}/exact.map) -m found }}\n"
            f"    use_backend %[var(txn.key),concat(/),map_beg({folder}/prefix.map,missing)]\n"
            "backend missing\n    http-request return status 404\n"
        ) + "".join(map(_backend, site.upstreams))
        exact = "".join(_row(rule) for rule in site.rules if rule.exact)
        prefixes = "".join(_row(rule, "/") for rule in site.rules if not rule.exact)
        return {
            "haproxy.cfg": config,
            "exact.map": exact,
            "prefix.map": prefixes,
            "site.pem": site.chain + site.key,
        }

    def command(self, folder: str) -> list[str]:
        return [_binary(), "-db", "-f", f"{folder}/haproxy.cfg"]


def _row(rule: Rule, ending: str = "") -> str:
    return f"{rule.host}{rule.path}{ending} {rule.upstream.name}\n"


def _backend(upstream: Upstream) -> str:
    servers = (f"    server s{i} {ip}:{port}\n" for i, (ip, port) in enumerate(upstream.endpoints))
    return f"backend {upstream.name}\n    balance roundrobin\n" + "".join(servers)
