"""Which Ingresses the plane serves, by their class. Pure.

Law: the annotation ``kubernetes.io/ingress.class`` counts before ``spec.ingressClassName``, and the default class is
that of an Ingress which names none. Where a Snapshot holds no IngressClass at all every Ingress is served, whatever it
names, because manifests are rarely kept together with their cluster's classes.
https://kubernetes.io/docs/concepts/services-networking/ingress/#ingress-class
"""

from plane.model import Object, Snapshot

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
OWN_CLASS = "trafficplane"
OWN = "trafficplane.dev/ingress"
NGINX = "k8s.io/ingress-nginx"
TRAEFIK = "traefik.io/ingress-controller"
KONG = "ingress-controllers.konghq.com/kong"
# ``spec.controller`` of the classes that the plane serves, its own and those of the controllers it stands in for, by
# the name that such a class has where nobody has chosen another.
CONTROLLERS = {
    OWN_CLASS: OWN,
    "nginx": NGINX,
    "traefik": TRAEFIK,
    "kong": KONG,
}


def served(snapshot: Snapshot) -> list[Object]:
    """The Ingresses that the plane serves, the one that wins first: oldest first, then by namespace and name."""
    rows = [obj for obj in snapshot.all("Ingress") if not unserved_because(obj, snapshot)]
    return sorted(rows, key=winning)


def winning(ingress: Object) -> tuple[str, str, str]:
    """What Ingresses that say the same are sorted by: the first wins."""
    metadata = ingress["metadata"]
    return metadata.get("creationTimestamp") or "", metadata.get("namespace", ""), metadata["name"]


def unserved_because(ingress: Object, snapshot: Snapshot) -> str:
    """Why the plane does not serve an Ingress; empty where it does."""
    classes = _classes(snapshot)
    name = class_of(ingress)
    if not classes or name == OWN_CLASS:
        return ""
    if not name:
        defaults = _defaults(classes)
        if len(defaults) != 1:
            there = f"{len(defaults)} are the default: {', '.join(defaults)}" if defaults else "none is the default"
            return f"it names no class, and of the {len(classes)} IngressClass objects {there}"
        name = defaults[0]
    if name not in classes:
        return f'there is no IngressClass "{name}"'
    controller = (classes[name].get("spec") or {}).get("controller", "")
    if controller not in CONTROLLERS.values():
        return f'class "{name}" is of controller {controller}, which this plane does not stand in for'
    return ""


def controller_of(ingress: Object, snapshot: Snapshot) -> str:
    """The controller of an Ingress's class, whose ways it is served in; empty where there is no such class."""
    classes, name = _classes(snapshot), class_of(ingress)
    if not classes or name == OWN_CLASS:
        return CONTROLLERS.get(name, "")
    if not name and len(defaults := _defaults(classes)) == 1:
        name = defaults[0]
    return (classes.get(name, {}).get("spec") or {}).get("controller", "")


def class_of(ingress: Object) -> str:
    """The class that an Ingress names, empty where it names none."""
    return _annotations(ingress).get(CLASS_ANNOTATION) or ingress["spec"].get("ingressClassName") or ""


def _classes(snapshot: Snapshot) -> dict[str, Object]:
    return {obj["metadata"]["name"]: obj for obj in snapshot.all("IngressClass")}


def _defaults(classes: dict[str, Object]) -> list[str]:
    return [name for name, obj in classes.items() if _annotations(obj).get(DEFAULT_ANNOTATION) == "true"]


def _annotations(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}
