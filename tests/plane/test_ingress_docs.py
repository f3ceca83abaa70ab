"""docs/ingress.md and the code agree on every annotation, and what it says shows something does."""

import re
from pathlib import Path

import pytest

from plane.dialects import nginx
from tests.ingress import corpus, policies

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ingress.md").read_text()
DESCRIPTIONS = {row.description for row in (*corpus.CORPUS, *policies.ROWS)}
TESTS = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
SECTIONS = {
    "nginx.ingress.kubernetes.io/ that act": nginx.ACTED_ON,
    "nginx.ingress.kubernetes.io/ that do not act yet": nginx.NOT_YET,
    "nginx.ingress.kubernetes.io/ that need nothing": nginx.NEEDLESS,
    "nginx.ingress.kubernetes.io/ that are refused": nginx.SNIPPETS,
}


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


@pytest.mark.parametrize("title", [*SECTIONS, "IngressSpec", "What clients may speak"])
def test_every_row_names_a_test_that_there_is(title: str) -> None:
    found = rows(title)
    assert found
    for row in found:
        assert len(row) == 3, row
        shown = row[2].strip("|` ")
        if shown.endswith(".py"):
            assert list((ROOT / "tests").rglob(shown))
        else:
            assert shown in DESCRIPTIONS or f"def {shown}(" in TESTS, shown
