"""docs/services.md has every field that Kubernetes has for Services, no other, and tests that there are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_validate import utils

from plane.kinds import KINDS
from plane.validation.schema import validator
from tests.plane.tables import names, rows

TESTS = Path(__file__).parents[1]
VERSION = utils.latest_version()
DEFINITIONS = utils.schema_contents(f"kubernetes-json-schema/v{VERSION}-local-strict/_definitions.json", VERSION)[
    "$defs"
]
# Table → kind, what its fields are below, and which of the schema's it must have (none: all).
# Of a pod, those that concern Services; what concerns names alone is dnsPolicy, dnsConfig and hostAliases.
TABLES = {
    "ServiceSpec": ("Service", "spec.", None),
    "ServiceStatus": ("Service", "status.", None),
    "EndpointSlice": ("EndpointSlice", "", None),
    "Of Pods": (
        "Pod",
        "",
        (
            "metadata.labels",
            "metadata.deletionTimestamp",
            "spec.hostname",
            "spec.subdomain",
            "spec.setHostnameAsFQDN",
            "spec.hostnameOverride",
            "spec.hostNetwork",
            "spec.enableServiceLinks",
            "spec.containers[].ports",
            "spec.containers[].readinessProbe",
            "spec.readinessGates",
            "spec.terminationGracePeriodSeconds",
            "status.podIP",
            "status.conditions",
        ),
    ),
}
TYPE_META = ("apiVersion", "kind", "metadata")


def leaves(schema: Any, path: str = "") -> Iterator[str]:
    """Paths of all fields that hold no further ones, ``[]`` for the items of a list."""
    for row in (schema, *schema.get("oneOf", ()), *schema.get("anyOf", ())):
        if "$ref" in row:
            schema = DEFINITIONS[row["$ref"].rpartition("/")[2]]
    if schema.get("properties"):
        for name, below in schema["properties"].items():
            yield from leaves(below, f"{path}.{name}" if path else name)
    elif schema.get("items"):
        yield from leaves(schema["items"], f"{path}[]")
    else:
        yield path


def within(field: str, other: str) -> bool:
    """Whether a field is another one or part of it."""
    return field == other or field.startswith((f"{other}.", f"{other}[]"))


def fields_of(heading: str) -> list[str]:
    """The fields that a table names, as paths from the object on: without a value, or the key of a label."""
    below = TABLES[heading][1]
    found = [field for cells in rows("services.md", heading) for field in names(cells[0])]
    return [below + re.sub(r": .*|\[[^\]]+\]$", "", field) for field in found]


@pytest.mark.parametrize("heading", TABLES)
def test_every_field_of_the_schema_has_a_row(heading: str) -> None:
    kind, below, wanted = TABLES[heading]
    there = [field for field in leaves(validator(KINDS[kind]).schema) if field.startswith(below)]
    if wanted is None:
        asked = [field for field in there if not field.startswith(TYPE_META)]
    else:
        asked = [field for field in there if any(within(field, each) for each in wanted)]
    assert len(asked) > len(wanted or ())
    said = fields_of(heading)
    assert [field for field in asked if not any(within(field, each) for each in said)] == []


@pytest.mark.parametrize("heading", TABLES)
def test_every_row_names_fields_of_the_schema(heading: str) -> None:
    there = list(leaves(validator(KINDS[TABLES[heading][0]]).schema))
    assert [each for each in fields_of(heading) if not any(within(field, each) for field in there)] == []


@pytest.mark.parametrize("heading", TABLES)
def test_every_row_names_a_test_that_there_is(heading: str) -> None:
    there = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)
    }
    for field, _, shown_by in rows("services.md", heading):
        named = [name for name in names(shown_by) if name.startswith("test_")]
        assert named, f"{field}: no test"
        assert set(named) <= there, field
