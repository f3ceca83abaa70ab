"""Header fields that a ConfigMap lists: each key a name, its text the value. Pure.

Law: a list is taken whole or not at all, and no field of it says where a message ends or which way it goes.
"""

import re
from collections.abc import Collection

from plane.model import Object

# Fields that belong to one hop and to the framing of a message.
FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# And those of a request that the plane writes: what it says of the client is not for others to say.
WRITTEN = FRAMING | {
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
}
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def lines_of(config_map: Object) -> tuple[str, ...]:
    """Its fields as lines ``name: value``, by name."""
    return tuple(f"{name}: {value.strip()}" for name, value in sorted((config_map.get("data") or {}).items()))


# And those of an answer that the plane writes where an endpoint does not.
ANSWERED = FRAMING | {"date", "server"}
# Where ingress-nginx itself has its settings from, if that is among the objects.
CONTROLLER = ("ingress-nginx", "ingress-nginx-controller")
ALLOWED = "global-allowed-response-headers"


def not_allowed(fields: Object, controller: Object | None) -> str:
    """The first field of answers that the settings of ingress-nginx do not allow; without settings all are allowed."""
    if controller is None:
        return ""
    allowed = {name.strip() for name in (controller.get("data") or {}).get(ALLOWED, "").split(",")}
    return next((name for name in sorted(fields.get("data") or {}) if name not in allowed), "")


def trouble_with(config_map: Object | None, written: Collection[str] = FRAMING) -> str:
    """Why it is no list of header fields, empty where it is one; ``written`` are those that are not for it to say."""
    if config_map is None:
        return "does not exist"
    for name, value in sorted((config_map.get("data") or {}).items()):
        if not _NAME.fullmatch(name):
            return f'has the key "{name}", which is no name of a header'
        if name.lower() in written:
            return f'has the key "{name}", which the plane alone writes'
        if not value.strip().isprintable() or not value.isascii():
            return f'has a value of "{name}" that is not one line of printable ASCII text'
    return ""
