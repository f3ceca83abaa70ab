"""The kinds of Kubernetes object the plane runs: one row each, and everything else derives from these rows.

The schema check, the API's paths, the command line's ``KIND`` argument and the printed tables all read ``KINDS``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind: ``kind`` as in manifests, ``api_version`` as served, names as ``kubectl api-resources`` lists them."""

    kind: str
    api_version: str
    plural: str
    short: tuple[str, ...] = ()
    namespaced: bool = True

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def qualified(self) -> str:
        """``service``, ``deployment.apps``: how kubectl writes the kind before a name."""
        return f"{self.singular}.{self.group}" if self.group else self.singular

    @property
    def group(self) -> str:
        """API group, empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def root(self) -> str:
        """The API path this kind's group hangs from: ``/api/v1`` or ``/apis/GROUP/VERSION``."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str = "") -> str:
        """The API path of a list or of an object; without a namespace, that of all of them."""
        parts = [self.root, *(("namespaces", namespace) if self.namespaced and namespace else ()), self.plural]
        return "/".join([*parts, *([name] if name else [])])


KINDS: dict[str, Kind] = {
    row.kind: row
    for row in (
        Kind("Namespace", "v1", "namespaces", ("ns",), namespaced=False),
        Kind("Node", "v1", "nodes", ("no",), namespaced=False),
        Kind("Pod", "v1", "pods", ("po",)),
        Kind("Service", "v1", "services", ("svc",)),
        Kind("Secret", "v1", "secrets"),
        Kind("ConfigMap", "v1", "configmaps", ("cm",)),
        Kind("Event", "v1", "events", ("ev",)),
        Kind("Deployment", "apps/v1", "deployments", ("deploy",)),
        Kind("ReplicaSet", "apps/v1", "replicasets", ("rs",)),
        Kind("EndpointSlice", "discovery.k8s.io/v1", "endpointslices"),
        Kind("Ingress", "networking.k8s.io/v1", "ingresses", ("ing",)),
        Kind("IngressClass", "networking.k8s.io/v1", "ingressclasses", namespaced=False),
    )
}

ALIASES: dict[str, Kind] = {alias: row for row in KINDS.values() for alias in (row.singular, row.plural, *row.short)}


def by_alias(word: str) -> Kind | None:
    """The kind a person means by ``svc``, ``Services`` or ``service``; None where it is no kind of ours."""
    return ALIASES.get(word.lower())
