"""plane check: what a file of expectations is held against, and how every difference is told."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from click.testing import CliRunner, Result

from plane.check import Case, judge, parse
from plane.check.cases import Expect
from plane.cli import plane
from plane.errors import ManifestError
from tests.ingress.corpus import CORPUS, NAMES, Row, services
from tests.ingress.manifests import snapshot_of, web
from tests.ingress.policies import ROWS
from tests.ingress.policies import Row as PolicyRow

ADDRESSES = {name: f"127.244.1.{number}" for number, name in enumerate(NAMES, start=2)}
BASE = services(8080, ADDRESSES)
PODS = [("127.244.1.2", 8080), ("127.244.1.3", 8080)]
QUICKSTART = "configs/quickstart"
MANIFESTS = str(Path(__file__).parents[2] / QUICKSTART)

GOOD = """
apiVersion: trafficplane.dev/v1alpha1
kind: Check
metadata: {name: quickstart}
spec:
  cases:
  - url: http://example.com/
    expect: {service: my-service:80, ingress: default/my-ingress, status: forwarded}
  - name: nobody else is served
    url: http://example.org/
    expect: {status: 404}
  - name: a pod reaches the Service unmasqueraded
    url: tcp://my-service.default.svc:80
    fromIp: 127.244.1.9
    expect: {verdict: NEW, service: default/my-service, policy: Cluster, masquerade: false}
"""


def run(folder: Path, text: str, *arguments: str) -> Result:
    (folder / "tests.yaml").write_text(text)
    return CliRunner().invoke(
        plane, ["check", str(folder / "tests.yaml"), "-f", MANIFESTS, *arguments], standalone_mode=False
    )


def with_expectation(number: int, **expected: Any) -> str:
    document = yaml.safe_load(GOOD)
    document["spec"]["cases"][number]["expect"] |= expected
    return yaml.safe_dump(document)


def problems(cases: str) -> dict[str, str]:
    """Field path → reason of everything that is wrong with a file of these cases."""
    head = GOOD[: GOOD.index("  cases:")]
    with pytest.raises(ManifestError) as caught:
        parse(f"{head}  cases: {cases}", "tests.yaml")
    assert {(each.file, each.object) for each in caught.value.problems} == {("tests.yaml", "Check quickstart")}
    return {each.field.removeprefix("spec.cases"): each.reason for each in caught.value.problems}


@pytest.mark.parametrize("row", CORPUS, ids=[row.description for row in CORPUS])
def test_corpus_by_check(row: Row) -> None:
    snapshot = snapshot_of(*BASE, *row.objects)

    def judged(expect: Expect) -> bool:
        return judge(
            snapshot, Case(url=f"http://127.0.0.1{row.path}", headers={"host": row.host}, expect=expect)
        ).passed

    right = row.expected if isinstance(row.expected, int) else "forwarded"
    assert judged(Expect(status=right))
    assert not judged(Expect(status=418))
    for name in NAMES:
        assert judged(Expect(service=name, status="forwarded")) == (name == row.expected)


@pytest.mark.parametrize("row", ROWS, ids=[row.description for row in ROWS])
def test_policies_by_check(row: PolicyRow) -> None:
    snapshot, want = snapshot_of(*BASE, *row.objects), row.want

    def judged(expect: Expect) -> bool:
        case = Case(url=row.url, method=row.method, headers=row.headers, fromIp="127.0.0.1", expect=expect)
        return judge(snapshot, case).passed

    assert judged(Expect(status="forwarded" if want.status == 200 else want.status))
    assert not judged(Expect(status=418))
    assert judged(Expect(redirect=want.location)) == bool(want.location)
    assert judged(Expect(headers={name.title(): value for name, value in want.fields.items() if value is not None}))
    assert judged(Expect(headers=dict.fromkeys(want.fields, ""))) == (not want.fields)
    if want.status == 200:
        parts = urlsplit(row.url)
        assert judged(Expect(service=want.service, path=want.uri or row.url.partition(parts.netloc)[2]))
        assert not judged(Expect(path="/other"))


def test_all_as_expected(tmp_path: Path) -> None:
    found = run(tmp_path, GOOD)
    assert found.return_value == 0
    assert found.stdout == (
        "ok    GET http://example.com/                  default/my-service:80\n"
        "ok    nobody else is served                    404\n"
        "ok    a pod reaches the Service unmasqueraded  NEW default/my-service\n"
        "3 passed, 0 failed\n"
    )


def test_a_difference_is_shown_with_its_reason(tmp_path: Path) -> None:
    found = run(tmp_path, with_expectation(0, service="admin"))
    assert found.return_value == 1
    assert found.stdout.splitlines()[:4] == [
        "FAIL  GET http://example.com/                  default/my-service:80",
        "        service     expected  admin",
        "                    got       default/my-service",
        "        because     default/my-ingress spec.rules[0].http.paths[0]: example.com Prefix /: "
        "this rule takes the request",
    ]
    assert found.stdout.endswith("2 passed, 1 failed\n")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, {"service": "my-service:81"}),
        (0, {"ingress": "other"}),
        (0, {"status": 503}),
        (0, {"endpoints": ["127.244.1.2:8080"]}),
        (1, {"status": "forwarded"}),
        (1, {"service": "my-service"}),
        (2, {"verdict": "DROP"}),
        (2, {"policy": "Local"}),
        (2, {"masquerade": True}),
        (2, {"service": "my-service:81"}),
        (2, {"endpoints": []}),
    ],
)
def test_every_field_is_judged(tmp_path: Path, number: int, expected: dict[str, Any]) -> None:
    found = run(tmp_path, with_expectation(number, **expected), "-o", "json")
    cases = json.loads(found.stdout)["cases"]
    assert found.return_value == 1
    assert [case["passed"] for case in cases] == [place != number for place in range(3)]
    [difference] = cases[number]["differences"]
    assert {difference["field"]: difference["expected"]} == expected


def test_endpoints_are_a_set() -> None:
    snapshot = web(*PODS)
    endpoints = ["127.244.1.3:8080", "127.244.1.2:8080"]
    assert judge(snapshot, Case(url="http://example.com/", expect=Expect(endpoints=endpoints))).passed
    assert not judge(snapshot, Case(url="http://example.com/", expect=Expect(endpoints=endpoints[:1]))).passed


def test_json(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, GOOD, "-o", "json").stdout)
    assert (found["passed"], found["failed"]) == (3, 0)
    assert found["cases"][1]["outcome"] == "404"
    assert found["cases"][0]["reasons"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert problems("[{url: 'ftp://a', expect: {}}, {url: 'tcp://a', expect: {status: 200}, methd: X}]") == {
        "[0].url": "'ftp://a' is no URL; write one such as http://example.com/path or tcp://web.default.svc:80",
        "[0].expect": "expects nothing; give one of status, redirect, headers, path, "
        "service, ingress, endpoints, verdict, policy, masquerade",
        "[1].url": "'tcp://a' needs a port; write one such as http://example.com/path or tcp://web.default.svc:80",
        "[1].expect.status": "200 is no answer of the plane: write forwarded for a request that an endpoint answers, "
        "refused for a connection that is not taken, 204 or a status from 300 to 599 that the plane answers with",
        "[1].methd": "unknown field; did you mean method?",
    }


def test_what_belongs_to_the_other_kind_is_refused() -> None:
    assert problems(
        "[{url: 'udp://a:1', method: GET, expect: {ingress: a}},"
        " {url: 'http://a', node: node-1, expect: {policy: Local}}]"
    ) == {
        "[0].method": "is for requests (http, https), and this is a connection",
        "[0].expect.ingress": "is for requests (http, https), and this is a connection",
        "[1].node": "is for connections (tcp, udp), and this is a request",
        "[1].expect.policy": "is for connections (tcp, udp), and this is a request",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "tests.yaml:2:1"),
        ("", "holds 0 YAML documents; a check is exactly one"),
        (GOOD.replace("kind: Check", "kind: Scenario"), "kind: should be 'Check', not 'Scenario'"),
        (GOOD.replace("fromIp: 127.244.1.9", "node: node-9"), 'spec.cases[2].node: there is no Node "node-9"'),
        (
            GOOD.replace("fromIp: 127.244.1.9", "fromPod: nobody"),
            'spec.cases[2].fromPod: there is no Pod "default/nobody"',
        ),
    ],
)
def test_bad_input_is_named(tmp_path: Path, text: str, said: str) -> None:
    found = run(tmp_path, text)
    assert isinstance(found.exception, ManifestError)
    assert said in str(found.exception)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    found = CliRunner().invoke(plane, ["check", str(tmp_path / "none.yaml"), "-f", MANIFESTS], standalone_mode=False)
    assert "none.yaml: Check: cannot be read: No such file or directory" in str(found.exception)
