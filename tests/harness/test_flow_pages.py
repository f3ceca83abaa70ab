"""``report.html`` of runs of flows and of queues: what is on it, and what a real browser makes of it."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from harness import page, plots
from harness.cli import bench
from harness.flows import plots as pictures
from harness.flows.queues import QUANTILES
from harness.flows.queuescenario import QueueSpec
from harness.flows.records import BACKENDS, BACKENDS_FILE, FILE, STEERING
from harness.flows.scenario import Event, FlowSpec
from harness.flows.waiting import NAMES
from kernels.jit import INTERPRETED
from plane.strict import Part
from tests.harness.test_flows import CHURN, SPEC, problems
from tests.harness.test_page import has, unescaped, visited
from tests.harness.test_queues import SPEC as QUEUES
from tests.ingress.test_browser import driver

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.skipif(INTERPRETED, reason="needs many connections")


def ran(tmp_path: Path, kind: str, **spec: object) -> Path:
    """The folder of a run."""
    head = {"apiVersion": "trafficplane.dev/v1alpha1", "kind": kind, "metadata": {"name": "made"}}
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump({**head, "spec": spec}))
    done = CliRunner().invoke(bench, ["run", str(file), "--out", str(tmp_path), "-o", "json"])
    assert done.exit_code == 0, done.output
    return Path(json.loads(done.stdout)["results"])


grown = partial(ran, kind="FlowScenario")


def flows(tmp_path: Path) -> Path:
    return ran(tmp_path, "FlowScenario", **SPEC, algorithms=["maglev", "anchor", "random"], timeline=CHURN[:2])


def queues(tmp_path: Path) -> Path:
    return ran(tmp_path, "QueueScenario", **{**QUEUES, "loads": ["50%", "80%"], "algorithms": ["random", "lc"]})


def whole(folder: Path) -> str:
    """The page of a run, which is what ``report`` prints of its rows and asks for nothing."""
    text = (folder / page.FILE).read_text()
    printed = CliRunner().invoke(bench, ["report", str(folder), "-o", "html"])
    assert printed.exit_code == 0, printed.output
    assert printed.output == text
    assert "<script" not in text
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    return unescaped(text)


def test_the_page_of_flows_has_every_algorithm_in_every_phase(tmp_path: Path) -> None:
    folder = flows(tmp_path)
    text, summary = whole(folder), json.loads((folder / "summary.json").read_text())
    assert re.findall("<h2>([A-Z][a-z]+)", text) == [
        *("Million", "Disrupted", "Moved", "Imbalance", "How", "Making", "Slots", "Phase", "Where")
    ]
    share = next(row for row in summary["algorithms"] if row["algorithm"] == "maglev")["phases"][1]["moved_share"]
    assert f'<tr><td>maglev</td><td class="number">{100 * share:.2f} %</td>' in text
    for name in ("maglev", "anchor", "random"):
        assert text.count(f"<tr><td>{name}</td>") == 1 + 3  # its speed, and three phases
        assert text.count(f">{name}</text>") == 6  # in the legend of each picture
    assert text.count('<th colspan="7">2 fewer of default/s1</th>') == 1


def test_the_page_of_queues_has_every_load(tmp_path: Path) -> None:
    text = whole(queues(tmp_path))
    assert re.findall("<h2>([^<]*)</h2>", text)[:5] == [
        "99th percentile of the time waited, by load",
        "Time waited by percentile, load 50 %",
        "Time waited by percentile, load 80 %",
        "The busiest backend over time, load 50 %",
        "The busiest backend over time, load 80 %",
    ]
    assert text.count("<tr><td>lc</td>") == 2
    assert "mean of all (lc)" in text


def test_a_scenario_that_grows_has_a_run_for_each_size_and_a_page_of_all(tmp_path: Path) -> None:
    services = {"count": [2, 12], "endpoints": 5}
    timeline = [{"at": "1s", "remove": 1, "service": "s02"}]
    folder = grown(tmp_path, **{**SPEC, "services": services}, algorithms=["random", "ring"], timeline=timeline)
    summary = json.loads((folder / "summary.json").read_text())
    small, large = summary["sizes"]
    assert [(size["frontends"], size["backends"]) for size in (small, large)] == [(2, 10), (12, 60)]
    assert [row["algorithm"] for row in large["algorithms"]] == ["random", "ring"]
    assert all(row["first_ns"] > 0 < row["change_ns"] for row in large["algorithms"])
    assert large["algorithms"][1]["table_bytes"] > small["algorithms"][1]["table_bytes"] > 160 * 10 * 4
    text = whole(folder)
    assert text.count("<svg") == 3
    assert text.count('<th colspan="6">12 frontends</th>') == 1
    assert [f"random {each}</text>" in text for each in ("from nothing", "after an event")] == [True, True]
    shown = CliRunner().invoke(bench, ["report", str(folder)])
    assert "12 frontends" in shown.output
    for run in folder.glob("*-services/*"):
        assert (run / page.FILE).read_text().count("<svg") == 5  # no rings, no slots
    (last,) = folder.glob("12-services/*")
    for name in (FILE, BACKENDS_FILE):  # as if it had been killed before it was written
        (last / name).unlink()
        again = json.loads(CliRunner().invoke(bench, ["report", str(folder), "-o", "json"]).stdout)
        assert (again["sizes"], again["interrupted"]) == (summary["sizes"], True)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        ([10, 10], "each number is larger than the one before it"),
        ([], "write a number from 1 to 1,000,000, or a list"),
        ([1, True], "write a number from 1"),
        ([1, 2_000_000], "write a number from 1"),
        ([1, 600_000], "makes 12,000,000 endpoints in all"),
    ],
)
def test_sizes_are_numbers_that_grow(count: list[int], words: str) -> None:
    assert any(words in reason for reason in problems(services={"count": count, "endpoints": 20}).values())


@pytest.mark.parametrize("spec", [FlowSpec, QueueSpec])
def test_the_docs_have_every_field(spec: type[Part]) -> None:
    text = (DOCS / "flows.md").read_text()
    part = text.partition("## Who waits")[2] if spec is QueueSpec else text.partition("## Who waits")[0]
    for name, field in spec.model_fields.items():
        assert f"| `spec.{field.alias or name}` |" in part
    assert [name for name in Event.one_of if f"| `{name}: " not in text] == []


def test_the_docs_have_every_column() -> None:
    part = (DOCS / "records.md").read_text().partition("## Runs of flows")[2]
    for column in {*STEERING.names, *BACKENDS.names}:
        assert f"`{column}`" in part


def test_curves_have_the_percentiles_that_are_named() -> None:
    assert set(NAMES) <= set(QUANTILES)
    assert len(QUANTILES) == len({round(each, 9) for each in QUANTILES})


def test_more_algorithms_than_colours_are_told_apart() -> None:
    styles = [tuple(style.values()) for style in pictures._styles([str(number) for number in range(18)])]
    assert len(set(styles)) == 18


@pytest.mark.soak
def test_a_browser_shows_the_pages_offline(tmp_path: Path) -> None:
    for made, shown in ((flows, 6), (queues, 5)):
        folder = made(tmp_path)
        with driver(tmp_path) as url:
            seen, shots = visited(url, folder / page.FILE, tmp_path)
        assert len(seen["pictures"]) == len(shots) == shown
        assert [picture["beyond"] for picture in seen["pictures"]] == [[]] * shown
        assert all(picture["width"] > 500 and picture["height"] > 100 for picture in seen["pictures"])
        assert (seen["wide"], seen["twice"], seen["loaded"]) == (False, 0, [])
        assert has(shots[0], plots.COLOURS[0])
        assert has(shots[0], plots.COLOURS[1])
