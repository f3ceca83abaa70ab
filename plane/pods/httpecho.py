"""hashicorp/http-echo: one text on every path (https://github.com/hashicorp/http-echo)."""

from aiohttp import web

from plane.pods.answer import TEXT, Answer, routed
from plane.pods.flags import Flags
from plane.pods.server import HttpServer, Workload
from plane.pods.spec import ContainerSpec, StartError

PROGRAM = "http-echo"
MARKUP = ("<!doctype html", "<html", "<head", "<body", "<h1", "<p>", "<div", "<title", "<!--")


def workload(spec: ContainerSpec) -> Workload:
    """Raises StartError where there is no text, or for a flag that is wrong."""
    known = {"text": "", "listen": ":5678", "status-code": "200"}
    flags = Flags(PROGRAM, spec.arguments(PROGRAM), known)
    text = flags.text("text") or spec.env().get("ECHO_TEXT", "")
    if not text:
        raise StartError(
            "CrashLoopBackOff", "http-echo: there is no text; add the argument -text=… or the env ECHO_TEXT"
        )
    status = flags.integer("status-code")
    if not 200 <= status < 600:
        raise StartError("RunContainerError", f"http-echo: -status-code {status} is no status code, choose 200 to 599")
    port = flags.text("listen").rpartition(":")[2]
    if not port.isdecimal() or not 0 < int(port) < 65536:
        what = f'http-echo: -listen "{flags.text("listen")}" has no port; write it as :5678'
        raise StartError("RunContainerError", what)
    headers = {"X-App-Name": PROGRAM}
    # Go tells the content type from the first bytes.
    content_type = "text/html; charset=utf-8" if text.lstrip().lower().startswith(MARKUP) else TEXT

    async def say(request: web.BaseRequest) -> web.StreamResponse:
        return Answer(f"{text}\n", status, content_type, headers)

    async def health(request: web.BaseRequest) -> web.StreamResponse:
        return Answer('{"status":"ok"}\n', headers=headers)

    return Workload([HttpServer(spec.listen(int(port)), routed({"/health": health}, say))])
