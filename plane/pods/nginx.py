"""nginx as its image starts it: the welcome page on port 80, nothing else."""

from aiohttp import web

from plane.pods.answer import HTML, Answer
from plane.pods.server import HttpServer, Workload
from plane.pods.spec import ContainerSpec

PORT = 80
SERVER = {"Server": "nginx"}
WELCOME = """<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body>
<h1>Welcome to nginx!</h1>
<p>Trafficplane answers here in place of the nginx image.</p>
</body>
</html>
"""


def workload(spec: ContainerSpec) -> Workload:
    """``command`` and ``args`` are not looked at: without a file system there is nothing they could configure."""
    return Workload([HttpServer(spec.listen(PORT), handle)])


async def handle(request: web.BaseRequest) -> web.StreamResponse:
    if request.path not in ("/", "/index.html"):
        return _error(404, "Not Found")
    if request.method not in ("GET", "HEAD"):
        return _error(405, "Not Allowed")
    return Answer(WELCOME, content_type=HTML, headers=SERVER)


def _error(status: int, words: str) -> Answer:
    title = f"{status} {words}"
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n"
        f"<body>\r\n<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Answer(page, status, HTML, SERVER)
