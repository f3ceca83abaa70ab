"""The cookie that keeps a client at its endpoint. Pure.

Law: the cookie's value is ``key|service``, both digests that tell nobody an address. Balanced, its key is anything and
the endpoint is the one that scores highest with it (rendezvous hashing): an endpoint that comes takes its share of the
sessions, of one that goes only its own move. Persistent, its key is the endpoint's, whatever comes.
"""

import hashlib
import heapq
import random
import re
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache

from plane.policies import Policies

# Browsers that refuse SameSite=None, or take it for Strict: those that ingress-nginx knows (lua/util/same_site.lua), of
# https://www.chromium.org/updates/same-site/incompatible-clients.
_OLD_BROWSER = re.compile(
    r"Chrome/[456]|CPU iPhone OS 12|iPad; CPU OS 12|^(?!.*Chrome)(?=.*Macintosh)(?=.*Intel Mac OS X 10_14)(?=.*Safari)"
)


def cookie_of(header: str, name: str) -> str:
    """Value of a cookie in a Cookie field, empty where there is none."""
    for pair in header.split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""


def held(header: str, name: str) -> tuple[str, str]:
    """(key, service's digest) of the cookie of a Cookie field, both empty where there is none."""
    key, _, service = cookie_of(header, name).partition("|")
    return key, service


def endpoint_of(key: str, addresses: Sequence[str], *, persistent: bool) -> int | None:
    """Index of the endpoint that a key stands for, of ``addresses`` that take requests; None where there is none."""
    if not addresses:
        return None
    if persistent:
        return next((number for number, address in enumerate(addresses) if _digest(address) == key), None)
    return max(range(len(addresses)), key=lambda number: _digest(f"{key}|{addresses[number]}"))


def endpoints_of(key: str, addresses: Sequence[str], count: int) -> list[int]:
    """Indices of so many endpoints that share what a key stands for, that of ``endpoint_of`` first."""
    return heapq.nlargest(count, range(len(addresses)), key=lambda number: _digest(f"{key}|{addresses[number]}"))


def new_key(address: str, *, persistent: bool) -> str:
    """The key of a client who has none; a persistent one is that of the endpoint at ``address``."""
    return _digest(address) if persistent else f"{random.getrandbits(64):016x}"


@lru_cache(4096)
def backend_key(service: str) -> str:
    return _digest(service)


def set_cookie(policies: Policies, key: str, service: str, *, secure: bool, now_s: float, agent: str = "") -> str:
    """The value of the Set-Cookie field; ``agent`` is the browser, as it names itself."""
    parts = [f"{policies.cookie}={key}|{backend_key(service)}"]
    if policies.cookie_expires_s:
        parts.append(f"Expires={formatdate(now_s + policies.cookie_expires_s, usegmt=True)}")
    if policies.cookie_max_age_s:
        parts.append(f"Max-Age={policies.cookie_max_age_s}")
    if policies.cookie_domain:
        parts.append(f"Domain={policies.cookie_domain}")
    parts.append(f"Path={policies.cookie_path}")
    if policies.cookie_secure or (secure and not policies.cookie_by_http):
        parts.append("Secure")
    if not policies.cookie_readable:
        parts.append("HttpOnly")
    misread = policies.cookie_conditional and policies.cookie_same_site == "None" and _OLD_BROWSER.search(agent)
    if policies.cookie_same_site and not misread:
        parts.append(f"SameSite={policies.cookie_same_site}")
    return "; ".join(parts)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
