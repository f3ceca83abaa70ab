"""Header fields that a ConfigMap lists: each key a name, its text the value. Pure.

Law: a list is taken whole or not at all, and no field of it says where a message ends or which way it goes.
"""

import re

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


def trouble_with(config_map: Object | None) -> str:
    """Why it is no list of header fields, empty where it is one."""
    if config_map is None:
        return "does not exist"
    for name, value in sorted((config_map.get("data") or {}).items()):
        if not _NAME.fullmatch(name):
            return f'has the key "{name}", which is no name of a header'
        if name.lower() in FRAMING:
            return f'has the key "{name}", which the plane alone writes'
        if not value.strip().isprintable() or not value.isascii():
            return f'has a value of "{name}" that is not one line of printable ASCII text'
    return ""
