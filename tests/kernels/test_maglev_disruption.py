"""How even Maglev rings are, and what moves when endpoints go: the tables of docs/maglev.md, and what they show.

    .venv/bin/python -m tests.kernels.test_maglev_disruption

prints them; they follow from addresses and fixed seeds alone, so they are the same everywhere.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kernels.jit import INTERPRETED
from kernels.lb import hashing, maglev

DOCS = Path(__file__).parents[2] / "docs" / "maglev.md"
PAPER_BACKENDS = 1000
PAPER_SIZES = (65537, 131071, 655373)  # the paper's two, and between them the plane's own for so many
REMOVED = (1, 5, 10, 20, 50)
DRAWS = 10  # the paper has 200
COUNTS = (2, 3, 5, 10, 20, 50, 100, 163, 300, 655, 1000, 1310)
SETS = 5  # of addresses
STEPS = tuple(size // maglev.SLOTS_PER_ENDPOINT for size in maglev.SIZES[:-1])  # one endpoint more has a larger table
LIMIT = 0.02

pytestmark = pytest.mark.skipif(INTERPRETED, reason="hundreds of large rings are too many for interpreted code")


def ring(count: int, slots: int, removed: Iterable[int] = (), of_set: int = 0) -> np.ndarray:
    """The ring of a set's endpoints 0 … count - 1 but for those removed."""
    first = 0x7FF40102 + (of_set << 24)
    seeds = np.array([hashing.endpoint_seed(first + number, 8080, 6) for number in range(count)], np.uint64)
    weights = np.ones(count, np.uint16)
    weights[list(removed)] = 0
    return maglev.build(seeds, weights, slots)


def shares(count: int, slots: int) -> tuple[float, float]:
    """What the busiest and the idlest endpoint have, as parts of the mean."""
    held = np.bincount(ring(count, slots), minlength=count) / (slots / count)
    return held.max(), held.min()


def moved(before: np.ndarray, after: np.ndarray, removed: Iterable[int]) -> tuple[float, float]:
    """Which part of all slots changed, and which part of those that the removed endpoints did not have."""
    changed, own = before != after, np.isin(before, list(removed))
    assert changed[own].all()
    return changed.mean(), changed[~own].mean()


def on_average(count: int, slots: int, removals: int) -> tuple[float, float]:
    """``moved`` for so many endpoints at once, over DRAWS of them."""
    draw, before = np.random.default_rng(removals), ring(count, slots)
    drawn = [draw.choice(count, removals, replace=False).tolist() for _ in range(DRAWS)]
    rows = [moved(before, ring(count, slots, removed), removed) for removed in drawn]
    return tuple(np.mean(rows, axis=0))


def one_of(count: int, slots: int) -> list[float]:
    """Which part of the others' slots moves when one endpoint goes, for up to 20 of each set."""
    found = []
    for of_set in range(SETS):
        before = ring(count, slots, of_set=of_set)
        for number in range(0, count, -(-count // 20)):
            found.append(moved(before, ring(count, slots, [number], of_set), [number])[1])
    return found


def flows_moved(count: int) -> float:
    """Which part of all flows moves when the last of the endpoints goes and the table gets the size for the others."""
    before, after = ring(count, maglev.table_size(count)), ring(count, maglev.table_size(count - 1), [count - 1])
    hashes = np.random.default_rng(count).integers(1 << 32, size=100_000, dtype=np.uint64)
    one, other = (table[(hashes * np.uint64(table.size) >> np.uint64(32)).astype(np.intp)] for table in (before, after))
    return np.mean(one != other)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(part: float, sign: str = "") -> str:
    return f"{100 * part:{sign}.2f} %"


def balance() -> str:
    paper = {65537: ("29.7 %", "49.5 %"), 655373: ("10.3 %", "12.3 %")}
    rows = []
    for slots in PAPER_SIZES:
        busiest, idlest = shares(PAPER_BACKENDS, slots)
        rows.append([f"{slots:,}", percent(busiest - 1, "+"), percent(idlest - 1, "+"), *paper.get(slots, ("", ""))])
    head = ["slots", "busiest", "idlest", "paper: Karger, busiest over the mean", "paper: rendezvous, likewise"]
    return table(head, rows)


def disruption() -> str:
    rows = []
    for removals in REMOVED:
        found = (on_average(PAPER_BACKENDS, slots, removals) for slots in PAPER_SIZES)
        own = f"{removals}, with {percent(removals / PAPER_BACKENDS)}"
        rows.append([own, *(f"{percent(changed)} ({percent(others)})" for changed, others in found)])
    return table(["removed", *(f"{slots:,} slots" for slots in PAPER_SIZES)], rows)


def by_count() -> str:
    def rows() -> Iterator[list[str]]:
        for count in COUNTS:
            slots = maglev.table_size(count)
            found = one_of(count, slots)
            yield [f"{count:,}", f"{slots:,}", percent(np.mean(found)), percent(max(found))]

    return table(["endpoints", "slots", "of the others' flows move, on average", "at most"], rows())


def at_steps() -> str:
    rows = ([f"{count:,} to {count + 1:,}", percent(flows_moved(count + 1))] for count in STEPS)
    return table(["endpoints", "flows that move"], rows)


@pytest.mark.parametrize("count", COUNTS)
def test_removing_one_endpoint_moves_under_two_percent_of_the_others_flows(count: int) -> None:
    slots = maglev.table_size(count)
    assert slots >= 100 * count
    assert max(one_of(count, slots)) < LIMIT


@pytest.mark.parametrize("slots", PAPER_SIZES)
def test_so_it_is_with_the_papers_tables(slots: int) -> None:
    assert max(one_of(PAPER_BACKENDS, slots)) < LIMIT
    busiest, idlest = shares(PAPER_BACKENDS, slots)
    assert 0.99 < idlest <= 1 <= busiest < 1.01


@pytest.mark.parametrize("figures", [balance, disruption, by_count, at_steps])
def test_the_docs_have_the_figures_of_this_code(figures) -> None:
    assert figures() in DOCS.read_text()


if __name__ == "__main__":
    print(balance(), disruption(), by_count(), at_steps(), sep="\n", end="")
