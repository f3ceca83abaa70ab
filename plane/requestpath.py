"""The host and the path of a request as rules are compared with them. Pure.

Law: what is matched is normal (RFC 3986, 6.2.2); what is forwarded stays as it was sent. Only unreserved characters are
decoded, so ``%2F`` is no separator; dot segments go and slashes in a row merge, whichever way they were written. Who
comes after us may decode more: ``climbs`` and ``separated`` tell where that would make a difference.
"""

import re
import string

_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_FOREIGN = re.compile(r"[^\x21-\x7e]")
_SEPARATOR = re.compile(r"%2f|%5c|\\", re.IGNORECASE)


def normalised(path: str) -> str:
    """The path to match, which ends in a slash if it did before. ``path`` begins with one and is without its query."""
    if not path.isascii():
        path = _FOREIGN.sub(_encoded, path)
    if "%" in path:
        path = _ESCAPE.sub(_decoded, path)
    if "//" not in path and "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    slash = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return f"/{'/'.join(kept)}{slash}"


def separated(path: str) -> str:
    """The path as one reads it to whom ``%2F``, ``%5C`` and a backslash are slashes and ``%00`` is the end."""
    return _SEPARATOR.sub("/", path).partition("%00")[0]


def climbs(path: str) -> bool:
    """Whether a dot segment ``..`` has an encoded slash or a backslash at one side at least."""
    if "%" in path:
        path = _ESCAPE.sub(_decoded, path)
    if ".." not in path:
        return False
    return _climbing(_SEPARATOR.sub("/", path)) > _climbing(path)


def _climbing(path: str) -> int:
    return path.split("/").count("..")


def host_of(header: str) -> str:
    """The host of a Host header: lower case, without port and without the dot of a fully qualified name."""
    name = header.strip().lower()
    name = name[: name.find("]") + 1] if name.startswith("[") else name.partition(":")[0]
    return name.removesuffix(".")


def _decoded(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _encoded(character: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in character[0].encode("utf-8", "surrogateescape"))
