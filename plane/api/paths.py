"""Paths of the API: which objects a URL is about. Pure.

``/api/v1/…`` for the core group, ``/apis/GROUP/VERSION/…`` for the others, each followed by
``[namespaces/NAMESPACE/]PLURAL[/NAME[/SUBRESOURCE]]``.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from plane.kinds import KINDS, Kind
from plane.model import Key

BY_PATH: dict[tuple[str, str], Kind] = {(kind.root, kind.plural): kind for kind in KINDS.values()}
ROOTS = tuple(dict.fromkeys(kind.root for kind in KINDS.values()))


@dataclass(frozen=True)
class Target:
    """What a request is about; ``namespace`` None means all of them, or that the kind has none."""

    kind: Kind
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        return Key(self.kind.kind, self.namespace or "", self.name)


def target_of(path: str) -> Target | None:
    """The target of a raw (still percent-encoded) path, None where it is no resource of ours."""
    root = next((root for root in ROOTS if path.startswith(f"{root}/")), None)
    if root is None:
        return None
    parts = [unquote(part) for part in path[len(root) + 1 :].split("/")]
    namespace = None
    # /namespaces/NAME alone, and with /status behind it, is about the Namespace itself.
    if len(parts) > 2 and parts[0] == "namespaces" and (root, parts[2]) in BY_PATH:
        namespace, parts = parts[1], parts[2:]
    kind = BY_PATH.get((root, parts[0]))
    if kind is None or len(parts) > 3 or not all(parts) or namespace == "":
        return None
    if kind.namespaced == (namespace is None) and (namespace is not None or len(parts) > 1):
        return None
    return Target(kind, namespace, *parts[1:])
