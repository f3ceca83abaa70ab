"""Lists as ``Table`` objects, for clients that let the server choose the columns, as kubectl does. Pure.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from collections.abc import Iterable

from plane.columns import columns_of, utc_now
from plane.model import Object

GROUP = "meta.k8s.io"


def wanted(accept: str) -> bool:
    """Whether an Accept header asks for a Table before it asks for plain JSON."""
    for clause in accept.split(","):
        kind, *parameters = (part.strip() for part in clause.split(";"))
        if kind not in ("application/json", "*/*"):
            continue
        given = dict(part.partition("=")[::2] for part in parameters)
        if "as" not in given:
            return False
        if given["as"] == "Table" and given.get("g") == GROUP and given.get("v") == "v1":
            return True
    return False


def table(kind: str, objects: Iterable[Object], resource_version: str, include: str = "Metadata") -> Object:
    """The objects as rows; ``include`` says how much of each object a row carries: None, Metadata or Object."""
    columns, now = columns_of(kind), utc_now()
    rows = [{"cells": [column.cell(obj, now) for column in columns], **_carried(obj, include)} for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": f"{GROUP}/v1",
        "metadata": {"resourceVersion": resource_version},
        "columnDefinitions": [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": "",
                "priority": int(column.wide),
            }
            for column in columns
        ],
        "rows": rows,
    }


def _carried(obj: Object, include: str) -> Object:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": obj}
    return {"object": {"kind": "PartialObjectMetadata", "apiVersion": f"{GROUP}/v1", "metadata": obj["metadata"]}}
