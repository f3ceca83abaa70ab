"""The annotations of ingress-nginx, ``nginx.ingress.kubernetes.io/…``, read as it reads them. Pure.

Law: every annotation that ingress-nginx has is in one of four tables: ACTED_ON, with how its value is read; NOT_YET,
which a warning names; NEEDLESS, which ask for nothing here; SNIPPETS, which are refused. The meanings are those of
ingress-nginx 1.12, by its ``nginx.tmpl`` and ``internal/ingress/annotations``; where the plane differs
``docs/ingress.md`` says so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

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
DEFAULT_COOKIE = "INGRESSCOOKIE"

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
    "server-alias": values.hosts,
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
    "upstream-hash-by": values.hashed,
    "affinity": values.one_of("cookie"),
    "affinity-mode": values.one_of("balanced", "persistent"),
    "session-cookie-name": values.field_name,
    "session-cookie-expires": values.whole(1),
    "session-cookie-max-age": values.whole(1),
    "session-cookie-path": values.token,
    "session-cookie-domain": values.token,
    "session-cookie-samesite": values.one_of("none", "lax", "strict", fold=True),
    "session-cookie-secure": values.boolean,
    "session-cookie-change-on-failure": values.boolean,
}
# Name → what is added to the warning.
NOT_YET: dict[str, str] = {
    "custom-headers": ": the plane keeps no ConfigMaps",
    "fastcgi-params-configmap": ": the plane keeps no ConfigMaps",
    **dict.fromkeys(
        (
            "affinity-canary-behavior",
            "auth-always-set-cookie",
            "auth-cache-duration",
            "auth-cache-key",
            "auth-keepalive",
            "auth-keepalive-requests",
            "auth-keepalive-share-vars",
            "auth-keepalive-timeout",
            "auth-method",
            "auth-proxy-set-headers",
            "auth-request-redirect",
            "auth-response-headers",
            "auth-signin",
            "auth-signin-redirect-param",
            "auth-tls-error-page",
            "auth-tls-match-cn",
            "auth-tls-pass-certificate-to-upstream",
            "auth-tls-secret",
            "auth-tls-verify-client",
            "auth-tls-verify-depth",
            "auth-url",
            "backend-protocol",
            "connection-proxy-header",
            "custom-http-errors",
            "default-backend",
            "disable-proxy-intercept-errors",
            "enable-access-log",
            "enable-global-auth",
            "enable-modsecurity",
            "enable-opentelemetry",
            "enable-owasp-core-rules",
            "enable-rewrite-log",
            "fastcgi-index",
            "limit-rate",
            "limit-rate-after",
            "load-balance",
            "mirror-host",
            "mirror-request-body",
            "mirror-target",
            "modsecurity-transaction-id",
            "opentelemetry-operation-name",
            "opentelemetry-trust-incoming-span",
            "proxy-cookie-domain",
            "proxy-cookie-path",
            "proxy-http-version",
            "proxy-redirect-from",
            "proxy-redirect-to",
            "proxy-ssl-ciphers",
            "proxy-ssl-name",
            "proxy-ssl-protocols",
            "proxy-ssl-secret",
            "proxy-ssl-server-name",
            "proxy-ssl-verify",
            "proxy-ssl-verify-depth",
            "relative-redirects",
            "satisfy",
            "service-upstream",
            "session-cookie-conditional-samesite-none",
            "ssl-ciphers",
            "ssl-passthrough",
            "ssl-prefer-server-ciphers",
            "upstream-hash-by-subset",
            "upstream-hash-by-subset-size",
            "use-port-in-redirects",
        ),
        "",
    ),
}
# Of those, what asks who a client is. Who is served without it is not asked, so nobody is served.
GUARDS = ("auth-url", "auth-tls-secret")
# Of those the values that say what the plane does anyway, of which there is nothing to warn.
SO_ANYWAY: dict[str, tuple[str, ...]] = {
    "affinity-canary-behavior": ("sticky",),
    "auth-tls-verify-client": ("off",),
    "backend-protocol": ("HTTP",),
    "enable-modsecurity": ("false",),
    "enable-opentelemetry": ("false",),
    "enable-owasp-core-rules": ("false",),
    "enable-rewrite-log": ("false",),
    "limit-rate": ("0",),
    "limit-rate-after": ("0",),
    "load-balance": ("round_robin",),
    "proxy-cookie-domain": ("off",),
    "proxy-cookie-path": ("off",),
    "proxy-http-version": ("1.1",),
    "proxy-redirect-from": ("off",),
    "relative-redirects": ("false",),
    "satisfy": ("all",),
    "service-upstream": ("false",),
    "session-cookie-conditional-samesite-none": ("false",),
    "ssl-passthrough": ("false",),
    "use-port-in-redirects": ("false",),
}
# Tunings of how NGINX buffers: here everything streams in bounded memory, so that there is nothing to tune.
NEEDLESS = (
    "client-body-buffer-size",
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
# Annotations that mean nothing without another one: (it, the other one, how that must be).
NEEDED = (
    *((name, "canary", '"true"') for name in ACTED_ON if name.startswith("canary-")),
    ("canary-by-header-value", "canary-by-header", "the name of a header"),
    ("canary-by-header-pattern", "canary-by-header", "the name of a header"),
    ("auth-secret", "auth-type", '"basic"'),
    ("auth-type", "auth-secret", "the name of a Secret"),
    ("x-forwarded-prefix", "rewrite-target", "a path"),
    ("limit-burst-multiplier", "limit-rps or limit-rpm", "a number"),
    *((name, "affinity", '"cookie"') for name in ACTED_ON if name.startswith("session-cookie-")),
    *((name, "enable-cors", '"true"') for name in ACTED_ON if name.startswith("cors-")),
)

Said = Mapping[str, Any]  # values of ACTED_ON that are fit, and GUARD, by name without prefix
GUARD = "guard"  # no annotation, but which of GUARDS there is


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


def asked(said: Said, namespace: str, name: str, *, defaults: bool) -> Asked:
    """What an Ingress asks for; ``defaults``: ingress-nginx itself serves it, which limits bodies and has HSTS."""
    canary = _canary(said) if said.get("canary") else None
    secret = None
    if "auth-type" in said and "auth-secret" in said:
        secret = (*_secret(said["auth-secret"], namespace), said.get("auth-secret-type") == "auth-map")
    return Asked(
        policies=_policies(said, namespace, name, defaults=defaults),
        https=said.get("ssl-redirect", True),
        app_root=said.get("app-root", ""),
        www=said.get("from-to-www-redirect", False),
        aliases=said.get("server-alias", ()),
        regex=said.get("use-regex", False),
        rewrite=said.get("rewrite-target", ""),
        auth_secret=secret,
        canary=canary,
    )


def _secret(text: str, namespace: str) -> tuple[str, str]:
    where, slash, name = text.rpartition("/")
    return (where, name) if slash else (namespace, name)


def _canary(said: Said) -> Canary:
    value = said.get("canary-by-header-value", "")
    return Canary(
        header=said.get("canary-by-header", "").lower(),
        header_value=value,
        header_pattern="" if value else said.get("canary-by-header-pattern", ""),
        cookie=said.get("canary-by-cookie", ""),
        weight=said.get("canary-weight", 0),
        total=max(100, said.get("canary-weight-total", 100)),
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
        forwarded_prefix=said.get("x-forwarded-prefix", "") if "rewrite-target" in said else "",
        upstream_host=said.get("upstream-vhost", ""),
        connect_timeout_ms=1000 * said.get("proxy-connect-timeout", 0),
        read_timeout_ms=1000 * said.get("proxy-read-timeout", 0),
        send_timeout_ms=1000 * said.get("proxy-send-timeout", 0),
        retry_on=condition_bits(said.get("proxy-next-upstream", ())),
        retry_tries=(said["proxy-next-upstream-tries"] or NO_LIMIT) if "proxy-next-upstream-tries" in said else 0,
        retry_timeout_ms=1000 * said.get("proxy-next-upstream-timeout", 0),
        hash_by=said.get("upstream-hash-by", ""),
        **_cors(said),
        **_cookie(said),
    )


def _denied(said: Said, namespace: str) -> str:
    if GUARD in said:
        return f"{PREFIX}{said[GUARD]} is not acted on yet, and without it nobody is let in"
    if "auth-type" in said and "auth-secret" not in said:
        return "auth-type without an auth-secret"
    where = _secret(said.get("auth-secret", ""), namespace)[0]
    return f"auth-secret is of namespace {where}, not of its own" if where != namespace else ""


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
        "cookie_expires_s": said.get("session-cookie-expires", 0),
        "cookie_max_age_s": said.get("session-cookie-max-age", 0),
    }
