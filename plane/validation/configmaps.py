"""ConfigMaps (``ValidateConfigMap`` in ``k8s.io/kubernetes/pkg/apis/core/validation``)."""

import base64
import binascii
from collections.abc import Iterator

from plane.validation import names
from plane.validation.findings import Finding, Place, shown

LIMIT = 1024 * 1024


def config_map(obj: Place) -> Iterator[Finding]:
    data, binary = obj.at("data"), obj.at("binaryData")
    size = sum(len(value.text().encode()) for _, value in data.entries())
    for key, value in (*data.entries(), *binary.entries()):
        if len(key) > 253 or not names.CONFIG_KEY.match(key) or key in (".", ".."):
            yield value.wrong(f'the key: {shown(key)} is not allowed; write letters, digits, "-", "_" and "."')
    for key, value in binary.entries():
        if data.at(key).given:
            yield value.wrong("is a key of data too; take one of them out")
        try:
            size += len(base64.b64decode(value.text(), validate=True))
        except (binascii.Error, ValueError):
            yield value.wrong("is no base64; encode it, or write text under data")
    if size > LIMIT:
        yield data.wrong(f"{size} bytes in all and {LIMIT} are allowed")
