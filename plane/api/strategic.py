"""Strategic merge patch: what ``kubectl apply``, ``edit`` and ``patch`` send for the kinds built into Kubernetes. Pure.

Maps are merged as in a JSON merge patch; lists that have a merge key are merged element by element, all others are
replaced whole. The directives (``$patch``, ``$retainKeys``, ``$setElementOrder/…``, ``$deleteFromPrimitiveList/…``)
are those of https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from typing import Any

CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
# (field that holds it, list) → the key its elements are told apart by; empty where the elements are plain values.
MERGE_KEYS: dict[tuple[str, str], str] = {
    ("metadata", "finalizers"): "",
    ("metadata", "ownerReferences"): "uid",
    ("spec", "ports"): "port",
    ("spec", "volumes"): "name",
    ("spec", "imagePullSecrets"): "name",
    ("spec", "hostAliases"): "ip",
    ("spec", "topologySpreadConstraints"): "topologyKey",
    ("status", "conditions"): "type",
    ("status", "addresses"): "type",
    ("status", "podIPs"): "ip",
    **{("spec", name): "name" for name in CONTAINERS},
    **{(name, "ports"): "containerPort" for name in CONTAINERS},
    **{(name, "env"): "name" for name in CONTAINERS},
    **{(name, "volumeMounts"): "mountPath" for name in CONTAINERS},
    **{(name, "volumeDevices"): "devicePath" for name in CONTAINERS},
}
ORDER, REMOVAL = "$setElementOrder/", "$deleteFromPrimitiveList/"


class PatchError(ValueError):
    """A patch that makes no sense: HTTP 400."""


def strategic_merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The target with a strategic merge patch applied; the target is left as it is. Raises PatchError."""
    return _map(target, patch, "")


def _map(target: dict[str, Any], patch: dict[str, Any], field: str) -> dict[str, Any]:
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive not in (None, "merge"):
        raise PatchError(f"$patch: {directive!r} is none of delete, merge, replace")
    result = dict(target)
    if "$retainKeys" in patch:
        retained = _items(patch, "$retainKeys")
        result = {name: value for name, value in target.items() if name in retained}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            before = result.get(name)
            result[name] = _map(before if isinstance(before, dict) else {}, value, name)
        elif isinstance(value, list) and (field, name) in MERGE_KEYS:
            before = result.get(name)
            result[name] = _list(before if isinstance(before, list) else [], value, name, MERGE_KEYS[field, name])
        else:
            result[name] = value
    for name in patch:
        if name.startswith(REMOVAL):
            listed, removed = name.removeprefix(REMOVAL), _items(patch, name)
            result[listed] = [row for row in result.get(listed) or () if row not in removed]
    for name in patch:
        listed = name.removeprefix(ORDER)
        if listed != name and isinstance(result.get(listed), list):
            key = MERGE_KEYS.get((field, listed), "")
            result[listed] = _ordered(result[listed], _items(patch, name), key)
    return result


def _items(patch: dict[str, Any], directive: str) -> list[Any]:
    if not isinstance(patch[directive], list):
        raise PatchError(f"{directive} takes a list")
    return list(patch[directive])


def _list(target: list[Any], patch: list[Any], field: str, key: str) -> list[Any]:
    if not key:
        return [*target, *(row for row in patch if row not in target)]
    for row in patch:
        if not isinstance(row, dict) or (not isinstance(row.get(key), str | int) and row.get("$patch") != "replace"):
            raise PatchError(f"an element of {field} has no {key}, by which such lists are merged")
    if any(row.get("$patch") == "replace" for row in patch):
        return [row for row in patch if "$patch" not in row]
    rows = list(target)
    for row in patch:
        # Ports of one number and two protocols share the key: the one that the patch does not contradict is meant.
        alike = [place for place, there in enumerate(rows) if there.get(key) == row[key]]
        agreed = [place for place in alike if rows[place].get("protocol", "TCP") == row.get("protocol", "TCP")]
        meant = agreed if "protocol" in row else agreed or alike
        if row.get("$patch") == "delete":
            rows = [there for place, there in enumerate(rows) if place not in meant]
        elif meant:
            rows[meant[0]] = _map(rows[meant[0]], row, field)
        else:
            rows.append(_map({}, row, field))
    return rows


def _ordered(rows: list[Any], order: list[Any], key: str) -> list[Any]:
    """Elements in the order that the patch asks for, those it does not name after them."""
    names = [row.get(key) if key and isinstance(row, dict) else row for row in order]

    def place(row: Any) -> int:
        name = row.get(key) if key else row
        return names.index(name) if name in names else len(names)

    return sorted(rows, key=place)
