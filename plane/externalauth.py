"""Who is asked whether a request goes on, what that one is told, and what its answer means. Pure.

Law: as NGINX's ``auth_request`` with what ingress-nginx makes of it. Only 2xx lets a request in; 401 and 403 are passed
on; whatever else comes, or does not come, is 500. Whoever carries requests and whoever explains them asks here.
"""

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, quote, urlsplit

from plane.conduct import VISIBLE, Answer, Fields, Request, filled, pieces_of
from plane.policies import Policies

SENT_FROM = "nginx-ingress-controller"  # what ingress-nginx calls itself
# Statuses of answers that a cookie of whom was asked is put into, unless it always is: those of NGINX's add_header.
WITH_COOKIES = frozenset({200, 201, 204, 206, 301, 302, 303, 304, 307, 308})
USUAL = frozenset({200, 301, 302})  # that are kept where no status is named
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 2_592_000, "y": 31_536_000}


class ExternalAuth:
    """``auth_url`` and its kin, ready for requests.

    method   of the question
    names    of the answer's fields that the endpoint gets
    written  fields of the question that the client has no say in, lower case
    """

    def __init__(self, policies: Policies):
        self.method = policies.auth_method or "GET"
        self.names = tuple(name.encode() for name in policies.auth_fields)
        self.cookie_always = policies.auth_cookie_always
        self.keeps = bool(policies.auth_cache_key)
        self._policies = policies
        self._url = pieces_of(policies.auth_url)
        self._sign_in = pieces_of(("$scheme://$host" if policies.auth_signin[:1] == "/" else "") + policies.auth_signin)
        self._key = pieces_of(policies.auth_cache_key)
        sent = (line.partition(": ") for line in policies.auth_sent)
        self._sent = tuple((name, pieces_of(value)) for name, _, value in sent)
        self._kept = tuple(map(_kept, policies.auth_cache))
        own = ("X-Original-URI", "X-Scheme", *_ALWAYS, *(name for name, _ in self._sent))
        self.written = frozenset(name.lower().encode() for name in own)

    def url(self, request: Request) -> SplitResult:
        """Whom to ask; what a URL cannot hold is encoded."""
        return urlsplit(quote(filled(self._url, request), safe=VISIBLE, errors="surrogateescape"))

    def fields(self, request: Request, request_id: str) -> Fields:
        """The fields of the question that are not the client's, without Host."""
        own = {
            "X-Request-ID": request_id,
            "X-Original-URL": f"{request.scheme}://{request.host}{request.uri}",
            "X-Original-Method": request.method,
            "X-Real-IP": request.address,
            "X-Forwarded-For": request.address,
            "X-Auth-Request-Redirect": self._policies.auth_redirect or request.uri,
        }
        if self._policies.auth_method:
            own |= {"X-Original-URI": request.uri, "X-Scheme": request.scheme}
        sent = {name: filled(pieces, request) for name, pieces in self._sent}
        said = {name.lower() for name in sent}
        both = (*((name, value) for name, value in own.items() if name.lower() not in said), *sent.items())
        return (*((name, value) for name, value in both if value), ("X-Sent-From", SENT_FROM))

    def refusal(self, status: int, challenges: Sequence[str] = ()) -> Answer | None:
        """What the client is told after an answer of this status, None where it is let in."""
        if 200 <= status < 300:
            return None
        if status == 401:
            fields = tuple(("WWW-Authenticate", challenge) for challenge in challenges)
            return Answer(401, "the external authentication asks to sign in", fields=fields)
        if status == 403:
            return Answer(403, "the external authentication refuses the request")
        return Answer(500, f"the external authentication answers {status}, which is neither yes nor no")

    def signed_in(self, refused: Answer, request: Request) -> Answer:
        """What a refusal becomes: who has not signed in is sent where that is done, if there is such a place."""
        if refused.status != 401 or not self._policies.auth_signin:
            return refused
        return Answer(302, "sign in first", filled(self._sign_in, request))

    def key(self, request: Request) -> str:
        """What a kept answer is for."""
        return filled(self._key, request)

    def kept_s(self, status: int, lines: Sequence[bytes]) -> float:
        """For how long an answer with these fields is kept, 0 for not at all: what it says of that counts first."""
        said = b""
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() in (b"set-cookie", b"vary", b"expires", b"x-accel-expires"):
                return 0
            if name.lower() == b"cache-control":
                said += value.lower() + b","
        if re.search(rb"\b(no-cache|no-store|private)\b", said):
            return 0
        if age := re.search(rb"\bs-maxage=(\d{1,9})\b", said) or re.search(rb"\bmax-age=(\d{1,9})\b", said):
            return float(age[1])
        return next((time_s for statuses, time_s in self._kept if not statuses or status in statuses), 0)


# Of ``ExternalAuth.fields``, those that every question has.
_ALWAYS = ("X-Original-URL", "X-Original-Method", "X-Sent-From", "X-Auth-Request-Redirect")


def _kept(text: str) -> tuple[frozenset[int], float]:
    """Statuses, none for all of them, and for how long, of ``200 401 5m`` or ``any 1h 30m``."""
    words = text.split()
    statuses = frozenset(int(word) for word in words if word.isdecimal())
    times = [re.fullmatch(r"(\d+)([a-zA-Z]+)", word) for word in words]
    time_s = sum(int(found[1]) * _SECONDS[found[2]] for found in times if found)
    return frozenset() if "any" in words else statuses or USUAL, time_s
