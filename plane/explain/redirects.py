"""What sends a client elsewhere: which annotation of which Ingress, or whose ``spec.tls``. Pure.

Law: that there is a redirect, and where to, is said by ``plane.conduct``; here is only who asked for it.
"""

from plane import dialects
from plane.conduct import Request
from plane.dialects import kong, nginx
from plane.ingressclass import served
from plane.ingressrules import hosts_of
from plane.model import Object, Snapshot
from plane.policies import Policies
from plane.router import names_for
from plane.routes import Origin


def redirected_by(snapshot: Snapshot, origin: Origin, policies: Policies, request: Request) -> str:
    """A sentence about the redirect of a request; ``origin`` is the rule that takes it, which has these policies."""
    ingress = snapshot.get("Ingress", origin.namespace, origin.ingress) or {}
    asked = dialects.asked(ingress, snapshot)
    if policies.redirect:
        said, _ = nginx.read(ingress["metadata"].get("annotations") or {})
        if policies.redirect == asked.policies.redirect:
            name = "temporal-redirect" if "temporal-redirect" in said else "permanent-redirect"
        else:
            name = "from-to-www-redirect" if policies.redirect.endswith("$trimmed_uri") else "app-root"
        return f"redirect: by {nginx.PREFIX}{name} of {_name(ingress)}"
    if policies.https_status:
        return f"redirect: by {kong.PREFIX}protocols of {_name(ingress)}, which is https alone"
    if asked.policies.https:
        return f"redirect: by {nginx.PREFIX}force-ssl-redirect of {_name(ingress)}"
    hosts = names_for(request.hostname.lower())
    for other in served(snapshot):
        names = [name for rule in other["spec"].get("rules") or () for name in hosts_of(rule, asked)]
        if other["spec"].get("tls") and any(name in names for name in hosts if name):
            by = f"spec.tls of {_name(other)}"
            return f"redirect: by {by}; {nginx.PREFIX}ssl-redirect, which is true by default, can switch it off"
    return f"redirect: by {nginx.PREFIX}force-ssl-redirect of an Ingress of this host"


def _name(ingress: Object) -> str:
    metadata = ingress["metadata"]
    return f"{metadata.get('namespace', 'default')}/{metadata['name']}"
