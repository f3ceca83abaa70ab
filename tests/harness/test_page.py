"""``report.html`` of hand-made rows: what its pictures are made from, and what a real browser sees of it, offline."""

import base64
import io
import json
import re
import urllib.request
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image
from matplotlib.colors import to_rgb

from harness import events, page, plots, records, report, resources
from harness.cli import bench
from harness.events import Happened
from harness.recorder import TIMEOUT
from harness.records import LoadRows
from harness.tables import console, tables
from tests.harness.test_report import LOADS, MS, loop, made, rows, steady
from tests.ingress.test_browser import driver

PATIENCE_S = 60.0
LOOKED_AT = """
const pictures = [...document.querySelectorAll('svg')].map(svg => {
  const box = svg.getBoundingClientRect()
  const beyond = [...svg.querySelectorAll('text')].filter(text => {
    const own = text.getBoundingClientRect()
    return own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1 || own.bottom > box.bottom + 1
  })
  const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
  const over = boxes.flatMap(([one, a], place) => boxes.slice(place + 1).filter(([_, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1
  ).map(([other, _]) => one + ' / ' + other))
  return {width: box.width, height: box.height, beyond: beyond.map(text => text.textContent), over}
})
const ids = [...document.querySelectorAll('clipPath, defs [id]')].map(element => element.id)
return {
  pictures, title: document.title, said: document.body.innerText,
  texts: [...document.querySelectorAll('text')].map(text => text.textContent),
  twice: ids.length - new Set(ids).size, wide: document.documentElement.scrollWidth > innerWidth,
  loaded: performance.getEntriesByType('resource').map(entry => entry.name)}
"""


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50)), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.9, 0.99]),
)
def test_percentiles_of_groups_agree_with_a_plain_count(pairs: list[tuple[int, int]], share: float) -> None:
    group, values = (np.array(column) for column in zip(*pairs, strict=True))
    found = plots.by_group(values.astype(float), group, 6, share)
    for number in range(6):
        own = sorted(value for place, value in pairs if place == number)
        fitting = [value for value in own if sum(other <= value for other in own) >= share * len(own)]
        assert (np.isnan(found[number]) and not own) or found[number] == fitting[0]


def test_a_percentile_that_never_came_is_no_number() -> None:
    found = plots.by_group(np.array([1.0, np.inf, 3.0]), np.array([0, 0, 1]), 2, 0.99)
    assert np.isnan(found[0])
    assert found[1] == 3.0


def test_the_time_of_a_request_is_taken_apart_by_its_own_timestamps() -> None:
    load = rows("loop", [10] * 980 + [110] * 20, start_ns=0, step_ns=MS)
    columns = load.recorded.requests
    columns["sent_ns"][:] = columns["intended_ns"] + 1 * MS
    columns["first_byte_ns"][:] = columns["intended_ns"] + 4 * MS
    columns["first_byte_ns"][-20:] += 100 * MS
    summary = report.summarise(made(steady(), load))
    around = summary["loads"][1]["hops"]
    assert around["p50"] == around["p90"] == {"client connect": 1 * MS, "wait": 3 * MS, "receive": 6 * MS}
    assert around["p99"] == {"client connect": 1 * MS, "wait": 103 * MS, "receive": 6 * MS}
    printed = console()
    with printed.capture() as said:
        printed.print(tables(summary))
    assert re.search(r"^wait +3.00 ms +103 ms$", said.get(), re.MULTILINE)
    assert re.search(r"^all +500 ms +990 ms +10.0 ms +110 ms$", said.get(), re.MULTILINE)


def through_ingress() -> LoadRows:
    """The load ``loop`` as if it had gone through an ingress, and been a millisecond with each part of the way."""
    load = loop()
    due = load.recorded.requests["intended_ns"]
    load.recorded.requests["sent_ns"][:] = due + 1 * MS
    way = ("ingress_received_ns", "ingress_picked_ns", "upstream_connected_ns", "pod_received_ns")
    seen = {name: due + (2 + place) * MS for place, name in enumerate(way)}
    seen |= {"upstream_first_byte_ns": due + 8 * MS, "ingress_done_ns": due + 9 * MS}
    seen["service_ns"] = np.full(len(due), 2 * MS)
    return replace(load, route=replace(load.route, seen=seen))


def test_the_page_is_made_from_the_files_alone_and_asks_for_nothing(tmp_path: Path) -> None:
    records.write(made(steady(), loop()), tmp_path / records.FILE)
    row = Happened("<script>alert(1)</script>", 0, 5 * MS, 2005 * MS, 7, pod="default/a")
    records.write(events.tabulate([row], "r"), tmp_path / events.FILE)
    used = [resources.Sample(second * 1000 * MS, "node-1", 9, second * 500 * MS, 2**28, 40) for second in range(3)]
    records.write(resources.tabulate(used, "r"), tmp_path / resources.FILE)
    printed = CliRunner().invoke(bench, ["report", str(tmp_path), "-o", "html"])
    assert printed.output.startswith("<!doctype html>")
    assert printed.exit_code == 1  # an objective was missed
    assert (
        "<td>&lt;script&gt;alert(1)&lt;/script&gt;: default/a</td><td>5.00 ms</td><td>2.00 s</td><td>7</td>"
        in printed.output
    )
    assert all(f"<h2>{title}</h2>" in printed.output for title in ("Processor", "Memory"))
    assert "<script" not in printed.output
    assert not re.search(r"""(src|href)=["'](?!#)""", printed.output)


def test_a_browser_shows_the_page_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [(0, "100/s"), (4000, "100 to 300/s"), (4050, "0/s"), (9950, "500/s")]
    stages = [{"stage": text, "start_ns": at * MS, "duration_ns": MS} for at, text in marks]
    monkeypatch.setitem(LOADS[0], "stages", stages)
    table = made(steady(errors=dict.fromkeys(range(400, 420), TIMEOUT)), through_ingress())
    times = (3990, 4000, 4010, 10_900, 10_950)  # some at once, and some where there is no room to the right
    happened = [Happened(f"scale my-app to {at}", at * MS, at * MS, (at + 1) * MS, 7) for at in times]
    beside = report.Beside(events.tabulate(happened, "r"))
    file = tmp_path / page.FILE
    file.write_text(page.page(table, report.summarise(table, beside), beside), encoding="utf-8")
    with driver(tmp_path) as url:
        seen, shots = visited(url, file, tmp_path)
    assert seen["title"] == "made 20260102T030405Z-0001"
    # Over time and by percentile; where the time went and by pod, for each of two loads.
    assert len(seen["pictures"]) == len(shots) == 6
    assert all(picture["width"] > 500 and picture["height"] > 100 for picture in seen["pictures"])
    assert [picture["beyond"] for picture in seen["pictures"]] == [[]] * len(shots)
    assert [picture["over"] for picture in seen["pictures"]] == [[]] * len(shots)
    assert not seen["wide"]
    assert seen["twice"] == 0
    assert seen["loaded"] == []
    assert {"steady p99", "without an answer", "99.9%", "upstream connect", "default/b  (333)"} <= set(seen["texts"])
    assert "default/b node-2 326 333 659" in " ".join(seen["said"].split())
    assert "pod (Tr) 2.00 ms 2.00 ms 2.00 ms 2.00 ms" in " ".join(seen["said"].split())
    way = report.summarise(table)["loads"][1]["hops"]["p50"]
    assert len(way) == 9
    assert all(has(shots[3], plots.COLOUR_OF_HOP[name]) for name in way)
    for shot in shots[:2]:  # both loads are there, in their colours
        assert {colour for colour in plots.COLOURS[:2] if has(shot, colour)} == set(plots.COLOURS[:2])
    assert has(shots[0], "#c00000")  # windows with requests that were never answered


def has(shot: np.ndarray, colour: str) -> bool:
    """Whether a picture float[height, width, channels] has more than a few points of a colour."""
    near = np.abs(shot[:, :, :3] - np.array(to_rgb(colour))).max(axis=2) < 0.1
    return bool(near.sum() > 20)


def visited(url: str, file: Path, where: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What a browser finds on the page in a file, and a screenshot of each of its pictures."""
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
    arguments += ["--window-size=1200,900", f"--user-data-dir={where / 'profile'}"]
    always = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}

    def call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{url}/session{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)["value"]

    session = "/" + call("POST", "", {"capabilities": {"alwaysMatch": always}})["sessionId"]
    call("POST", f"{session}/url", {"url": file.as_uri()})
    seen = call("POST", f"{session}/execute/sync", {"script": LOOKED_AT, "args": []})
    found = call("POST", f"{session}/elements", {"using": "css selector", "value": "svg"})
    shots = [call("GET", f"{session}/element/{next(iter(row.values()))}/screenshot") for row in found]
    call("DELETE", session)
    return seen, [image.imread(io.BytesIO(base64.b64decode(shot)), format="png") for shot in shots]


@pytest.mark.parametrize("name", ["$x^2$", "a & b", "<i>"])
def test_a_pod_may_be_called_anything(name: str) -> None:
    load = loop()
    pod = replace(load.route.pod, texts=(name, "b", "c"))
    table = made(replace(load, route=replace(load.route, pod=pod)))
    assert f"{escape(name, quote=False)}  (334)" in unescaped(plots.by_pod(table, {"name": "loop"}))


def unescaped(svg: str) -> str:
    """A picture with its spaces as they are shown."""
    return svg.replace("&#160;", " ").replace("\xa0", " ")
