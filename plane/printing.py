"""Objects as text: kubectl's tables, JSON, YAML and names. Pure."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from plane.columns import columns_of
from plane.kinds import KINDS
from plane.model import Key, Object, Snapshot, key_of

FORMATS = ("wide", "yaml", "json", "name")
# What ``all`` stands for, in the order it is shown. Not Secrets (a dump is read by many), nor what is noise in one.
ALL = ("Pod", "Service", "Deployment", "ReplicaSet", "Ingress", "EndpointSlice", "Node")
GAP = 3
LEAST_WIDTH = 6


def as_list(snapshot: Snapshot) -> Object:
    """What ``plane get all -A -o json`` prints, from a Snapshot."""
    return list_of((obj for kind in ALL for obj in snapshot.all(kind)), str(snapshot.generation))


def list_of(objects: Iterable[Object], resource_version: str = "") -> Object:
    """Objects as one ``List``, each with its kind and apiVersion."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "metadata": {"resourceVersion": resource_version},
        "items": list(objects),
    }


def as_json(obj: Object) -> str:
    return json.dumps(obj, indent=4, ensure_ascii=False) + "\n"


def as_yaml(obj: Object) -> str:
    import yaml  # not needed by a table, and half of a command's start

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(obj, Dumper=dumper, sort_keys=True, allow_unicode=True, default_flow_style=False, width=1000)
    return text


def as_names(objects: Iterable[Object]) -> str:
    return "".join(f"{resource_name(key_of(obj))}\n" for obj in objects)


def resource_name(key: Key) -> str:
    """``service/web``, ``deployment.apps/web``: how kubectl names an object."""
    return f"{KINDS[key.kind].qualified}/{key.name}"


class Table:
    """A table of one kind that may grow: rows printed later keep the width of the columns."""

    def __init__(self, kind: str, *, wide: bool = False, namespaces: bool = False, prefix: bool = False):
        """``namespaces`` puts NAMESPACE first, ``prefix`` names objects as ``service/web``."""
        self._columns = [column for column in columns_of(kind) if wide or not column.wide]
        self._namespaces = namespaces and KINDS[kind].namespaced
        self._prefix = prefix
        self._widths: list[int] = []

    def header(self) -> list[str]:
        names = [column.name.upper() for column in self._columns]
        return ["NAMESPACE", *names] if self._namespaces else names

    def row(self, obj: Object, now: datetime) -> list[str]:
        cells = [
            resource_name(key_of(obj)) if self._prefix and column.format == "name" else str(column.cell(obj, now))
            for column in self._columns
        ]
        return [obj["metadata"].get("namespace", ""), *cells] if self._namespaces else cells

    def text(self, objects: Iterable[Object], now: datetime) -> str:
        """Rows for some objects, after the header where it is the first time."""
        rows = [self.row(obj, now) for obj in objects]
        if not self._widths:
            rows.insert(0, self.header())
            self._widths = [0] * len(rows[0])
        self._widths = [max(width, *lengths) for width, *lengths in _lengths(self._widths, rows)]
        return "".join(_line(row, self._widths) for row in rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, without a header."""
    if not rows:
        return ""
    widths = [max(len(cell) + GAP for cell in column) for column in zip(*rows, strict=True)]
    return "".join(_line(row, widths) for row in rows)


def _lengths(widths: list[int], rows: list[list[str]]) -> Iterable[tuple[int, ...]]:
    return zip(widths, *([max(LEAST_WIDTH, len(cell) + GAP) for cell in row] for row in rows), strict=True)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
    return f"{''.join(cells)}{row[-1]}\n"
