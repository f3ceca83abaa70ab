"""A client of the plane's API: a few Kubernetes verbs over one kept-alive TLS connection.

Law: nothing but the standard library, because every command of ``plane`` starts by importing this. What the server
refuses comes back as the exception that the store raised on the other side.
"""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode, urlsplit

from plane.errors import ConflictError, ManifestError, NotFoundError, PlaneError, Problem
from plane.kinds import KINDS, Kind
from plane.kubeconfig import Access
from plane.model import Key, Object, Snapshot

TIMEOUT_S = 60.0  # a List of thousands of objects takes seconds to check
OWN_ROOT = "/apis/trafficplane.dev/v1alpha1"
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


class StatusError(PlaneError):
    """The API refused a request for a reason that is none of the store's: a bad request, a token that is not right."""

    def __init__(self, code: int, reason: str, message: str):
        self.code = code
        self.reason = reason
        super().__init__(message)


class Applied(NamedTuple):
    """What ``apply`` did: (verb, key) for each object, warnings, and the generation that carries it all."""

    results: list[tuple[str, Key]]
    warnings: list[str]
    generation: int


class Client:
    """Use as a context manager. Raises PlaneError where no plane answers."""

    def __init__(self, access: Access):
        parts = urlsplit(access.server)
        if not parts.hostname:
            raise PlaneError(f"the kubeconfig file's server {access.server!r} is no URL")
        context = ssl.create_default_context(cadata=access.ca_pem)
        self.namespace = access.namespace
        self._headers = {"Authorization": f"Bearer {access.token}", "Accept": JSON}
        self._server = access.server
        self._connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=TIMEOUT_S, context=context
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, key: Key) -> Object:
        """Raises NotFoundError."""
        return self._ask("GET", _path(key))

    def list(self, kind: Kind, namespace: str | None = None, selector: str = "") -> tuple[list[Object], str]:
        """The objects of a kind, and the resourceVersion from which to watch; ``namespace`` None means all."""
        found = self._ask("GET", quote(kind.path(namespace)), query={"labelSelector": selector} if selector else {})
        return found["items"], found["metadata"]["resourceVersion"]

    def snapshot(self, kinds: Sequence[str]) -> Snapshot:
        """All objects of some kinds, as one value."""
        return Snapshot().changed(obj for kind in kinds for obj in self.list(KINDS[kind])[0])

    def delete(self, key: Key, grace_s: int | None = None) -> Object:
        """What is left of the object, or a Status that it is gone. Raises NotFoundError."""
        options = {} if grace_s is None else {"gracePeriodSeconds": grace_s}
        return self._ask("DELETE", _path(key), body=options)

    def scale(self, key: Key, replicas: int) -> Object:
        """The Scale object after the change. Raises NotFoundError."""
        place = _path(key) + "/scale"
        return self._ask("PATCH", place, body={"spec": {"replicas": replicas}}, content_type=MERGE_PATCH)

    def patch(self, key: Key, changes: Object) -> Object:
        """The object after a JSON merge patch. Raises NotFoundError, ManifestError."""
        return self._ask("PATCH", _path(key), body=changes, content_type=MERGE_PATCH)

    def apply(self, objects: Sequence[Object], *, dry_run: bool = False) -> Applied:
        """All of the objects or none. Raises ManifestError with every problem."""
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        query = {"dryRun": "All"} if dry_run else {}
        done = self._ask("POST", f"{OWN_ROOT}/apply", query=query, body=body)
        results = [(row["verb"], Key(row["kind"], row["namespace"], row["name"])) for row in done["items"]]
        return Applied(results, done["warnings"], done["generation"])

    def connections(self) -> Sequence[Object]:
        """The connections through Services that are open, oldest first."""
        items: Sequence[Object] = self._ask("GET", f"{OWN_ROOT}/connections")["items"]
        return items

    def wait(self, generation: int, timeout_s: float = 30.0) -> None:
        """Returns once traffic goes by that generation everywhere. Raises StatusError 504 where that takes too long."""
        query = {"generation": str(generation), "timeoutSeconds": f"{timeout_s:g}"}
        self._ask("GET", f"{OWN_ROOT}/wait", query=query, timeout_s=timeout_s + TIMEOUT_S)

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        since: str = "",
        selector: str = "",
        name: str = "",
        timeout_s: float | None = None,
    ) -> Iterator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED, object) as it happens, until the plane stops or ``timeout_s`` is over.

        Takes the connection until it ends. Raises StatusError 410 where ``since`` is too old.
        """
        query = {"watch": "1", "resourceVersion": since, "labelSelector": selector}
        query |= {"fieldSelector": f"metadata.name={name}"} if name else {}
        query |= {"timeoutSeconds": str(max(1, round(timeout_s)))} if timeout_s is not None else {}
        try:
            with self._answer("GET", quote(kind.path(namespace)), query=query, timeout_s=None) as response:
                while line := response.readline():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise StatusError(status["code"], status["reason"], status["message"])
                    yield event["type"], event["object"]
        finally:
            self._connection.close()  # what was not read would be taken for the next answer

    def _ask(
        self,
        method: str,
        place: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        timeout_s: float | None = TIMEOUT_S,
    ) -> Any:
        options = {"query": query or {}, "body": body, "content_type": content_type, "timeout_s": timeout_s}
        with self._answer(method, place, **options) as response:
            return json.load(response)

    @contextmanager
    def _answer(
        self,
        method: str,
        place: str,
        *,
        query: Mapping[str, str],
        body: Any = None,
        content_type: str = JSON,
        timeout_s: float | None,
    ) -> Iterator[http.client.HTTPResponse]:
        """The response to a request that was granted."""
        given = {name: value for name, value in query.items() if value}
        target = f"{place}?{urlencode(given)}" if given else place
        raw = None if body is None else json.dumps(body).encode()
        headers = self._headers if raw is None else {**self._headers, "Content-Type": content_type}
        try:
            if self._connection.sock is None:
                self._connection.connect()
            assert self._connection.sock is not None
            self._connection.sock.settimeout(timeout_s)
            self._connection.request(method, target, raw, headers)
            with self._connection.getresponse() as response:
                if response.status >= 400:
                    raise _refusal(response)
                yield response
        except ssl.SSLError as error:
            self._connection.close()
            raise PlaneError(
                f"{self._server} is not the plane that the kubeconfig file is for: {error.reason}"
            ) from error
        except TimeoutError as error:
            self._connection.close()
            limit_s = timeout_s or TIMEOUT_S
            raise PlaneError(f"the plane at {self._server} does not answer within {limit_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise PlaneError(
                f"no plane answers at {self._server} ({error}); start one with: plane up -f PATH"
            ) from error


def _path(key: Key) -> str:
    return KINDS[key.kind].path(quote(key.namespace, safe=""), quote(key.name, safe=""))


def _refusal(response: http.client.HTTPResponse) -> Exception:
    """The exception that a failure's Status stands for."""
    try:
        status = json.load(response)
        code, reason, message = status["code"], status["reason"], status["message"]
    except (ValueError, KeyError, TypeError):
        return PlaneError(f"what answers is no plane: HTTP {response.status}")
    match code:
        case 404 if (status.get("details") or {}).get("name"):
            return NotFoundError(message)
        case 409:
            return ConflictError(message)
        case 422:
            causes = (status.get("details") or {}).get("causes") or []
            rows = [Problem("", 0, row.get("object", ""), row["field"], row["message"]) for row in causes]
            return ManifestError(rows or [Problem("", 0, "", "", message)])
    return StatusError(code, reason, message)
