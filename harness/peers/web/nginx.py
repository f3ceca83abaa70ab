"""NGINX as an ingress: one server for each host, one location for each path, as ingress-nginx writes them.

Beyond its defaults: one worker, as it gets one core; kept connections to the backends; the fields that ingress-nginx
adds; connections that never end; answers held in memory, not in files; no log.
"""

import re
import subprocess

from harness.peers.nginx import _binary, _build
from harness.peers.web.peer import Program
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Rule, Site, Upstream

FIELDS = {
    "Host": "$http_host",
    "Connection": '""',
    "X-Request-ID": "$req_id",
    "X-Real-IP": "$remote_addr",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Host": "$http_host",
    "X-Forwarded-Port": "$server_port",
    "X-Forwarded-Proto": "$scheme",
}


class Nginx(Program):
    name = "nginx"

    def lacks(self) -> str:
        if not _binary():
            return "no nginx found; apt install nginx-light"
        return "" if "http_ssl_module" in _build() else "nginx has no TLS; apt install nginx-light"

    def version(self) -> str:
        said = subprocess.run([_binary(), "-v"], capture_output=True, text=True, check=True).stderr
        found = re.search(r"nginx/(\S+)", said)
        return f"nginx {found[1] if found else '(version unknown)'}"

    def files(self, site: Site, folder: str) -> dict[str, str]:
        fields = "".join(f"    proxy_set_header {name} {value};\n" for name, value in FIELDS.items())
        config = (
            f"daemon off;\npid {folder}/pid;\nerror_log stderr crit;\n"
            "worker_processes 1;\nworker_rlimit_nofile 20000;\nevents {\n    worker_connections 8192;\n}\n"
            "http {\n    access_log off;\n    keepalive_timeout 1h;\n    keepalive_requests 1000000000;\n"
            "    map $http_x_request_id $req_id {\n"
            '        default $http_x_request_id;\n        "" $request_id;\n    }\n'
            "    server_names_hash_max_size 65536;\n    server_names_hash_bucket_size 128;\n"
            f"    ssl_certificate {folder}/site.crt;\n    ssl_certificate_key {folder}/site.key;\n"
            "    ssl_protocols TLSv1.2 TLSv1.3;\n"
            "    proxy_http_version 1.1;\n    proxy_buffers 8 32k;\n    proxy_max_temp_file_size 0;\n"
            f"{fields}{''.join(map(_upstream, site.upstreams))}{_listening(site, 'default_server', '_', _missing())}"
            + "".join(_listening(site, "", host, "".join(map(_location, rules))) for host, rules in site.hosts.items())
            + "}\n"
        )
        return {"nginx.conf": config, "site.crt": site.chain, "site.key": site.key}

    def command(self, folder: str) -> list[str]:
        return [_binary(), "-p", folder, "-e", "stderr", "-c", f"{folder}/nginx.conf"]


def _upstream(upstream: Upstream) -> str:
    servers = "".join(f"        server {ip}:{port} max_fails=0;\n" for ip, port in upstream.endpoints)
    kept = "        keepalive 1024;\n        keepalive_requests 1000000000;\n"
    return f"    upstream {upstream.name} {{\n{servers}{kept}    }}\n"


def _listening(site: Site, option: str, name: str, body: str) -> str:
    more = f" {option} backlog=4096" if option else ""
    return (
        f"    server {{\n        server_name {name};\n        listen {site.address}:{HTTP_PORT}{more};\n"
        f"        listen {site.address}:{HTTPS_PORT} ssl{more};\n{body}    }}\n"
    )


def _missing() -> str:
    return "        return 404;\n"


def _location(rule: Rule) -> str:
    """Of whole elements: a Prefix is what it says and what lies below."""
    if rule.exact:
        matches = [f"= {rule.path}"]
    else:
        matches = [f"{rule.path}/", *([f"= {rule.path}"] if rule.path else [])]
    return "".join(
        f"        location {match} {{\n            proxy_pass http://{rule.upstream.name};\n        }}\n"
        for match in matches
    )
