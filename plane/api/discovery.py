"""What the API offers, in the documents that clients read before anything else. Pure; all of it derives from ``KINDS``.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

import platform
from functools import cache

from plane import __version__
from plane.kinds import KINDS, Kind
from plane.model import Object

OWN_GROUP_VERSION = "trafficplane.dev/v1alpha1"
# Made by the plane alone: they can be read, and a Node can be cordoned (``Store``).
READ_ONLY = ("Node", "Event")
CORDONED = "Node"
WITHOUT_STATUS = ("Secret", "ConfigMap", "Event", "EndpointSlice", "IngressClass")
SCALABLE = ("Deployment", "ReplicaSet")
# What `kubectl get all` shows; kinds outside namespaces are left out of it, as in Kubernetes.
IN_ALL = ("Pod", "Service", "Deployment", "ReplicaSet", "Ingress", "EndpointSlice")

READS = ("get", "list", "watch")
CHANGES = ("patch", "update")
WRITES = ("create", "delete", *CHANGES)


def version_info() -> Object:
    """The answer to ``/version``: the release whose schemas objects are checked against, and the plane's version."""
    from kubernetes_validate import utils  # heavy, and loaded anyway once the first object is checked

    major, minor, *_ = utils.latest_version().split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{major}.{minor}.0+trafficplane-{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{platform.machine()}",
    }


def api_versions() -> Object:
    """The answer to ``/api``."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_groups() -> Object:
    """The answer to ``/apis``."""
    names = dict.fromkeys(kind.api_version for kind in KINDS.values() if kind.group)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in names]}


@cache
def groups() -> dict[str, Object]:
    """Group name → the answer to ``/apis/GROUP``."""
    return {row["name"]: {"kind": "APIGroup", "apiVersion": "v1", **row} for row in api_groups()["groups"]}


@cache
def resource_lists() -> dict[str, Object]:
    """Path of a group and version, ``/api/v1`` → its resources."""
    roots = dict.fromkeys((kind.root, kind.api_version) for kind in KINDS.values())
    return {
        root: {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version,
            "resources": [row for kind in KINDS.values() if kind.root == root for row in _resources(kind)],
        }
        for root, api_version in roots
    }


def _group(api_version: str) -> Object:
    name, _, number = api_version.rpartition("/")
    row = {"groupVersion": api_version, "version": number}
    return {"name": name, "versions": [row], "preferredVersion": row}


def _resources(kind: Kind) -> list[Object]:
    writes = CHANGES if kind.kind == CORDONED else () if kind.kind in READ_ONLY else WRITES
    verbs = [*READS, *writes]
    main: Object = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(verbs),
    }
    if kind.short:
        main["shortNames"] = list(kind.short)
    if kind.kind in IN_ALL:
        main["categories"] = ["all"]
    rows = [main]
    if kind.kind not in WITHOUT_STATUS:
        status = {"name": f"{kind.plural}/status", "kind": kind.kind, "verbs": ["get", "patch", "update"]}
        rows.append({**status, "singularName": "", "namespaced": kind.namespaced})
    if kind.kind in SCALABLE:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"]}
        rows.append({"name": f"{kind.plural}/scale", "singularName": "", "namespaced": kind.namespaced, **scale})
    return rows


def openapi_index() -> Object:
    """The answer to ``/openapi/v3``: where the document of each group and version is."""
    return {"paths": {root[1:]: {"serverRelativeURL": f"/openapi/v3{root}"} for root in resource_lists()}}


@cache
def openapi_documents() -> dict[str, Object]:
    """Path below ``/openapi/v3`` → a document that says one thing: the server checks fields itself.

    It is what kubectl looks for before it sends an object; without it, it wants to be told ``--validate=false``.
    """
    check = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    documents: dict[str, Object] = {}
    for root in resource_lists():
        paths = {
            kind.path("{namespace}", "{name}"): {
                "patch": {
                    "parameters": [check],
                    "responses": {"200": {"description": "OK"}},
                    "x-kubernetes-group-version-kind": {
                        "group": kind.group,
                        "version": kind.version,
                        "kind": kind.kind,
                    },
                }
            }
            for kind in KINDS.values()
            if kind.root == root
        }
        info = {"title": "Trafficplane", "version": __version__}
        documents[root] = {"openapi": "3.0.0", "info": info, "paths": paths}
    return documents
