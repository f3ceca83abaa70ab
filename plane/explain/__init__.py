"""Where a request or a connection would go, and why nowhere else: from a Snapshot alone, without sockets. Pure."""

from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from kernels.layout import RANDOM
from plane.errors import ManifestError, Problem
from plane.explain.flow import FlowExplanation, explain_flow
from plane.explain.request import Explanation, explain_request
from plane.model import Snapshot

__all__ = ["Explanation", "FlowExplanation", "explain"]

FLOWS = {"tcp": "TCP", "udp": "UDP"}


def explain(
    snapshot: Snapshot,
    url: str,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    from_ip: str | None = None,
    from_pod: str | None = None,
    node: str | None = None,
    algorithm: int = RANDOM,
) -> Explanation | FlowExplanation:
    """What becomes of a request (``http://``, ``https://``) or of a new flow (``tcp://HOST:PORT``, ``udp://``).

    Raises ManifestError for a URL, an address, a pod or a node that is none.
    """
    parts = _parsed(url)
    if protocol := FLOWS.get(parts.scheme):
        if not parts.port:
            raise _no_url(url, f"{parts.scheme}://10.96.0.1:80")
        return explain_flow(
            snapshot,
            protocol,
            parts.hostname or "",
            parts.port,
            from_ip=from_ip,
            from_pod=from_pod,
            node=node,
            algorithm=algorithm,
        )
    return explain_request(snapshot, parts, method=method, headers=headers, from_ip=from_ip)


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        valid = parts.scheme in ("http", "https", *FLOWS) and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise _no_url(url, "http://example.com/path or tcp://web.default.svc:80")
    return parts


def _no_url(url: str, example: str) -> ManifestError:
    return ManifestError([Problem("", 0, "", "URL", f'"{url}" is no URL; write one such as {example}')])
