"""agnhost, the image of Kubernetes' own end-to-end tests: ``netexec``, ``serve-hostname`` and ``pause``.

Behaviour after https://github.com/kubernetes/kubernetes/tree/master/test/images/agnhost. What would run commands, write
files or end the process is refused with the reason.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from aiohttp import web

from plane.pods import resolving
from plane.pods.answer import Answer, Handler, canonical_headers, form, query, remote_address, routed
from plane.pods.dial import Dialler
from plane.pods.flags import Flags
from plane.pods.server import HttpServer, UdpServer, Workload
from plane.pods.spec import ContainerSpec, StartError

PROGRAM = "agnhost"
STATUS_CODES = range(200, 600)


def workload(spec: ContainerSpec) -> Workload:
    """Raises StartError for a subcommand or a flag that the plane does not run."""
    arguments = spec.arguments(PROGRAM)
    # Without arguments the image's default is to pause.
    command, *rest = arguments or ["pause"]
    if command not in COMMANDS:
        what = f'agnhost: "{command}" is not run by the plane; it runs {", ".join(COMMANDS)}'
        raise StartError("RunContainerError", what)
    return COMMANDS[command](spec, rest)


def netexec(spec: ContainerSpec, arguments: list[str]) -> Workload:
    known = {"http-port": "8080", "udp-port": "8081", "delay-shutdown": "0", "http-override": ""}
    flags = Flags("agnhost netexec", arguments, known)
    handler = netexec_handler(spec)
    if flags.text("http-override"):
        handler = _overridden(handler, flags.text("http-override"))
    servers = [HttpServer(spec.listen(flags.port("http-port")), handler)]
    delay = float(flags.integer("delay-shutdown"))
    if flags.integer("udp-port") == -1:
        return Workload(servers, delay)
    return Workload([*servers, UdpServer(spec.listen(flags.port("udp-port")), udp_reply(spec.hostname))], delay)


def serve_hostname(spec: ContainerSpec, arguments: list[str]) -> Workload:
    known = {"port": "9376", "http": "true", "udp": "false", "close": "false"}
    flags = Flags("agnhost serve-hostname", arguments, known, switches=("http", "udp", "close"))
    listen = spec.listen(flags.port("port"))
    name = spec.hostname.encode()
    if flags.switch("udp"):
        return Workload([UdpServer(listen, lambda data, client: name)])
    close = flags.switch("close")

    async def hostname(request: web.BaseRequest) -> web.StreamResponse:
        answer = Answer(name)
        if close:
            answer.force_close()
        return answer

    return Workload([HttpServer(listen, hostname)] if flags.switch("http") else [])


def pause(spec: ContainerSpec, arguments: list[str]) -> Workload:
    flags = Flags("agnhost pause", arguments, {"delay-shutdown": "0"})
    return Workload((), float(flags.integer("delay-shutdown")))


COMMANDS: dict[str, Callable[[ContainerSpec, list[str]], Workload]] = {
    "netexec": netexec,
    "serve-hostname": serve_hostname,
    "pause": pause,
}


def netexec_handler(spec: ContainerSpec) -> Handler:
    """netexec's HTTP endpoints; any other path answers as ``/`` does."""
    name = spec.hostname.encode()
    started = time.monotonic()

    async def now(request: web.BaseRequest) -> web.StreamResponse:
        return Answer(f"NOW: {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} +0000 UTC m=+{time.monotonic() - started:.9f}")

    async def hostname(request: web.BaseRequest) -> web.StreamResponse:
        return Answer(name)

    table: dict[str, Handler] = {
        "/clientip": _client_ip,
        "/dial": Dialler(spec.ip, resolving.resolver_of(spec)).handle,
        "/echo": _echo,
        "/header": _header,
        "/healthz": _healthz,
        "/hostname": hostname,
        "/hostName": hostname,
        "/redirect": _redirect,
        "/shell": refusal(403, "/shell is refused: a pod is no sandbox here, its commands would run on your machine"),
        "/exit": refusal(501, "/exit is not done: delete the pod to end it"),
        "/shutdown": refusal(501, "/shutdown is not done: delete the pod to end it"),
        "/upload": refusal(501, "/upload is not done: a pod has no file system of its own here"),
    }
    return routed(table, now)


def refusal(status: int, reason: str) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return Answer(reason + "\n", status)

    return handle


def udp_reply(hostname: str) -> Callable[[bytes, str], bytes | None]:
    """netexec's UDP commands, folded to lower case, the message of ``echo`` with them, as the real one does."""
    name = hostname.encode()

    def reply(data: bytes, client: str) -> bytes | None:
        command = data.strip().lower()
        if command == b"hostname":
            return name
        if command == b"clientip":
            return client.encode()
        if command.startswith(b"echo "):
            return command[len(b"echo ") :]
        return None

    return reply


async def _client_ip(request: web.BaseRequest) -> web.StreamResponse:
    return Answer(remote_address(request))


async def _healthz(request: web.BaseRequest) -> web.StreamResponse:
    return Answer()


async def _echo(request: web.BaseRequest) -> web.StreamResponse:
    values = await form(request)
    return _with_code(values.get("code", ""), 200, lambda status: Answer(values.get("msg", ""), status))


async def _header(request: web.BaseRequest) -> web.StreamResponse:
    key = query(request).get("key", "")
    return Answer(request.headers.get(key, "") if key else json.dumps(canonical_headers(request)))


async def _redirect(request: web.BaseRequest) -> web.StreamResponse:
    values = await form(request)
    location = {"Location": values.get("location", "")}
    return _with_code(values.get("code", ""), 302, lambda status: Answer(status=status, headers=location))


def _with_code(code: str, default: int, answer: Callable[[int], Answer]) -> Answer:
    """The answer with the status that the ``code`` parameter asks for."""
    if not code:
        return answer(default)
    if not code.lstrip("+-").isdecimal():
        return Answer(f"argument 'code' must be an integer or empty, got \"{code}\"\n")
    if int(code) not in STATUS_CODES:
        return Answer(f"code {code} is no status that a response can have\n", 400)
    return answer(int(code))


def _overridden(handler: Handler, target: str) -> Handler:
    """The handler as if every request were a GET of ``target``."""
    if not target.startswith("/"):
        what = f'agnhost netexec: --http-override "{target}" is no path, write it as /echo?msg=x'
        raise StartError("RunContainerError", what)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await handler(request.clone(method="GET", rel_url=target))

    return handle
