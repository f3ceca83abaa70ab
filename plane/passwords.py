"""Names and passwords as htpasswd writes them, and whether a client knows one. Pure.

Law: a password is compared with its hash in constant time, by a library made for that; what is no hash that it knows
lets nobody in. Taken are bcrypt (``$2y$``, ``$2b$``, ``$2a$``), MD5 of Apache (``$apr1$``) and of crypt (``$1$``),
SHA-256 and SHA-512 of crypt (``$5$``, ``$6$``), ``{SHA}`` and ``{SSHA}``. Not taken: DES of crypt, and plain text.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from passlib.hash import apr_md5_crypt, bcrypt, ldap_salted_sha1, ldap_sha1, md5_crypt, sha256_crypt, sha512_crypt

from plane.model import Object

KINDS = (bcrypt, apr_md5_crypt, md5_crypt, sha256_crypt, sha512_crypt, ldap_salted_sha1, ldap_sha1)
BCRYPT_LIMIT = 72  # bytes of a password that bcrypt looks at; a longer one is cut, as NGINX's crypt does


def users_of(secret: Object, *, by_key: bool) -> tuple[str, ...]:
    """Lines ``name:hash`` of a Secret: of its key ``auth``, or each key a name and its value the hash."""
    values = {key: _text(value) for key, value in (secret.get("data") or {}).items()}
    if by_key:
        return tuple(f"{name}:{values[name].strip()}" for name in sorted(values))
    lines = (line.strip() for line in values.get("auth", "").splitlines())
    return tuple(line for line in lines if ":" in line and not line.startswith("#"))


def unusable(users: tuple[str, ...]) -> Iterator[str]:
    """The names whose hash is of no kind that is taken."""
    for line in users:
        name, _, rest = line.partition(":")
        if _kind(rest.partition(":")[0]) is None:
            yield name


def credentials(authorization: str) -> tuple[str, str] | None:
    """Name and password of an Authorization field of the scheme Basic (RFC 7617), None where it is none."""
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(token.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None


def hash_of(users: tuple[str, ...], name: str) -> str:
    """The hash of a name's password, empty where nobody has that name."""
    for line in users:
        known, _, rest = line.partition(":")
        if known == name:
            return rest.partition(":")[0]
    return ""


def verified(hashed: str, password: str) -> bool:
    """Whether a hash is that of a password. This takes as long as the hash's author wanted it to."""
    kind = _kind(hashed)
    secret = password.encode()
    if kind is bcrypt:
        secret = secret[:BCRYPT_LIMIT]
    try:
        return kind is not None and "\0" not in password and kind.verify(secret, hashed)
    except ValueError:
        return False


def _kind(hashed: str) -> Any:
    """The scheme of a hash, None where it is none of KINDS."""
    return next((kind for kind in KINDS if kind.identify(hashed)), None)


def _text(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""
