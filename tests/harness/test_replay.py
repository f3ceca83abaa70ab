"""Access logs: what lines of the formats people have mean, which of them are no requests, and when each is due."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness import page, records, replay, report, scenario, targets, traffic
from harness.recorder import Recorder
from harness.records import LoadRows, Route
from harness.scenario import Scenario, ScenarioError
from harness.tables import console, tables
from plane.ingress.accesslog import AccessLog, Entry
from tests.harness.test_scenario import changed, problems

S = 1_000_000_000
CONFIGS = Path(__file__).parents[2] / "configs"
AT_S = int(datetime(2026, 11, 27, 8, 0, 12, tzinfo=UTC).timestamp())
COMBINED = '203.0.113.9 - jo [27/Nov/2026:08:00:12 +0000] "{}" 200 512 "-" "curl/8.5.0"'

LINES = {
    "combined": (COMBINED.format("GET /a?b=1 HTTP/1.1"), True, "GET", "/a?b=1"),
    "common": ('h - - [27/Nov/2026:09:00:12 +0100] "HEAD / HTTP/1.0" 304 -', True, "HEAD", "/"),
    "a user with spaces": ('h - a b c [27/Nov/2026:08:00:12 +0000] "GET / HTTP/2.0" 200 1', True, "GET", "/"),
    "ingress-nginx": (
        COMBINED.format("POST /cart HTTP/2.0") + " 312 0.004 [default-web-80] [] 10.244.0.7:80 9 0.004 200 8f3c",
        True,
        "POST",
        "/cart",
    ),
    "a URL": (COMBINED.format("GET http://shop.example/x?y HTTP/1.1"), True, "GET", "/x?y"),
    "a URL without a path": (COMBINED.format("GET https://shop.example?y HTTP/1.1"), True, "GET", "/?y"),
    "the plane's": (
        '{"time": "2026-11-27T08:00:12.000Z", "method": "GET", "host": "a", "target": "/t"}',
        False,
        "GET",
        "/t",
    ),
    "NGINX's variables": (
        '{"time_iso8601": "2026-11-27T10:00:12+02:00", "request": "PUT /p HTTP/1.1"}',
        True,
        "PUT",
        "/p",
    ),
    "NGINX's seconds": ('{"msec": "1795766412.000", "request_method": "GET", "request_uri": "/u"}', False, "GET", "/u"),
    "Traefik": ('{"StartUTC": "2026-11-27T08:00:12Z", "RequestMethod": "GET", "RequestPath": "/r"}', True, "GET", "/r"),
    "Caddy": ('{"ts": 1795766412.0, "request": {"method": "DELETE", "uri": "/c"}}', False, "DELETE", "/c"),
    "Envoy": ('{"start_time": "2026-11-27T08:00:12.000Z", "method": "GET", "path": "/e"}', False, "GET", "/e"),
}


@pytest.mark.parametrize(("text", "whole", "method", "path"), LINES.values(), ids=LINES.keys())
def test_a_line_of_a_known_format_is_a_request(text: str, whole: bool, method: str, path: str) -> None:
    assert replay.parse(text) == (AT_S * S, whole, method, path)


NONE = {
    "bytes of TLS, as NGINX writes them": (
        r'1.2.3.4 - - [27/Nov/2026:08:00:00 +0000] "\x16\x03\x01" 400 157 "-" "-"',
        r"'\x16\x03\x01' is no request line",
    ),
    "another format": ("Nov 27 08:00:12 web sshd[1]: hello", "is neither combined nor JSON: 'Nov 27"),
    "bytes of TLS": (COMBINED.format(r"\x16\x03\x01"), r"is no request line, as GET /path HTTP/1.1"),
    "no request at all": (COMBINED.format("-"), "'-' is no request line"),
    "a tunnel": (COMBINED.format("CONNECT a:443 HTTP/1.1"), "'CONNECT' is no method for a load"),
    "all of a server": (COMBINED.format("OPTIONS * HTTP/1.1"), "'*' is no path"),
    "another time": (COMBINED.format("GET / HTTP/1.1").replace("27/Nov", "27/11"), "is no time as in 27/Nov/2026"),
    "JSON cut off": ('{"time": "2026-11-27T08:', "is no JSON, or cut off"),
    "JSON without a path": ('{"time": "2026-11-27T08:00:12Z", "method": "GET"}', "has no target: none of target, uri"),
    "JSON without a time": ('{"method": "GET", "target": "/"}', "has no time: none of time, timestamp"),
    "JSON of another time": ('{"time": "yesterday", "method": "GET", "target": "/"}', "'yesterday' is no time"),
    "a time that never was": ('{"time": "2026-13-27T08:00:12Z", "method": "GET", "target": "/"}', "is no time"),
}


@pytest.mark.parametrize(("text", "reason"), NONE.values(), ids=NONE.keys())
def test_a_line_that_is_no_request_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        replay.parse(text)
    assert len(str(caught.value)) < 200


def test_fractions_of_a_second_are_kept_to_the_nanosecond() -> None:
    text = '{"time": "2026-11-27T08:00:12.%s+00:00", "method": "GET", "target": "/"}'
    for digits in ("1", "123", "123456789"):
        assert replay.parse(text % digits).at_ns == AT_S * S + int(digits.ljust(9, "0"))


def log_of(path: Path, *lines: str) -> replay.Log:
    path.write_text("\n".join(lines) + "\n")
    return replay.read(path)


def clf(second: int, request: str = "GET / HTTP/1.1") -> str:
    return COMBINED.format(request).replace(":12 ", f":{second:02} ")


def test_requests_of_a_whole_second_are_spread_over_it_in_their_order(tmp_path: Path) -> None:
    lines = [clf(10, f"GET /{name} HTTP/1.1") for name in "abcd"] + [clf(12, "GET /e HTTP/1.1"), clf(11)]
    log = log_of(tmp_path / "a.log", *lines)
    assert log.due_ns.tolist() == [0, S // 4, S // 2, 3 * S // 4, S, 2 * S]
    assert [log.asked[place][1] for place in log.order] == ["/a", "/b", "/c", "/d", "/", "/e"]
    assert log.at(4).tolist() == [at // 4 for at in log.due_ns.tolist()]
    assert log.at(0.1)[-1] == 20 * S


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 4)), min_size=1, max_size=80), st.randoms())
def test_every_line_is_a_request_or_counted(tmp_path_factory: Any, pairs: list[tuple[int, int]], random: Any) -> None:
    lines = [clf(second, f"GET /{name} HTTP/1.1") if name else f"nothing {second}" for second, name in pairs]
    path = tmp_path_factory.mktemp("log") / "a.log"
    asked = sum(bool(name) for _, name in pairs)
    if not asked:
        with pytest.raises(ValueError, match="has no line that is a request: line 1: is neither combined nor JSON"):
            log_of(path, *lines)
        return
    log = log_of(path, *lines)
    assert (log.lines, log.unreadable) == (len(pairs), len(pairs) - asked)
    assert len(log.due_ns) == len(log.order) == asked
    assert (np.diff(log.due_ns) >= 0).all()
    assert log.due_ns[0] == 0
    assert [row.line for row in log.unread] == [n for n, (_, name) in enumerate(pairs, 1) if not name][:20]
    begun = min(second for second, name in pairs if name)
    by_second = sorted(second for second, name in pairs if name)
    assert (log.due_ns // S).tolist() == [second - begun for second in by_second]


async def test_what_an_ingress_has_logged_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    written = AccessLog(str(path))
    for target in ("/a?b=c", "/d"):
        written.add(Entry("127.0.0.1", "http", "POST", "shop.example", target, "HTTP/1.1", 200))
    written.close()
    log = replay.read(path)
    assert (log.unreadable, log.asked) == (0, [("POST", "/a?b=c"), ("POST", "/d")])
    assert 0 <= log.due_ns[1] < 60 * S


def asked(folder: Path, change: Callable[[Any], object] = lambda load: None) -> Scenario:
    document = yaml.safe_load((CONFIGS / "access-log-replay.yaml").read_text())
    del document["spec"]["manifests"], document["spec"]["nodes"]
    load = document["spec"]["loads"][0]
    load["target"] = {"url": "http://127.0.0.1:9/"}
    load["arrivals"]["replay"]["log"] = str(folder / "access.log")
    change(load)
    return scenario.parse(yaml.safe_dump(document))


def test_a_log_makes_a_load() -> None:
    file = CONFIGS / "access-log-replay.yaml"
    made = asked(CONFIGS / "access-log-replay", lambda load: load.update(headers={"X-A": "b"}))
    (log,) = traffic.logs_of(made, file).values()
    (target,) = targets.resolve(made, str(file), None)
    task = traffic.task(made, 0, target, log)
    lines = (CONFIGS / "access-log-replay" / "access.log").read_text().splitlines()
    assert (log.lines, log.unreadable) == (len(lines), 2)
    due = task.due(7)
    assert due is not None
    assert (len(due), due[0]) == (len(lines) - 2, 7)
    assert 5 * S < task.duration_ns <= 6 * S
    assert task.text == "access.log, 10 times its pace"
    assert task.mean_rate == pytest.approx(len(due) * S / task.duration_ns)
    assert {(each.method, each.headers["X-A"], each.host) for each in task.mix.workloads} == {
        ("GET", "b", "127.0.0.1:9"),
        ("POST", "b", "127.0.0.1:9"),
    }
    paths = [task.mix.workloads[place].path for place in task.mix.order]
    first = next(line.split('"')[1].split()[1] for line in lines)
    assert (paths[0], len(paths)) == (first, len(due))
    (warning,) = traffic.warnings(made, {0: log})
    assert "load morning: 2 of" in warning
    assert "is no request line, as GET /path HTTP/1.1; line" in warning
    cut = asked(CONFIGS / "access-log-replay", lambda load: load.update(duration="1s"))
    shorter = traffic.task(cut, 0, target, log).due(0)
    assert shorter is not None
    assert shorter.tolist() == [at for at in (due - 7).tolist() if at < S]


def test_a_log_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        traffic.logs_of(asked(tmp_path), Path("bench.yaml"))
    (problem,) = caught.value.problems
    assert (problem.file, problem.field) == ("bench.yaml", "spec.loads[0].arrivals.replay.log")
    assert problem.reason == f"{tmp_path}/access.log cannot be read: No such file or directory"
    (tmp_path / "access.log").write_text("\n")
    with pytest.raises(ScenarioError, match="has no line that is a request, it is empty"):
        traffic.logs_of(asked(tmp_path), Path("bench.yaml"))


def test_what_does_not_go_with_a_replay_is_named() -> None:
    def change(spec: Any) -> None:
        arrivals = {"replay": {"log": "a.log", "speed": 0}, "process": "poisson", "maxConnections": 5}
        spec["loads"][0].update(arrivals=arrivals, method="GET", body="", requests=[{}])

    found = problems(changed(change))
    assert found.pop("spec.loads[0].arrivals.replay.speed") == "should be greater than 0"
    assert found.pop("spec.loads[0].arrivals.process").startswith("goes with rate or stages; the times of a replay")
    assert set(found) == {f"spec.loads[0].{name}" for name in ("method", "body", "requests")}


def test_a_report_names_the_lines_that_were_no_requests(tmp_path: Path) -> None:
    log = log_of(tmp_path / "access.log", clf(1), "x", clf(2), *["y"] * 30)
    made = asked(tmp_path)
    task = traffic.task(made, 0, targets.resolve(made, "bench.yaml", None)[0], log)
    record = Recorder(task.due(0))
    rows = LoadRows("morning", record.recorded(), Route.unknown(2), 0, task.mix.asked(np.arange(2)))
    load = {"name": "morning", "arrivals": task.text, "rate": task.mean_rate, "start_ns": 0, "duration_ns": S}
    text = (CONFIGS / "access-log-replay.yaml").read_text()
    facts = {"scenario": text, "interrupted": "false", "run": "r", "started": ""}
    facts["loads"] = json.dumps([{**load, "replay": log.said()}])
    table = records.tabulate([rows], 0, facts)
    summary = report.summarise(table)
    found = summary["loads"][0]["replay"]
    assert (found["lines"], found["requests"], found["unreadable"], len(found["unread"])) == (33, 2, 31, 20)
    terminal = console()
    with terminal.capture() as said:
        terminal.print(tables(summary))
    line = "morning: 31 of 33 lines of access.log are no requests and were not replayed: 2, 4, 5,"
    assert line in said.get()
    assert line in page.page(table, summary)
