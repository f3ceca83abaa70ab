"""The API server: HTTPS on loopback, a token at the door, Kubernetes' own paths behind it.

Law: nothing is looked at before the token. Every answer, also to what is malformed, is JSON; every failure is a
``Status``. What a request asks for is done in one go between two steps of the loop, and what it wrote is on its way
before warnings about it are looked for; only a watch and ``wait`` last longer.
"""

import asyncio
import hmac
import json
import ssl
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import trustme
from aiohttp import web

from plane.api import discovery, own, resources, status, warning, watching
from plane.api.paths import target_of
from plane.api.resources import Request
from plane.api.status import RequestError
from plane.errors import ConflictError, ForbiddenError, ManifestError, NotFoundError, PlaneError
from plane.model import Key, Object, key_of
from plane.store import Store

MAX_BODY_BYTES = 3 * 2**20  # as much as an API server takes
MAX_APPLY_BYTES = 64 * 2**20  # a folder of manifests comes as one List
CHUNK_BYTES = 2**16
MAX_WATCH_S = 1800.0
SHUTDOWN_S = 1.0
HEALTH = ("/healthz", "/livez", "/readyz")
ADVISED = ("POST", "PUT", "PATCH")  # whoever asks for these is told the warnings about what came of it
PATCH_TYPES = (resources.MERGE_PATCH, resources.STRATEGIC_PATCH)


class Api:
    """Serves a Store; ``url`` and ``ca_pem`` are what a kubeconfig file needs, once started.

    ``wait(generation)`` returns once that generation is acknowledged everywhere, ``advise`` gives warnings,
    ``connections()`` those that are open.
    """

    def __init__(
        self,
        store: Store,
        *,
        token: str,
        wait: Callable[[int], Awaitable[None]],
        advise: own.Advise,
        connections: Callable[[], Awaitable[list[Object]]],
    ):
        self.url = ""
        self.ca_pem = ""
        self._store = store
        self._credentials = f"Bearer {token}".encode()
        self._wait = wait
        self._advise = advise
        self._connections = connections
        self._runner: web.AppRunner | None = None
        self._watches: set[asyncio.Task[Any]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listens, with a certificate of a CA made for this run, and returns the URL. Raises PlaneError."""
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes().decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host, "localhost").configure_cert(context)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        site = web.TCPSite(runner, host, port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise PlaneError(f"the API cannot listen on {host}:{port}: {error.strerror}") from error
        self._runner = runner
        self.url = f"https://{host}:{runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        """Ends watches, then all connections."""
        if self._runner is None:
            return
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await self._runner.cleanup()
        self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """Any request: its answer, or the Status of what it failed with."""
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, self._credentials):
            response = _json(401, status.failure(401, "Unauthorized"))
            response.headers["WWW-Authenticate"] = "Bearer"
            response.force_close()  # and what it still sends is not read
            return response
        target, body = target_of(request.rel_url.raw_path), None
        try:
            if target is None:
                return await self._document(request)
            body = await _body(request, PATCH_TYPES if request.method == "PATCH" else ())
            asked = Request(
                method=request.method,
                target=target,
                query=request.query,
                body=body,
                content_type=request.content_type,
                accept=request.headers.get("Accept", ""),
            )
            if watching.is_watch(asked):
                return await self._watch(request, asked)
            code, document = resources.answer(self._store, asked)
            response = _json(code, document)
            if request.method in ADVISED and not target.subresource:
                snapshot = self._store.snapshot
                await asyncio.sleep(0)  # for who waits for it
                response.headers.extend(warning.fields(self._advise(snapshot, {key_of(document)})))
            return response
        except Exception as error:
            return _failed(error, resources.subject(target, body) if target else None)

    async def _document(self, request: web.Request) -> web.Response:
        """Paths that are about no object."""
        path, method = request.path.rstrip("/"), request.method
        if path == f"{own.ROOT}/apply" and method == "POST":
            return _json(
                200, own.apply(self._store, await _body(request, limit=MAX_APPLY_BYTES), request.query, self._advise)
            )
        if path == f"{own.ROOT}/connections" and method == "GET":
            items = await self._connections()
            return _json(200, {"apiVersion": own.OWN_GROUP_VERSION, "kind": "ConnectionList", "items": items})
        if path == f"{own.ROOT}/wait" and method == "GET":
            return _json(200, await own.wait(request.query, self._wait))
        if method != "GET":
            raise RequestError(405, f"the server does not allow {method} on {request.path}")
        if path in HEALTH:
            return web.Response(text="ok")
        documents: dict[str, Callable[[], Object]] = {
            "/version": discovery.version_info,
            "/api": discovery.api_versions,
            "/apis": discovery.api_groups,
            "/openapi/v3": discovery.openapi_index,
        }
        if path in documents:
            return _json(200, documents[path]())
        found = (
            discovery.resource_lists().get(path)
            or discovery.groups().get(path.removeprefix("/apis/"))
            or discovery.openapi_documents().get(path.removeprefix("/openapi/v3"))
        )
        if found is None:
            raise RequestError(404, "the server could not find the requested resource", "NotFound")
        return _json(200, found)

    async def _watch(self, request: web.Request, asked: Request) -> web.StreamResponse:
        """Events as lines of JSON, until the time is up, the client goes, or the plane stops."""
        limit_s, events = _seconds(asked), watching.changes(self._store, asked)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.create_task(_stream(response, events))
        self._watches.add(task)
        try:
            await asyncio.wait({task}, timeout=limit_s)
        finally:
            self._watches.discard(task)
            task.cancel()
            [outcome] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
            traceback.print_exception(outcome)
        await response.write_eof()
        return response


async def _stream(response: web.StreamResponse, events: AsyncGenerator[Object]) -> None:
    async with aclosing(events):
        async for event in events:
            await response.write(json.dumps(event).encode() + b"\n")


async def _body(request: web.Request, types: tuple[str, ...] = (), limit: int = MAX_BODY_BYTES) -> Any:
    """The body as JSON, None where there is none. Raises RequestError."""
    if request.method == "GET":
        return None
    raw = bytearray()
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        raw += chunk
        if len(raw) > limit:
            raise RequestError(413, f"the request is larger than {limit} bytes")
    if not raw:
        return None
    allowed = types or ("application/json", "application/octet-stream")  # the latter is aiohttp's word for no type
    if request.content_type not in allowed:
        raise RequestError(415, f"{request.content_type} is not supported; send {' or '.join(allowed[:2])}")
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def _seconds(asked: Request) -> float:
    text = asked.query.get("timeoutSeconds") or "0"
    if not text.isdecimal():
        raise RequestError(400, f"timeoutSeconds {text!r} is no whole number")
    return min(float(text), MAX_WATCH_S) or MAX_WATCH_S


def _failed(error: Exception, about: Key | None) -> web.Response:
    """The Status of a request that failed; ``about`` is the object it was about, where it was about one."""
    match error:
        case RequestError():
            return _json(error.code, status.failure(error.code, str(error), error.reason))
        case ManifestError():
            return _json(422, status.invalid(error, about))
        case ForbiddenError():
            return _json(403, status.failure(403, str(error), about=about))
        case NotFoundError():
            return _json(404, status.failure(404, str(error), about=about))
        case ConflictError():
            reason = "AlreadyExists" if str(error).endswith("already exists") else "Conflict"
            return _json(409, status.failure(409, str(error), reason, about=about))
        case PlaneError():
            return _json(500, status.failure(500, str(error)))
        case _:
            traceback.print_exception(error)
            return _json(500, status.failure(500, f"the plane made a mistake: {error!r}"))


def _json(code: int, document: Object) -> web.Response:
    return web.Response(body=json.dumps(document).encode(), status=code, content_type="application/json")
