"""docs/ingress.md has every field of the schema and every annotation that the code knows, and tests that there are."""

import re
from pathlib import Path

import pytest

from plane.dialects import kong, nginx, traefik
from plane.dialects.vocabulary import Vocabulary
from plane.kinds import KINDS
from plane.validation.schema import validator
from tests.ingress import corpus, policies
from tests.ingress import kong as kongs
from tests.ingress import traefik as traefiks
from tests.plane.tables import names
from tests.plane.test_services_docs import TYPE_META, leaves, within

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ingress.md").read_text()
DESCRIPTIONS = {row.description for row in (*corpus.CORPUS, *policies.ROWS, *traefiks.ROWS, *kongs.ROWS)}
# Table → kind, and what its fields are below.
FIELDS = {
    "IngressSpec": ("Ingress", "spec."),
    "IngressStatus": ("Ingress", "status."),
    "IngressClass": ("IngressClass", ""),
}
TESTS = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
SECTIONS = {
    "nginx.ingress.kubernetes.io/ that act": nginx.ACTED_ON,
    "nginx.ingress.kubernetes.io/ that do not act yet": nginx.NOT_YET,
    "nginx.ingress.kubernetes.io/ that need nothing": nginx.NEEDLESS,
    "nginx.ingress.kubernetes.io/ that are refused": nginx.SNIPPETS,
    "traefik.ingress.kubernetes.io/ that act": {**traefik.INGRESS.acted_on, **traefik.SERVICE.acted_on},
    "traefik.ingress.kubernetes.io/ that do not act yet": {**traefik.INGRESS.not_yet, **traefik.SERVICE.not_yet},
    "konghq.com/ that act": {**kong.INGRESS.acted_on, **kong.SERVICE.acted_on},
    "konghq.com/ that do not act yet": {**kong.INGRESS.not_yet, **kong.SERVICE.not_yet},
    "konghq.com/ that need nothing": {*kong.INGRESS.needless, *kong.SERVICE.needless},
}
VOCABULARIES = (traefik.INGRESS, traefik.SERVICE, kong.INGRESS, kong.SERVICE)


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a title."""
    section = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("title", SECTIONS)
def test_every_annotation_that_the_code_knows_is_in_its_table_once(title: str) -> None:
    listed = [name for row in rows(title) for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(listed) == sorted(SECTIONS[title])


def test_no_annotation_is_in_two_tables() -> None:
    assert len(nginx.KNOWN) == len(set(nginx.KNOWN))
    assert nginx.SO_ANYWAY.keys() <= nginx.NOT_YET.keys()


@pytest.mark.parametrize("one", VOCABULARIES, ids=lambda each: f"{each.controller} on {each.elsewhere[0]}")
def test_what_is_read_elsewhere_is_known_there_and_no_name_is_in_two_tables(one: Vocabulary) -> None:
    assert len(one.known) == len(set(one.known))
    assert one.anyway.keys() <= one.not_yet.keys()
    assert set(one.guards) <= one.not_yet.keys()
    (other,) = (each for each in VOCABULARIES if each.prefix == one.prefix and each is not one)
    assert set(one.elsewhere[1]) == set(other.known) - set(one.known)


def said(title: str) -> list[str]:
    """The fields that a table names, as paths from the object on; annotations stand elsewhere."""
    return [FIELDS[title][1] + field for row in rows(title) for field in names(row[0]) if "kubernetes.io/" not in field]


@pytest.mark.parametrize("title", FIELDS)
def test_every_field_of_the_schema_has_a_row_and_every_row_fields_of_it(title: str) -> None:
    kind, below = FIELDS[title]
    there = [
        field
        for field in leaves(validator(KINDS[kind]).schema)
        if field.startswith(below) and not field.startswith(TYPE_META)
    ]
    assert there
    assert [field for field in there if not any(within(field, each) for each in said(title))] == []
    assert [each for each in said(title) if not any(within(field, each) for field in there)] == []


@pytest.mark.parametrize("title", re.findall("^## (.*)", TEXT, re.M))
def test_every_row_names_a_test_that_there_is(title: str) -> None:
    for row in rows(title):
        assert len(row) == 3, row
        for shown in row[2].strip("|` ").split("`, `"):
            if shown.endswith(".py"):
                assert list((ROOT / "tests").rglob(shown))
            else:
                assert shown in DESCRIPTIONS or f"def {shown}(" in TESTS or f'id="{shown}"' in TESTS, shown


@pytest.mark.parametrize("title", [*SECTIONS, *FIELDS, "What is refused", "What holds under load"])
def test_every_table_has_rows(title: str) -> None:
    assert rows(title)
