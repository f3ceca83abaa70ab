"""What Ingresses ask for by annotations, in the dialects of controllers, as ``plane.policies.Asked``. Pure.

Law: an annotation is acted on, or refused, or named in a warning; none is ignored in silence. It is read for the
Ingresses of classes whose controller speaks the dialect: that of ingress-nginx also for our own class and for none.
Traefik and Kong read some on the Services that their Ingresses lead to.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

from plane.dialects import kong, nginx, traefik
from plane.dialects.values import Unfit
from plane.dialects.vocabulary import NOT_YET, Remark, Vocabulary
from plane.ingressclass import KONG, NGINX, OWN, TRAEFIK, controller_of, served
from plane.matching import expression_of, is_expression, slot_of
from plane.model import Name, Object, Service, Snapshot
from plane.policies import NOTHING, Asked, Policies
from plane.regex import groups_of, why_not

__all__ = ["DIALECTS", "NOT_YET", "Remark"]

# Prefixes of the annotations by which ingress controllers are told what the Ingress API has no field for.
DIALECTS = (
    nginx.PREFIX,
    traefik.PREFIX,
    kong.PREFIX,
    "haproxy.org/",
    "haproxy-ingress.github.io/",
)
ON_INGRESSES = {TRAEFIK: traefik.INGRESS, KONG: kong.INGRESS}
ON_SERVICES = {TRAEFIK: traefik.SERVICE, KONG: kong.SERVICE}
# What Ingresses without annotations of their dialect ask for.
_UNASKED = {TRAEFIK: traefik.asked({}), KONG: kong.asked({})}


def asked(ingress: Object, snapshot: Snapshot) -> Asked:
    """What an Ingress asks for. What is unfit was refused already, or is of a dump that is only read: it is let out."""
    controller = controller_of(ingress, snapshot)
    annotations = _annotations(ingress)
    if controller in ON_INGRESSES:
        if not any(name.startswith(ON_INGRESSES[controller].prefix) for name in annotations):
            return _UNASKED[controller]
        return traefik.asked(annotations) if controller == TRAEFIK else kong.asked(annotations)
    if controller not in (NGINX, OWN, ""):
        return NOTHING
    if not any(name.startswith(nginx.PREFIX) for name in annotations):
        return _UNSAID[controller == NGINX]
    namespace = ingress["metadata"].get("namespace", "default")
    said, _ = nginx.read(annotations)
    return nginx.asked(said, namespace, ingress["metadata"]["name"], defaults=controller == NGINX)


# What Ingresses without annotations ask for: of our own class or none, and of that of ingress-nginx.
_UNSAID = tuple(nginx.asked({}, "", "", defaults=defaults) for defaults in (False, True))


def settled(policies: Policies, asked: Asked, path: Object, snapshot: Snapshot, ingress: Object) -> Policies:
    """The policies of a path, or of a default backend, with what its Ingress's manner makes of it and its Service."""
    namespace = ingress["metadata"].get("namespace", "default")
    backend = (path.get("backend") or {}).get("service") or {}
    service = snapshot.get("Service", namespace, backend.get("name", ""))
    annotations = _annotations(service) if service else {}
    if asked.manner == traefik.TRAEFIK:
        said = backend.get("port") or {}
        port = said.get("name") or said.get("number") or ""
        https = service is not None and any(
            each.port == 443 or each.name.startswith("https")
            for each in Service.of(service).ports
            if port in (each.name, each.port)
        )
        named = f"{namespace}-{backend.get('name', '')}-{port}@kubernetes"
        return traefik.settled(policies, annotations, named, https=https)
    return kong.settled(policies, asked, slot_of(path, "", asked) if path.get("pathType") else None, annotations)


def unfit(annotations: Mapping[str, str]) -> Iterator[Unfit]:
    """What no Ingress can ask for: names are whole."""
    _, found = nginx.read(annotations)
    yield from found
    for vocabulary in ON_INGRESSES.values():
        yield from vocabulary.read(annotations)[1]


def unfit_of_service(annotations: Mapping[str, str]) -> Iterator[Unfit]:
    """What no Service can ask for: names are whole."""
    for vocabulary in ON_SERVICES.values():
        yield from vocabulary.read(annotations)[1]


def takes_expressions(annotations: Mapping[str, str]) -> bool:
    """Whether the paths of an Ingress are meant as regular expressions."""
    said, _ = nginx.read(annotations)
    return bool(said.get("use-regex") or said.get("rewrite-target"))


def not_acted_on(ingress: Object, snapshot: Snapshot) -> Iterator[Remark]:
    """Annotations of an Ingress that it is served without."""
    annotations = _annotations(ingress)
    controller = controller_of(ingress, snapshot)
    spoken = (nginx.PREFIX, *(each.prefix for each in ON_INGRESSES.values()))
    for name in sorted(name for name in annotations if name.startswith(DIALECTS) and not name.startswith(spoken)):
        yield Remark(name, NOT_YET)
    for each, vocabulary in ON_INGRESSES.items():
        yield from (
            vocabulary.remarks(annotations) if each == controller else _unread(vocabulary, annotations, controller)
        )
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
        elif name == "backend-protocol" and (what := nginx.PROTOCOLS.get(annotations[full_name].strip().upper())):
            yield Remark(full_name, what)


def _unread(vocabulary: Vocabulary, annotations: Mapping[str, str], controller: str) -> Iterator[Remark]:
    """Of a dialect that the Ingress does not speak."""
    what = f"not acted on, for the class is of controller {controller}"
    if not controller:
        what = f"not acted on, for there is no class of {vocabulary.controller}; write spec.ingressClassName"
    for name in sorted(name for name in annotations if name.startswith(vocabulary.prefix)):
        yield Remark(name, what)


def not_acted_on_of_service(service: Object, controllers: Collection[str]) -> Iterator[Remark]:
    """Annotations of a Service that do nothing; ``controllers`` are those of the Ingresses that lead to it."""
    annotations = _annotations(service)
    spoken = tuple(each.prefix for each in ON_SERVICES.values())
    for name in sorted(name for name in annotations if name.startswith(DIALECTS) and not name.startswith(spoken)):
        yield Remark(name, NOT_YET)
    for controller, vocabulary in ON_SERVICES.items():
        if controller in controllers:
            yield from vocabulary.remarks(annotations)
            continue
        for name in sorted(name for name in annotations if name.startswith(vocabulary.prefix)):
            yield Remark(name, f"not acted on, for no Ingress of {vocabulary.controller}'s class leads to this Service")


def controllers_of_services(snapshot: Snapshot) -> Mapping[Name, set[str]]:
    """The controllers of the Ingresses that are served, by the Services they lead to."""
    found: defaultdict[Name, set[str]] = defaultdict(set)
    for ingress in served(snapshot):
        controller, namespace = controller_of(ingress, snapshot), ingress["metadata"].get("namespace", "default")
        for backend in _backends(ingress):
            found[(namespace, (backend.get("service") or {}).get("name", ""))].add(controller)
    return found


def _backends(ingress: Object) -> Iterator[Object]:
    if default := ingress["spec"].get("defaultBackend"):
        yield default
    for rule in ingress["spec"].get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            yield path["backend"]


def expressions(ingress: Object, asked: Asked) -> Iterator[tuple[str, str]]:
    """(field, what) for paths that an Ingress's manner takes for expressions and that cannot be run as such."""
    for number, rule in enumerate(ingress["spec"].get("rules") or ()):
        for index, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            field = f"spec.rules[{number}].http.paths[{index}].path"
            if not is_expression(path, asked):
                continue
            text = expression_of(path, asked)
            if why := why_not(text):
                yield field, f"is meant as a regular expression, but {why}; it takes only what it says literally"
            elif asked.strip and groups_of(text) >= kong.MOST_GROUPS:
                most = kong.MOST_GROUPS - 1
                yield field, f"strip-path cannot count more than {most} groups; requests get 503, write (?:…) for some"


def _annotations(ingress: Object) -> Mapping[str, str]:
    return ingress["metadata"].get("annotations") or {}
