"""Three ways to change a JSON document: by merge patch, by what was last applied, and by what a controller sets."""

from typing import Any


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with a JSON merge patch applied (RFC 7386): null deletes, lists are replaced whole."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def merge_applied(last: Any, wanted: Any, live: Any) -> Any:
    """What ``apply`` makes of a live object: the manifest's fields win, fields it no longer has go, others stay.

    ``last`` is the manifest as applied before (None for the first time), so that a field which someone else set, such
    as a replica count scaled by hand, is kept while a field deleted from the manifest is deleted. Lists are replaced
    whole (https://kubernetes.io/docs/tasks/manage-kubernetes-objects/declarative-config/#merge-patch-calculation).
    """
    if not (isinstance(wanted, dict) and isinstance(live, dict)):
        return wanted
    last = last if isinstance(last, dict) else {}
    result = {name: value for name, value in live.items() if name in wanted or name not in last}
    for name, value in wanted.items():
        result[name] = merge_applied(last.get(name), value, live[name]) if name in live else value
    return result
