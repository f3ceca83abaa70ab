"""Errors as Kubernetes writes them: one ``Status`` object for every way a request can fail. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from collections.abc import Sequence

from plane.errors import ManifestError, Problem
from plane.kinds import KINDS
from plane.model import Key, Object

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    500: "InternalError",
    504: "Timeout",
}


class RequestError(Exception):
    """A request that cannot be served: HTTP status ``code`` and what to tell whoever sent it."""

    def __init__(self, code: int, message: str, reason: str = ""):
        self.code = code
        self.reason = reason or REASONS.get(code, "")
        super().__init__(message)


def failure(
    code: int, message: str, reason: str = "", *, about: Key | None = None, causes: Sequence[Object] = ()
) -> Object:
    """A Status for HTTP ``code``, with the object it is ``about`` and the causes that are known."""
    details: Object = {}
    if about is not None:
        kind = KINDS[about.kind]
        # Of what was not found Kubernetes names the resource, of what is invalid the kind.
        details = {"name": about.name, "group": kind.group, "kind": kind.kind if code == 422 else kind.plural}
    if causes:
        details["causes"] = list(causes)
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason or REASONS.get(code, ""),
        **({"details": details} if details else {}),
        "code": code,
    }


def success(key: Key, uid: str) -> Object:
    """The answer to a deletion after which the object is gone."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": key.name, "group": KINDS[key.kind].group, "kind": KINDS[key.kind].plural, "uid": uid},
    }


def invalid(error: ManifestError, about: Key | None = None) -> Object:
    """422, with a cause for each problem; ``object`` in a cause is ours, for requests about several objects."""
    causes = [
        {"reason": "FieldValueInvalid", "message": row.reason, "field": row.field, "object": row.object}
        for row in error.problems
    ]
    return failure(422, _sentence(error.problems, about), about=about, causes=causes)


def _sentence(problems: Sequence[Problem], key: Key | None) -> str:
    parts = [": ".join(part for part in (row.field, row.reason) if part) for row in problems]
    if key is None:
        parts = [f"{row.object}: {part}" if row.object else part for row, part in zip(problems, parts, strict=True)]
    listing = parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"
    return f'{key.kind} "{key.name}" is invalid: {listing}' if key else listing
