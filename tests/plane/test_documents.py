"""Text to JSON documents: what is read as what, and where faults are said to be."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plane.documents import MAX_BY_ALIAS, MAX_DEPTH, Document, parse, plain


def values(text: str) -> list:
    documents = list(parse(text))
    assert not [fault for document in documents for fault in document.faults]
    return [(document.number, document.value) for document in documents]


def fault(text: str, **options: bool) -> tuple[int, int, int, str]:
    """(document, line, column, reason) of the only fault."""
    (document,) = [document for document in parse(text, **options) if document.faults]
    (found,) = document.faults
    return document.number, *found


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("80", 80),
        ("-1", -1),
        ("1_000", 1000),
        ("0644", 420),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("1.2.3.4", "1.2.3.4"),
        ("2024-01-31", "2024-01-31"),
        ("089", 89.0),
        ("yes", True),
        ("n", False),
        ("Off", False),
        ("truE", "truE"),
        ("~", None),
        ("", None),
        ("=", "="),
        ("-", "-"),
    ],
)
def test_plain_scalars_mean_what_they_mean_to_kubectl(text: str, meaning: object) -> None:
    found = plain(text)
    assert (found, type(found)) == (meaning, type(meaning))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.text(st.characters(codec="ascii", categories=["L"])),
    lambda rows: st.lists(rows, max_size=4) | st.dictionaries(st.text("abcdefgh.-/", min_size=1), rows, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON.filter(lambda value: value is not None), min_size=1, max_size=4))
def test_json_and_quoted_yaml_come_back_as_they_were(written: list) -> None:
    as_yaml = yaml.dump_all(written, Dumper=yaml.CSafeDumper, default_style='"', explicit_start=True)
    as_json = "".join(f"---\n{json.dumps(value)}\n" for value in written)
    expected = list(enumerate(written, 1))
    assert values(as_json) == expected
    assert values(as_yaml) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: 1\n---\nb: 2\n", [(1, {"a": 1}), (2, {"b": 2})], id="documents are numbered from 1"),
        pytest.param("# top\n---\na: 1\n", [(1, {"a": 1})], id="comments before the first marker are no document"),
        pytest.param("---\n# nothing\n---\na: 1\n", [(1, None), (2, {"a": 1})], id="an empty document counts"),
        pytest.param("%YAML 1.1\n---\na: 1\n...\n", [(1, {"a": 1})], id="directives and end markers"),
        pytest.param("--- {a: 1}\n--- b\n", [(1, {"a": 1}), (2, "b")], id="content on the marker's line"),
        pytest.param(
            "a: |\n  x\n  ---\n  y\n", [(1, {"a": "x\n---\ny\n"})], id="an indented marker in a block is text"
        ),
        pytest.param("\ufeffa: 1", [(1, {"a": 1})], id="a byte order mark"),
        pytest.param("", [], id="nothing"),
        pytest.param('{"a": 1}\n{"b": [2]}', [(1, {"a": 1}), (2, {"b": [2]})], id="JSON one after the other"),
        pytest.param("{a: 1, b: [x]}", [(1, {"a": 1, "b": ["x"]})], id="a YAML flow mapping"),
        pytest.param("a: &x {b: 1}\nc: *x", [(1, {"a": {"b": 1}, "c": {"b": 1}})], id="an alias"),
        pytest.param(
            "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}",
            [(1, {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}})],
            id="a merge key gives way to what is written",
        ),
        pytest.param('a: !!str 80\nb: !!int "7"', [(1, {"a": "80", "b": 7})], id="core tags"),
    ],
)
def test_documents(text: str, expected: list) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        pytest.param("a: 1\nb: [1\n", (1, 3, 1), "a flow sequence that begins on line 2", id="an open bracket"),
        pytest.param("a: 1\n---\nx: y: z\n", (2, 3, 5), "not YAML", id="the line counts from the top of the file"),
        pytest.param("a:\n\tb: 1\n", (1, 2, 1), "spaces, not tabs", id="a tab"),
        pytest.param("a: {{ .Values.x }}\n", (1, 1, 5), "render it first", id="a template's value"),
        pytest.param("a: 1\n{{- if .x }}\n", (1, 3, 1), "render it first", id="a template's statement"),
        pytest.param("a: 1\nb: 2\na: 3\n", (1, 3, 1), '"a" is here twice (first on line 1)', id="a key twice"),
        pytest.param(
            "kind: A\nspec: {}\nkind: B\n",
            (1, 3, 1),
            '"kind" is here twice (first on line 1); where another document begins, put a line --- before it',
            id="two documents in one",
        ),
        pytest.param(
            "a:\n  kind: A\n  kind: B\n", (1, 3, 3), "(first on line 2); keep one of them", id="a key twice further in"
        ),
        pytest.param('{"a": 1,\n "a": 2}', (1, 2, 2), '"a" is here twice (first on line 1)', id="a key twice in JSON"),
        pytest.param("80: x", (1, 1, 1), 'put it in quotes: "80"', id="a number as key"),
        pytest.param("on: x", (1, 1, 1), 'put it in quotes: "on"', id="a truth value as key"),
        pytest.param("? [a]\n: b", (1, 1, 3), "a key must be text", id="a list as key"),
        pytest.param("a: *x", (1, 1, 4), "no anchor &x", id="an alias to nothing"),
        pytest.param("a: &x [*x]", (1, 1, 8), "no anchor &x", id="an alias to itself"),
        pytest.param("a: !Ref b", (1, 1, 4), "tag !Ref means nothing", id="an unknown tag"),
        pytest.param("a: !!python/name:os.system", (1, 1, 4), "tag !!python/name", id="a tag for Python"),
        pytest.param("a: !!int x", (1, 1, 4), "is no !!int", id="a tag that the text does not fit"),
        pytest.param("a: .inf", (1, 1, 4), "no number in JSON", id="infinity"),
        pytest.param("a: \x00", (1, 0, 0), "not YAML", id="a control character"),
        pytest.param("[" * 50_000, (1, 1, MAX_DEPTH + 2), "nested deeper", id="deep nesting"),
    ],
)
def test_faults_have_line_and_column(text: str, where: tuple[int, int, int], said: str) -> None:
    *found, reason = fault(text)
    assert tuple(found) == where
    assert said in reason


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        pytest.param('{"a": \n nope}', (1, 2, 2), "not JSON: Expecting value", id="no value"),
        pytest.param('{"a": NaN}', (1, 0, 0), "NaN is no number", id="not a number"),
        pytest.param('{"a": 1, "a": 2}', (1, 0, 0), '"a" is here twice', id="a key twice"),
        pytest.param("[" * 200 + "]" * 200, (1, 0, 0), "nested deeper", id="deep"),
        pytest.param("[" * 100_000, (1, 0, 0), "nested deeper", id="very deep"),
        pytest.param("a: 1", (1, 1, 1), "not JSON", id="YAML"),
    ],
)
def test_faults_of_json(text: str, where: tuple[int, int, int], said: str) -> None:
    *found, reason = fault(text, only_json=True)
    assert tuple(found) == where
    assert said in reason


def test_a_broken_document_hides_nothing_in_the_others() -> None:
    broken, sound, other = parse("a: [\n---\nb: 1\n---\nc: }\n")
    assert broken.faults[0].line == 2
    assert sound == Document(2, {"b": 1})
    assert other.number == 3
    assert other.faults[0][:2] == (5, 4)


def test_aliases_that_expand_to_far_more_than_was_written_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    document, line, _, reason = fault("\n".join(lines))
    assert (document, line) == (1, 5)
    assert str(MAX_BY_ALIAS) in reason
