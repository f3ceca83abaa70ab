"""What Ingresses ask for by annotations, in the dialects of controllers, as ``plane.policies.Asked``. Pure.

Law: an annotation is acted on, or refused, or named in a warning; none is ignored in silence. It is read for the
Ingresses of classes whose controller speaks the dialect: that of ingress-nginx also for our own class and for none.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple

from plane.dialects import nginx
from plane.dialects.values import Unfit
from plane.ingressclass import NGINX, OWN, controller_of
from plane.model import Object, Snapshot
from plane.policies import NOTHING, Asked

# Prefixes of the annotations by which ingress controllers are told what the Ingress API has no field for.
DIALECTS = (
    nginx.PREFIX,
    "traefik.ingress.kubernetes.io/",
    "konghq.com/",
    "haproxy.org/",
    "haproxy-ingress.github.io/",
)


NOT_YET = "not acted on yet"


class Remark(NamedTuple):
    """Something to say of an annotation, by its whole name."""

    annotation: str
    what: str


def asked(ingress: Object, snapshot: Snapshot) -> Asked:
    """What an Ingress asks for. What is unfit was refused already, or is of a dump that is only read: it is let out."""
    controller = controller_of(ingress, snapshot)
    if controller not in (NGINX, OWN, ""):
        return NOTHING
    annotations = _annotations(ingress)
    if not any(name.startswith(nginx.PREFIX) for name in annotations):
        return _UNSAID[controller == NGINX]
    namespace = ingress["metadata"].get("namespace", "default")
    said, _ = nginx.read(annotations)
    return nginx.asked(said, namespace, ingress["metadata"]["name"], defaults=controller == NGINX)


# What Ingresses without annotations ask for: of our own class or none, and of that of ingress-nginx.
_UNSAID = tuple(nginx.asked({}, "", "", defaults=defaults) for defaults in (False, True))


def unfit(annotations: Mapping[str, str]) -> Iterator[Unfit]:
    """What no Ingress can ask for: names are whole."""
    _, found = nginx.read(annotations)
    yield from found


def takes_expressions(annotations: Mapping[str, str]) -> bool:
    """Whether the paths of an Ingress are meant as regular expressions."""
    said, _ = nginx.read(annotations)
    return bool(said.get("use-regex") or said.get("rewrite-target"))


def not_acted_on(ingress: Object, snapshot: Snapshot) -> Iterator[Remark]:
    """Annotations of an Ingress that it is served without."""
    annotations = _annotations(ingress)
    controller = controller_of(ingress, snapshot)
    others = sorted(name for name in annotations if name.startswith(DIALECTS) and not name.startswith(nginx.PREFIX))
    for name in others:
        yield Remark(name, NOT_YET)
    for full_name in sorted(name for name in annotations if name.startswith(nginx.PREFIX)):
        name = full_name.removeprefix(nginx.PREFIX)
        if name not in nginx.KNOWN:
            close = get_close_matches(name, nginx.KNOWN, n=1, cutoff=0.75)
            hint = f"; did you mean {nginx.PREFIX}{close[0]}?" if close else ""
            yield Remark(full_name, f"ingress-nginx has no such annotation{hint}")
        elif controller not in (NGINX, OWN, ""):
            yield Remark(full_name, f"not acted on, for the class is of controller {controller}")
        elif name == nginx.guarded_by(annotations):
            yield Remark(full_name, f"{NOT_YET}, so that nobody is let in: every request gets 503")
        elif name in nginx.NOT_YET and annotations[full_name] not in nginx.SO_ANYWAY.get(name, ()):
            yield Remark(full_name, NOT_YET + nginx.NOT_YET[name])


def _annotations(ingress: Object) -> Mapping[str, str]:
    return ingress["metadata"].get("annotations") or {}
