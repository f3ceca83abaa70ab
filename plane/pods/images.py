"""Which workload stands in for which image: the one place where a built-in image is added.

An image is known by its repository, whatever the registry (a mirror serves the same), tag or digest.
"""

from collections.abc import Callable

from plane.pods import agnhost, apps, echo, httpecho, messageecho, nginx, responder, whoami
from plane.pods.behaving import behaving
from plane.pods.server import Workload
from plane.pods.spec import ContainerSpec


def pause(spec: ContainerSpec) -> Workload:
    """registry.k8s.io/pause: runs and listens nowhere."""
    return Workload()


# Repository, or the end of one after a slash → its workload.
WORKLOADS: dict[str, Callable[[ContainerSpec], Workload]] = {
    "e2e-test-images/agnhost": agnhost.workload,
    "traefik/whoami": whoami.workload,
    "hashicorp/http-echo": httpecho.workload,
    "library/nginx": nginx.workload,
    "nginx/nginx": nginx.workload,
    "library/nginx-slim": nginx.workload,
    "ingressconformance/echoserver": echo.workload,
    "k8s-staging-ingressconformance/echoserver": echo.workload,
    "k8s-staging-gateway-api/echo-basic": echo.workload,
    "trafficplane/responder": responder.workload,
    "trafficplane/echo": messageecho.workload,
    "library/pause": pause,
    "google_containers/pause": pause,
}


def known(image: str) -> bool:
    """Whether the plane runs a workload for the image; if not, it runs an echo server in its place."""
    return _workload_of(image) is not None


def workload(spec: ContainerSpec) -> Workload:
    """What runs for a container. Raises StartError where arguments, environment or annotations don't let it start."""
    if spec.app:
        return apps.workload(spec)
    return behaving(spec, (_workload_of(spec.image) or echo.stand_in)(spec))


def repository(image: str) -> str:
    """The repository of an image reference without registry, tag and digest; ``library/…`` for a bare name.

    https://pkg.go.dev/github.com/distribution/reference
    """
    path = image.partition("@")[0]
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest
    *folders, name = path.split("/")
    return "/".join([*(folders or ["library"]), name.partition(":")[0]])


def _workload_of(image: str) -> Callable[[ContainerSpec], Workload] | None:
    path = repository(image)
    return next((start for name, start in WORKLOADS.items() if path == name or path.endswith("/" + name)), None)
