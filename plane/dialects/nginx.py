"""The annotations of ingress-nginx, ``nginx.ingress.kubernetes.io/…``, read as it reads them. Pure.

Law: every annotation that ingress-nginx has is in one of four tables: ACTED_ON, with how its value is read; NOT_YET,
which a warning names; NEEDLESS, which ask for nothing here; SNIPPETS, which are refused. The meanings are those of
ingress-nginx 1.12, by its ``nginx.tmpl`` and ``internal/ingress/annotations``; where the plane differs
``docs/ingress.md`` says so.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kernels.layout import RETRY_CONDITIONS
from plane.dialects import values
from plane.dialects.values import Reader, Unfit
from plane.policies import Asked, Canary, Policies, condition_bits

PREFIX = "nginx.ingress.kubernetes.io/"
MIB = 1 << 20
NO_LIMIT = 1 << 16
HSTS_MAX_AGE_S = 31_536_000
CORS_METHODS = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
CORS_HEADERS = (
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
)
CORS_MAX_AGE_S = 1_728_000
BURST = 5
SUBSET = 3
AUTH_CACHE = ("200 202 401 5m",)
DEFAULT_COOKIE = "INGRESSCOOKIE"

# Values of load-balance → name of the algorithm; others, also least_conn and ip_hash of old, are refused.
BALANCED = {"round_robin": "rr", "ewma": "ewma"}
# Values of backend-protocol → what there is to warn of.
PROTOCOLS = {
    "HTTP": "",
    "HTTPS": "",
    "AUTO_HTTP": "endpoints are spoken to by plain HTTP/1.1, nothing says which want HTTPS; write HTTPS or HTTP",
    "GRPC": "endpoints are spoken to by HTTP/1.1, which gRPC is not",
    "GRPCS": "endpoints are spoken to by HTTP/1.1 over TLS, which gRPC is not",
    "FCGI": "endpoints are spoken to by HTTP/1.1, not by FastCGI",
}

_url = values.url("scheme", "http_host", "host", "request_uri")
_seconds = values.whole(1, 86_400)

ACTED_ON: dict[str, Reader] = {
    "ssl-redirect": values.boolean,
    "force-ssl-redirect": values.boolean,
    "preserve-trailing-slash": values.boolean,
    "permanent-redirect": _url,
    "permanent-redirect-code": values.one_of("301", "302", "303", "307", "308"),
    "temporal-redirect": _url,
    "temporal-redirect-code": values.one_of("301", "302", "303", "307"),
    "app-root": values.path,
    "from-to-www-redirect": values.boolean,
    "server-alias": values.aliases,
    "use-regex": values.boolean,
    "rewrite-target": values.rewritten,
    "x-forwarded-prefix": values.rewritten,
    "upstream-vhost": values.host,
    "canary": values.boolean,
    "canary-weight": values.whole(),
    "canary-weight-total": values.whole(1),
    "canary-by-header": values.field_name,
    "canary-by-header-value": values.line,
    "canary-by-header-pattern": values.pattern,
    "canary-by-cookie": values.field_name,
    "whitelist-source-range": values.ranges,
    "allowlist-source-range": values.ranges,
    "denylist-source-range": values.ranges,
    "proxy-body-size": values.size,
    "proxy-connect-timeout": _seconds,
    "proxy-read-timeout": _seconds,
    "proxy-send-timeout": _seconds,
    "proxy-next-upstream": values.words_of(*RETRY_CONDITIONS),
    "proxy-next-upstream-tries": values.whole(0, NO_LIMIT),
    "proxy-next-upstream-timeout": values.whole(0, 86_400),
    "enable-cors": values.boolean,
    "cors-allow-origin": values.origins,
    "cors-allow-methods": values.names,
    "cors-allow-headers": values.names,
    "cors-expose-headers": values.names,
    "cors-allow-credentials": values.boolean,
    "cors-max-age": values.whole(-1),
    "limit-rps": values.whole(),
    "limit-rpm": values.whole(),
    "limit-connections": values.whole(),
    "limit-burst-multiplier": values.whole(1, 1000),
    "limit-whitelist": values.ranges,
    "limit-allowlist": values.ranges,
    "auth-type": values.one_of("basic"),
    "auth-secret": values.secret,
    "auth-secret-type": values.one_of("auth-file", "auth-map"),
    "auth-realm": values.quotable,
    "backend-protocol": values.one_of(*(name.lower() for name in PROTOCOLS), fold=True),
    "proxy-ssl-secret": values.secret,
    "proxy-ssl-verify": values.switch,
    "proxy-ssl-name": values.host,
    "proxy-ssl-server-name": values.switch,
    "proxy-ssl-protocols": values.protocols,
    "proxy-ssl-ciphers": values.ciphers,
    "load-balance": values.one_of(*BALANCED),
    "auth-url": values.asked_url,
    "auth-method": values.one_of("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"),
    "auth-signin": values.sign_in,
    "auth-signin-redirect-param": values.visible,
    "auth-response-headers": values.field_names,
    "auth-request-redirect": values.visible,
    "auth-proxy-set-headers": values.config_map,
    "auth-always-set-cookie": values.boolean,
    "auth-cache-key": values.cache_key,
    "auth-cache-duration": values.cache_times,
    "satisfy": values.one_of("all", "any"),
    "custom-http-errors": values.statuses,
    "disable-proxy-intercept-errors": values.boolean,
    "default-backend": values.service,
    "custom-headers": values.config_map,
    "mirror-target": values.mirrored_url,
    "mirror-host": values.host,
    "mirror-request-body": values.one_of("on", "off"),
    "upstream-hash-by": values.hashed,
    "upstream-hash-by-subset": values.boolean,
    "upstream-hash-by-subset-size": values.whole(1, 1 << 16),
    "affinity": values.one_of("cookie"),
    "affinity-canary-behavior": values.one_of("sticky", "legacy"),
    "affinity-mode": values.one_of("balanced", "persistent"),
    "session-cookie-name": values.field_name,
    "session-cookie-expires": values.whole(1),
    "session-cookie-max-age": values.whole(1),
    "session-cookie-path": values.token,
    "session-cookie-domain": values.token,
    "session-cookie-samesite": values.one_of("none", "lax", "strict", fold=True),
    "session-cookie-conditional-samesite-none": values.boolean,
    "session-cookie-secure": values.boolean,
    "session-cookie-change-on-failure": values.boolean,
    "enable-access-log": values.boolean,
}
# Name → what is added to the warning.
NOT_YET: dict[str, str] = {
    "fastcgi-params-configmap": ": there is no FastCGI",
    **dict.fromkeys(
        (
            "auth-tls-error-page",
            "auth-tls-match-cn",
            "auth-tls-pass-certificate-to-upstream",
            "auth-tls-secret",
            "auth-tls-verify-client",
            "auth-tls-verify-depth",
            "connection-proxy-header",
            "enable-modsecurity",
            "enable-opentelemetry",
            "enable-owasp-core-rules",
            "enable-rewrite-log",
            "fastcgi-index",
            "limit-rate",
            "limit-rate-after",
            "modsecurity-transaction-id",
            "opentelemetry-operation-name",
            "opentelemetry-trust-incoming-span",
            "proxy-cookie-domain",
            "proxy-cookie-path",
            "proxy-http-version",
            "proxy-redirect-from",
            "proxy-redirect-to",
            "proxy-ssl-verify-depth",
            "relative-redirects",
            "service-upstream",
            "ssl-ciphers",
            "ssl-passthrough",
            "ssl-prefer-server-ciphers",
            "use-port-in-redirects",
        ),
        "",
    ),
}
# Of those, what asks who a client is. Who is served without it is not asked, so nobody is served.
GUARDS = ("auth-tls-secret",)
# Of those the values that say what the plane does anyway, of which there is nothing to warn.
SO_ANYWAY: dict[str, tuple[str, ...]] = {
    "auth-tls-verify-client": ("off",),
    "enable-modsecurity": ("false",),
    "enable-opentelemetry": ("false",),
    "enable-owasp-core-rules": ("false",),
    "enable-rewrite-log": ("false",),
    "limit-rate": ("0",),
    "limit-rate-after": ("0",),
    "proxy-cookie-domain": ("off",),
    "proxy-cookie-path": ("off",),
    "proxy-http-version": ("1.1",),
    "proxy-redirect-from": ("off",),
    "relative-redirects": ("false",),
    "service-upstream": ("false",),
    "ssl-passthrough": ("false",),
    "use-port-in-redirects": ("false",),
}
# Tunings of how NGINX buffers and keeps connections: here everything streams in bounded memory, and connections are
# kept without being told to. And who is asked for all Ingresses together, which nobody is.
NEEDLESS = (
    "auth-keepalive",
    "auth-keepalive-requests",
    "auth-keepalive-share-vars",
    "auth-keepalive-timeout",
    "client-body-buffer-size",
    "enable-global-auth",
    "http2-push-preload",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-busy-buffers-size",
    "proxy-max-temp-file-size",
    "proxy-request-buffering",
)
SNIPPETS = ("configuration-snippet", "server-snippet", "stream-snippet", "auth-snippet", "modsecurity-snippet")
KNOWN = (*ACTED_ON, *NOT_YET, *NEEDLESS, *SNIPPETS)
# How it is asked whether a request goes on; none of it is left out in the hope that it does not matter.
EXTERNAL = (
    "auth-url",
    "auth-method",
    "auth-signin",
    "auth-signin-redirect-param",
    "auth-response-headers",
    "auth-request-redirect",
    "auth-proxy-set-headers",
    "auth-always-set-cookie",
    "auth-cache-key",
    "auth-cache-duration",
)
# Annotations that mean nothing without another one: (it, the other one, how that must be).
NEEDED = (
    *((name, "canary", '"true"') for name in ACTED_ON if name.startswith("canary-")),
    ("canary-by-header-value", "canary-by-header", "the name of a header"),
    ("canary-by-header-pattern", "canary-by-header", "the name of a header"),
    ("auth-secret", "auth-type", '"basic"'),
    ("auth-type", "auth-secret", "the name of a Secret"),
    ("upstream-hash-by-subset", "upstream-hash-by", "variables"),
    ("upstream-hash-by-subset-size", "upstream-hash-by-subset", '"true"'),
    ("affinity-canary-behavior", "canary", '"true"'),
    *((name, "auth-url", "a URL") for name in ACTED_ON if name in EXTERNAL and name != "auth-url"),
    ("auth-signin-redirect-param", "auth-signin", "a URL"),
    ("auth-cache-duration", "auth-cache-key", "variables of NGINX"),
    ("disable-proxy-intercept-errors", "custom-http-errors", "statuses"),
    ("mirror-host", "mirror-target", "a URL"),
    ("mirror-request-body", "mirror-target", "a URL"),
    ("x-forwarded-prefix", "rewrite-target", "a path"),
    ("limit-burst-multiplier", "limit-rps or limit-rpm", "a number"),
    *((name, "backend-protocol", '"HTTPS"') for name in ACTED_ON if name.startswith("proxy-ssl-")),
    *((name, "affinity", '"cookie"') for name in ACTED_ON if name.startswith("session-cookie-")),
    *((name, "enable-cors", '"true"') for name in ACTED_ON if name.startswith("cors-")),
)

# Annotations that act on a canary; of the others those of the rule's own Ingress hold.
ON_CANARY = ("load-balance", "affinity-canary-behavior", *(name for name in ACTED_ON if name.startswith("canary")))
# Those that keep somebody out, without which more are let in than their author means.
KEEPING_OUT = (
    "auth-",
    "satisfy",
    "allowlist-",
    "whitelist-",
    "denylist-",
    "limit-rps",
    "limit-rpm",
    "limit-connections",
)

Said = Mapping[str, Any]  # values of ACTED_ON that are fit, and GUARD and UNFIT, by name without prefix
GUARD = "guard"  # no annotation, but which of GUARDS there is
UNFIT = "unfit"  # nor is this: which of EXTERNAL cannot be honoured, without which nobody is to be let in


def read(annotations: Mapping[str, str]) -> tuple[Said, list[Unfit]]:
    """What is said, and what is unfit, of annotations by their whole names."""
    said: dict[str, Any] = {}
    unfit = []
    for full_name, text in annotations.items():
        name = full_name.removeprefix(PREFIX)
        if name == full_name:
            continue
        if name in SNIPPETS:
            what = (
                "is configuration of NGINX itself, which could do anything; there is no safe way to run it, remove it"
            )
            unfit.append(Unfit(full_name, what))
        elif name in ACTED_ON:
            try:
                said[name] = ACTED_ON[name](text)
            except ValueError as error:
                shown = f'"{text}" is not allowed' if text else "is empty"
                unfit.append(Unfit(full_name, f"{shown}; {error}"))
                if name in EXTERNAL:
                    said[UNFIT] = name
    total = _total(said)
    if said.get("canary-weight", 0) > total:
        what = f'"{said.pop("canary-weight")}" is more than the total, {total}; write a number from 0 to {total}'
        unfit.append(Unfit(f"{PREFIX}canary-weight", f"{what}, or a larger {PREFIX}canary-weight-total"))
    unfit += _useless(said, annotations)
    if guard := guarded_by(annotations):
        said[GUARD] = guard
    return said, unfit


def guarded_by(annotations: Mapping[str, str]) -> str:
    """Which of GUARDS lets nobody in, without prefix; empty where none does."""
    for name in GUARDS:
        off = name == "auth-tls-secret" and annotations.get(f"{PREFIX}auth-tls-verify-client") == "off"
        if PREFIX + name in annotations and not off:
            return name
    return ""


def _useless(said: Said, annotations: Mapping[str, str]) -> Iterator[Unfit]:
    """Annotations whose other half is not there at all; one that is there and off is a way to switch both off."""
    for name, other, how in NEEDED:
        if name in said and not any(PREFIX + each in annotations for each in other.split(" or ")):
            yield Unfit(PREFIX + name, f"does nothing without {PREFIX}{other}; write that too, as {how}")
    if said.get("proxy-ssl-verify"):
        for other, what in (("proxy-ssl-secret", "whose ca.crt has the authorities"), ("proxy-ssl-name", "their name")):
            if other not in said:
                yield Unfit(
                    f"{PREFIX}proxy-ssl-verify", f"verifies nothing without {PREFIX}{other}; write that too, {what}"
                )
    if said.get("proxy-ssl-server-name") and not {"proxy-ssl-name", "upstream-vhost"} & said.keys():
        what = f"has no name to tell; write {PREFIX}proxy-ssl-name too"
        yield Unfit(f"{PREFIX}proxy-ssl-server-name", what)


def asked(said: Said, namespace: str, name: str, *, defaults: bool) -> Asked:
    """What an Ingress asks for; ``defaults``: ingress-nginx itself serves it, which limits bodies and has HSTS."""
    canary = _canary(said) if said.get("canary") else None
    secret = None
    if "auth-type" in said and "auth-secret" in said:
        secret = (*_named(said["auth-secret"], namespace), said.get("auth-secret-type") == "auth-map")
    return Asked(
        policies=_policies(said, namespace, name, defaults=defaults),
        https=said.get("ssl-redirect", True),
        app_root=said.get("app-root", ""),
        www=said.get("from-to-www-redirect", False),
        aliases=said.get("server-alias", ()),
        regex=said.get("use-regex", False),
        rewrite=said.get("rewrite-target", ""),
        auth_secret=secret,
        tls_secret=_named(said["proxy-ssl-secret"], namespace) if "proxy-ssl-secret" in said else None,
        algorithm=BALANCED.get(said.get("load-balance", ""), ""),
        auth_sent=_named(said["auth-proxy-set-headers"], namespace) if "auth-proxy-set-headers" in said else None,
        fields=_named(said["custom-headers"], namespace) if "custom-headers" in said else None,
        default_backend=(namespace, said["default-backend"]) if "default-backend" in said else None,
        canary=canary,
    )


def _named(text: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of an object, which may be written without its namespace."""
    where, slash, name = text.rpartition("/")
    return (where, name) if slash else (namespace, name)


def _total(said: Said) -> int:
    """What the weight of a canary is out of."""
    return max(100, said.get("canary-weight-total", 100))


def _canary(said: Said) -> Canary:
    value = said.get("canary-by-header-value", "")
    return Canary(
        header=said.get("canary-by-header", "").lower(),
        header_value=value,
        header_pattern="" if value else said.get("canary-by-header-pattern", ""),
        cookie=said.get("canary-by-cookie", ""),
        weight=said.get("canary-weight", 0),
        total=_total(said),
        forgetful=int(said.get("affinity-canary-behavior") == "legacy"),
    )


def _policies(said: Said, namespace: str, name: str, *, defaults: bool) -> Policies:
    redirect, status = _redirect(said)
    limited = any(said.get(f"limit-{what}") for what in ("rps", "rpm", "connections"))
    return Policies(
        denied=_denied(said, namespace),
        body_limit=said.get("proxy-body-size", MIB if defaults else 0),
        redirect=redirect,
        redirect_status=status,
        https=said.get("force-ssl-redirect", False),
        keep_slash=said.get("preserve-trailing-slash", False),
        hsts_max_age_s=HSTS_MAX_AGE_S if defaults else 0,
        limit_key=f"{namespace}/{name}" if limited else "",
        limit_rps=said.get("limit-rps", 0),
        limit_rpm=said.get("limit-rpm", 0),
        limit_burst=said.get("limit-burst-multiplier", BURST) if limited else 0,
        limit_connections=said.get("limit-connections", 0),
        unlimited=said.get("limit-allowlist", said.get("limit-whitelist", ())) if limited else (),
        sources_denied=said.get("denylist-source-range", ()),
        sources_allowed=said.get("allowlist-source-range", said.get("whitelist-source-range", ())),
        auth="auth-type" in said,
        auth_realm=said.get("auth-realm", "") if "auth-type" in said else "",
        **_external(said),
        forwarded_prefix=said.get("x-forwarded-prefix", "") if "rewrite-target" in said else "",
        upstream_host=said.get("upstream-vhost", ""),
        connect_timeout_ms=1000 * said.get("proxy-connect-timeout", 0),
        read_timeout_ms=1000 * said.get("proxy-read-timeout", 0),
        send_timeout_ms=1000 * said.get("proxy-send-timeout", 0),
        retry_on=condition_bits(said.get("proxy-next-upstream", ())),
        retry_tries=(said["proxy-next-upstream-tries"] or NO_LIMIT) if "proxy-next-upstream-tries" in said else 0,
        retry_timeout_ms=1000 * said.get("proxy-next-upstream-timeout", 0),
        errors=said.get("custom-http-errors", ()),
        errors_own=said.get("disable-proxy-intercept-errors", False) and "custom-http-errors" in said,
        mirror=said.get("mirror-target", ""),
        mirror_host=said.get("mirror-host", urlsplit(said.get("mirror-target", "").partition("$")[0]).hostname or ""),
        mirror_body="mirror-target" in said and said.get("mirror-request-body", "on") == "on",
        hash_by=said.get("upstream-hash-by", ""),
        hash_subset=said.get("upstream-hash-by-subset-size", SUBSET) if said.get("upstream-hash-by-subset") else 0,
        unlogged=not said.get("enable-access-log", True),
        **_cors(said),
        **_cookie(said),
        **_tls(said),
    )


def _denied(said: Said, namespace: str) -> str:
    if GUARD in said:
        return f"{PREFIX}{said[GUARD]} is not acted on yet, and without it nobody is let in"
    if "auth-type" in said and "auth-secret" not in said:
        return "auth-type without an auth-secret"
    if UNFIT in said:
        return f"{PREFIX}{said[UNFIT]} cannot be honoured, and without it nobody is let in"
    for name in ("auth-secret", "proxy-ssl-secret", "auth-proxy-set-headers", "custom-headers"):
        where = _named(said.get(name, ""), namespace)[0]
        if where != namespace:
            return f"{name} is of namespace {where}, not of its own"
    return ""


def _tls(said: Said) -> dict[str, Any]:
    """Towards endpoints. To verify a name they have to be told it, so that they show the certificate for it."""
    if said.get("backend-protocol") not in ("https", "grpcs"):
        return {}
    verify = said.get("proxy-ssl-verify", False)
    named = verify or said.get("proxy-ssl-server-name", False)
    return {
        "upstream_tls": True,
        "tls_name": said.get("proxy-ssl-name", said.get("upstream-vhost", "")).partition(":")[0] if named else "",
        "tls_verify": verify,
        "tls_protocols": said.get("proxy-ssl-protocols", ""),
        "tls_ciphers": said.get("proxy-ssl-ciphers", ""),
    }


def _external(said: Said) -> dict[str, Any]:
    """Who is asked whether a request goes on, and how."""
    alone = {"auth_any": said.get("satisfy") == "any"}
    if "auth-url" not in said:
        return alone
    return {
        **alone,
        "auth_url": said["auth-url"],
        "auth_method": said.get("auth-method", ""),
        "auth_redirect": said.get("auth-request-redirect", ""),
        "auth_fields": said.get("auth-response-headers", ()),
        "auth_signin": _sign_in(said),
        "auth_cookie_always": said.get("auth-always-set-cookie", False),
        "auth_cache_key": said.get("auth-cache-key", ""),
        "auth_cache": said.get("auth-cache-duration", AUTH_CACHE) if "auth-cache-key" in said else (),
    }


def _sign_in(said: Said) -> str:
    """Where who must sign in is sent, with where that one came from, unless the URL says it."""
    url = said.get("auth-signin", "")
    parameter = said.get("auth-signin-redirect-param", "rd")
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if not url or query.get(parameter):
        return url
    return f"{url}{'&' if query else '?'}{parameter}=$pass_access_scheme://$http_host$escaped_request_uri"


def _redirect(said: Said) -> tuple[str, int]:
    """URL and status; the temporal one counts first."""
    if "temporal-redirect" in said:
        return said["temporal-redirect"], int(said.get("temporal-redirect-code", 302))
    if "permanent-redirect" in said:
        return said["permanent-redirect"], int(said.get("permanent-redirect-code", 301))
    return "", 0


def _cors(said: Said) -> dict[str, Any]:
    if not said.get("enable-cors"):
        return {}
    return {
        "cors": True,
        "cors_credentials": said.get("cors-allow-credentials", True),
        "cors_origins": said.get("cors-allow-origin", ("*",)),
        "cors_methods": said.get("cors-allow-methods", CORS_METHODS),
        "cors_headers": said.get("cors-allow-headers", CORS_HEADERS),
        "cors_expose": said.get("cors-expose-headers", ""),
        "cors_max_age_s": said.get("cors-max-age", CORS_MAX_AGE_S),
    }


def _cookie(said: Said) -> dict[str, Any]:
    if "affinity" not in said:
        return {}
    return {
        "cookie": said.get("session-cookie-name", DEFAULT_COOKIE),
        "cookie_persistent": said.get("affinity-mode") == "persistent",
        "cookie_change_on_failure": said.get("session-cookie-change-on-failure", False),
        "cookie_secure": said.get("session-cookie-secure", False),
        "cookie_path": said.get("session-cookie-path", ""),
        "cookie_domain": said.get("session-cookie-domain", ""),
        "cookie_same_site": said.get("session-cookie-samesite", "").capitalize(),
        "cookie_conditional": said.get("session-cookie-conditional-samesite-none", False),
        "cookie_expires_s": said.get("session-cookie-expires", 0),
        "cookie_max_age_s": said.get("session-cookie-max-age", 0),
    }
