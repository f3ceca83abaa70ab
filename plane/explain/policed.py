"""What the policies of its route do to a request, in words. Pure.

Law: what is said comes from ``plane.conduct``, which also acts on it. What takes a clock or a chance is said as such,
and the rest of the answer is then the case that is not limited and not of the canary.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from plane.affinity import backend_key, endpoint_of, held
from plane.conduct import Answer, Conduct, Fields, Request, Rule, Upstream, choose
from plane.externalauth import ExternalAuth
from plane.policies import Policies, conditions
from plane.router import Match
from plane.routes import Routes

_SAY_ADDRESS = "addresses: say --from-ip to see whether the client's is allowed"


class Policed(NamedTuple):
    """What becomes of a request whose route has policies or a canary.

    answer    of the plane's own, None where the request goes on
    target    row of TARGET and ``origin`` its row of origins, of the rule or its canary
    upstream  what the endpoint gets
    fields    that the answer to the client gets
    asked     URL whose answer decides whether the rest holds, empty where nobody is asked
    """

    answer: Answer | None
    target: int
    origin: int
    upstream: Upstream
    fields: Fields
    reasons: tuple[str, ...]
    asked: str = ""


def policed(table: Routes, match: Match, request: Request, unanswered: Callable[[SplitResult], str]) -> Policed:
    """``unanswered`` says why whom a URL asks cannot answer, empty where it may."""
    conduct = Conduct(table.policy(match.policy))
    answer = conduct.answer(request)
    asked = ""
    if answer is None:
        answer, asked = _entered(conduct, request)
        if asked and (why_not := unanswered(urlsplit(asked))):
            answer, asked = Answer(500, f"auth-url: {asked} is asked and cannot answer: {why_not}"), ""
    why: tuple[str, ...] = ()
    target, origin = match.target, match.origin
    if answer is None and conduct.policies.fallback:
        target = conduct.policies.fallback
        rule = rule_of(table, match)
        why = (f"default backend: Service {rule.service} has no endpoint, so the request goes to default-backend",)
    elif answer is None and match.canary:
        target, origin, why = _chosen(table, match, request, conduct.policies)
    upstream, fields = conduct.upstream(request), conduct.fields(request)
    if conduct.policies.fallback:
        upstream = upstream._replace(fields=(*upstream.fields, *conduct.stand_in(request, rule_of(table, match))))
    said = (
        *([answer.reason] if answer and answer.reason else ()),
        *([_asked(conduct.policies, asked)] if asked else ()),
        *why,
        *_said(conduct, request, upstream, answer),
    )
    return Policed(answer, target, origin, upstream, fields, tuple(said), asked)


def _entered(conduct: Conduct, request: Request) -> tuple[Answer | None, str]:
    """The answer to who is not let in, None for others; and the URL whose answer decides that, which is not asked."""
    policies = conduct.policies
    auth = ExternalAuth(policies) if policies.auth_url else None
    refused = conduct.turned_away(request) if conduct.any_lets_in else None
    if conduct.any_lets_in and conduct.welcomes(request):
        return None, ""
    if policies.auth:
        right = conduct.admits(request.value("authorization"))
        if right and conduct.any_lets_in:
            return None, ""
        refused = refused if right else conduct.challenge()
    if auth is None:
        return refused, ""
    if refused is None or conduct.any_lets_in:
        return None, urlunsplit(auth.url(request))
    return auth.signed_in(refused, request), ""


def _asked(policies: Policies, url: str) -> str:
    fields = f", with its {', '.join(policies.auth_fields)}" if policies.auth_fields else ""
    signing = f" (sent to {policies.auth_signin})" if policies.auth_signin else ""
    return (
        f"external: {policies.auth_method or 'GET'} {url} decides and is not asked here: "
        f"2xx lets the request in{fields}, as said here; 401{signing} and 403 are passed on; anything else is 500"
    )


def excused(table: Routes, match: Match, request: Request, status: int) -> Upstream | None:
    """What the default backend is asked for in the place of an answer of the plane's own, None where it is not."""
    conduct = Conduct(table.policy(match.policy))
    return conduct.excuse(request, status, rule_of(table, match)) if conduct.excuses(status, own=True) else None


def rule_of(table: Routes, match: Match) -> Rule:
    """The rule that takes a request, as a default backend is told."""
    origin, named = table.origins[match.origin], table.services[table.targets[match.target]["service"]]
    if not match.target:
        return Rule(origin.namespace, origin.ingress)
    return Rule(origin.namespace, origin.ingress, named.service.partition("/")[2], str(named.port))


def sticky(table: Routes, match: Match, target: int, request: Request, addresses: list[str]) -> int | None:
    """Index of the endpoint that the cookie, or what requests are told apart by, leads to; None where nothing does."""
    policies = table.policy(match.policy)
    if policies.hash_by and not policies.cookie:
        return endpoint_of(Conduct(policies).hash_key(request), addresses, persistent=False)
    service = str(table.services[table.targets[target]["service"]])
    key, of = held(request.value("cookie"), policies.cookie) if policies.cookie else ("", "")
    if not key or of != backend_key(service):
        return None
    return endpoint_of(key, addresses, persistent=policies.cookie_persistent)


def _chosen(table: Routes, match: Match, request: Request, policies: Policies) -> tuple[int, int, tuple[str, ...]]:
    """(target, origin, why): where chance decides, the canary has it only if nothing is left to chance."""
    row, canary = table.policies.canaries[match.canary], table.canary(match.canary)
    own, other = (str(table.services[table.targets[each]["service"]]) for each in (match.target, row["target"]))
    choice = choose(canary, request, policies, (own, other), is_served=table.is_served(int(row["target"])))
    taken = canary.weight >= canary.total if choice.weighed else choice.canary
    if choice.weighed and 0 < canary.weight < canary.total:
        why = f"canary: of such requests {canary.weight} out of {canary.total} go to {other}, the others as said here"
    else:
        why = f"canary: {choice.why}: the request goes to {other if taken else own}"
    return (int(row["target"]), int(row["origin"]), (why,)) if taken else (match.target, match.origin, (why,))


def _said(conduct: Conduct, request: Request, upstream: Upstream, answer: Answer | None) -> Iterator[str]:
    """Sentences about policies that do something to this request."""
    policies = conduct.policies
    if policies.cors:
        allowed = conduct.allows(request)
        origin = request.value("origin") or "none"
        yield f"CORS: origin {origin} is {'allowed' if allowed else 'not one of ' + ', '.join(policies.cors_origins)}"
    asked = (policies.sources_allowed or policies.sources_denied) and not request.address
    if answer is not None:
        if asked and answer.status == 403:
            yield _SAY_ADDRESS
        return
    if policies.limit_rps or policies.limit_rpm or policies.limit_connections:
        yield f"limits of {policies.limit_key} for one client: {_limits(policies)}; what is more gets 503"
    if asked:
        yield _SAY_ADDRESS
    if policies.auth and conduct.admits(request.value("authorization")):
        yield "password: it is right, and the endpoint does not see it"
    if upstream.uri != request.uri:
        yield f"rewrite: {policies.rewrite_from} to {policies.rewrite_to}: the endpoint is asked for {upstream.uri}"
    elif policies.rewrite_to:
        yield f"rewrite: {policies.rewrite_from} to {policies.rewrite_to} changes nothing here"
    if upstream.host:
        yield f"the endpoint is told the host {upstream.host}"
    elif policies.own_host:
        yield "the endpoint is told its own address as the host"
    if policies.upstream_tls:
        yield f"the endpoint is spoken to by HTTPS, {_trust(policies)}"
    if policies.unlogged:
        yield "the access log has no line of it"
    if policies.cookie:
        yield f"affinity: cookie {policies.cookie} keeps a client at its endpoint"
    elif policies.hash_by:
        where = f"some of {policies.hash_subset} endpoints" if policies.hash_subset else "one endpoint"
        yield f"all requests with the same {policies.hash_by} go to {where}, here {conduct.hash_key(request)}"
    if policies.mirror:
        body = "" if policies.mirror_body else ", without its body"
        yield f"mirror: a copy of the request{body} goes to {conduct.mirror(request)}"
    if policies.errors:
        whose = "of the plane's own" if policies.errors_own else "of endpoints and of the plane's own"
        made = "made by the default backend" if policies.errors_target else "404, for there is no default backend"
        yield f"errors: answers {whose} with {', '.join(policies.errors)} are {made}"
    if policies.body_limit:
        yield f"a body of more than {policies.body_limit} bytes gets 413"
    yield from _patience(policies)


def _trust(policies: Policies) -> str:
    named = f" and told the name {policies.tls_name}" if policies.tls_name else ""
    if policies.tls_verify:
        return f"and must prove to be {policies.tls_name or 'at its address'}"
    return f"not verified{named}"


def _limits(policies: Policies) -> str:
    rates = ((policies.limit_rps, "a second"), (policies.limit_rpm, "a minute"))
    said = [f"{rate} requests {time}, {rate * policies.limit_burst} more at once" for rate, time in rates if rate]
    if policies.limit_connections:
        said.append(f"{policies.limit_connections} at a time")
    return ", ".join(said)


def _patience(policies: Policies) -> Iterator[str]:
    waits = (
        ("connect", policies.connect_timeout_ms),
        ("read", policies.read_timeout_ms),
        ("send", policies.send_timeout_ms),
    )
    if any(ms for _, ms in waits):
        yield f"timeouts: {', '.join(f'{name} {ms / 1000:g} s' for name, ms in waits if ms)}"
    if policies.retry_on or policies.retry_tries:
        after = " ".join(conditions(policies.retry_on)) or "error"
        yield f"another endpoint is tried after {after}, {policies.retry_tries or 3} tries in all"
