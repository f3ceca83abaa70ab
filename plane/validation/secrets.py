"""Secrets (``ValidateSecret`` in ``k8s.io/kubernetes/pkg/apis/core/validation``)."""

import base64
import binascii
from collections.abc import Iterator

from plane.validation import names
from plane.validation.findings import Finding, Place, shown

LIMIT = 1024 * 1024
REQUIRED_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def secret(obj: Place) -> Iterator[Finding]:
    data, plain = obj.at("data"), obj.at("stringData")
    size = 0
    for key, value in (*data.entries(), *plain.entries()):
        if len(key) > 253 or not names.CONFIG_KEY.match(key) or key in (".", ".."):
            yield value.wrong(f'the key: {shown(key)} is not allowed; write letters, digits, "-", "_" and "."')
    for _, value in data.entries():
        try:
            size += len(base64.b64decode(value.text(), validate=True))
        except (binascii.Error, ValueError):
            # The text may be the secret itself, so the message does not repeat it.
            yield value.wrong("is no base64; encode it, or write it as it is under stringData")
    size += sum(len(value.text().encode()) for _, value in plain.entries())
    if size > LIMIT:
        yield data.wrong(f"{size} bytes in all and {LIMIT} are allowed")
    kind = obj.at("type").text("Opaque")
    for key in REQUIRED_KEYS.get(kind, ()):
        if data.at(key).value is None and plain.at(key).value is None:
            yield data.at(key).wrong(f"is required in a Secret of type {kind}; add it")
