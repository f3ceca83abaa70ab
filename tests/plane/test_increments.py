"""What is worked out from one change to the next is what is worked out from nothing, whatever the changes were."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layout import BACKEND, INSIDE, OUTSIDE, Fib
from kernels.lb.frontends import build_index
from kernels.lb.patches import TABLES, Patch, Replica, between, patched
from kernels.lb.pools import ring_of
from plane import fib, healthchecks, routecompiler, routes
from plane import rows as rows_module
from plane.addresses import AddressPlan
from plane.compiler import Compiler
from plane.controllers import Reconciler, reconcile
from plane.dns import names
from plane.endpointindex import EndpointIndex
from plane.journal import Journal
from plane.model import (
    ALGORITHM_ANNOTATIONS,
    NODE_NUMBER_ANNOTATION,
    SERVICE_LABEL,
    WEIGHT_ANNOTATION,
    ZONE_LABEL,
    Key,
    Object,
    Snapshot,
    endpoint_keys,
    key_of,
)
from plane.proxy import _same_pools
from plane.rows import Followed, Rows, differences

NOW = "2026-01-01T00:00:00Z"
PLAN = AddressPlan(0)
SERVICES = tuple("abcdef")
NODES = ("node-1", "node-2", "node-3")
ADDRESSES = (*(f"127.244.{node}.{host}" for node in (1, 2) for host in range(2, 6)), "10.0.0.1", "fd00::1")

A_SERVICE: Object = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"clusterIP": "127.96.1.1", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
}
BY_NAME = {
    name: {"annotations": {ALGORITHM_ANNOTATIONS[1]: word}}
    for name, word in zip("abc", ("rr", "lc", "sh"), strict=True)
}

Draw = Callable[[st.SearchStrategy[Any]], Any]
some = st.sampled_from
maybe = st.booleans()


def obj(kind: str, name: str, namespace: str = "default", **parts: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, **parts.pop("metadata", {})}
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {each: text for each, text in metadata.items() if text},
        **parts,
    }


@st.composite
def services(draw: Draw) -> Object:
    name = draw(some(SERVICES))
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    algorithm = draw(some(["", "maglev", "maglev", "rr"]))
    spec: Object = {
        "clusterIP": draw(some([f"127.96.1.{SERVICES.index(name) + 1}"] * 4 + ["None"])),
        "ports": ports[: draw(st.integers(1, 2))],
        "sessionAffinity": draw(some(["None", "ClientIP"])),
        "internalTrafficPolicy": draw(some(["Cluster", "Cluster", "Local"])),
    }
    status = {}
    if draw(maybe):
        spec |= {"type": "LoadBalancer", "externalTrafficPolicy": draw(some(["Cluster", "Local"]))}
        spec |= {"loadBalancerSourceRanges": draw(some([[], ["127.0.0.0/8"]])), "healthCheckNodePort": 32000}
        spec["ports"] = [{**port, "nodePort": 30000 + SERVICES.index(name)} for port in spec["ports"]]
        status = {"loadBalancer": {"ingress": [{"ip": f"127.200.0.{SERVICES.index(name) + 2}"}]}}
    annotations = {ALGORITHM_ANNOTATIONS[1]: algorithm} if algorithm else {}
    return obj("Service", name, metadata={"annotations": annotations}, spec=spec, status=status)


@st.composite
def slices(draw: Draw) -> Object:
    owner = draw(some([*SERVICES, ""]))
    name, port = draw(some(["http", "http", "dns"])), draw(some([8080, 9090]))
    rows = draw(
        st.lists(st.tuples(some(ADDRESSES), some([True, True, False, None]), maybe, some([*NODES, ""])), max_size=5)
    )
    conditions = [{"ready": ready, "serving": not ready or None, "terminating": ends} for _, ready, ends, _ in rows]
    endpoints = [
        {"addresses": [ip], "conditions": each, **({"nodeName": node, "hints": _hints(node)} if node else {})}
        for (ip, _, _, node), each in zip(rows, conditions, strict=True)
    ]
    weight = draw(some(["", "0", "3"]))
    metadata = {
        "labels": {SERVICE_LABEL: owner} if owner else {},
        "annotations": {WEIGHT_ANNOTATION: weight} if weight else {},
    }
    ports = [{"name": name, "port": port, "protocol": "UDP" if name == "dns" else "TCP"}]
    return obj(
        "EndpointSlice", f"{owner}-{draw(st.integers(0, 2))}", metadata=metadata, endpoints=endpoints, ports=ports
    )


def _hints(node: str) -> Object:
    return {"forZones": [{"name": f"zone-{node[-1]}"}]} if node != "node-3" else {}


@st.composite
def nodes(draw: Draw) -> Object:
    name = draw(some(NODES))
    number = name[-1]
    return obj(
        "Node",
        name,
        "",
        metadata={
            "annotations": {NODE_NUMBER_ANNOTATION: number},
            "labels": {ZONE_LABEL: draw(some(["zone-1", "zone-2"]))},
        },
        spec={"podCIDR": f"127.244.{number}.0/24"},
        status={
            "addresses": [{"type": "InternalIP", "address": f"127.18.0.{number}"}],
            "conditions": [{"type": "Ready", "status": draw(some(["True", "False"]))}],
        },
    )


@st.composite
def placed_pods(draw: Draw) -> Object:
    status = {"podIP": draw(some([*ADDRESSES, "10.0.0.2", ""]))}
    return obj("Pod", draw(some("pqr")), spec={"nodeName": draw(some([*NODES, ""]))}, status=status)


@st.composite
def ingresses(draw: Draw) -> Object:
    backend = {"service": {"name": draw(some(SERVICES)), "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return obj("Ingress", draw(some("xy")), spec={"rules": [{"host": "example.com", "http": {"paths": [path]}}]})


TABLED = st.one_of(services(), slices(), slices(), nodes(), placed_pods(), ingresses())
# Objects to put, how many of those there are to drop, and whether the Snapshot before comes back.
STEPS = st.lists(
    st.tuples(
        st.lists(TABLED, max_size=6), st.lists(st.integers(0, 50), max_size=2), some(["", "", "", "back", "unseen"])
    ),
    min_size=1,
    max_size=10,
)


def with_ids(snapshot: Snapshot, generation: int, salt: int) -> Snapshot:
    """Ids for all endpoints: they stay, and are given again in an order that the salt decides."""
    present = {key for each in snapshot.all("EndpointSlice") for key in endpoint_keys(each)}
    kept = {key: number for key, number in snapshot.backends.items() if key in present}
    free = [number for number in range(1, len(present) + len(kept) + 2) if number not in kept.values()]
    new = sorted(present - kept.keys(), reverse=bool(salt % 2))
    return replace(snapshot, generation=generation, backends=Rows({**kept, **dict(zip(new, free, strict=False))}))


def dropped(snapshot: Snapshot, places: list[int]) -> list[Key]:
    keys = [key_of(each) for kind in sorted(snapshot.objects) for each in snapshot.all(kind)]
    return [keys[place % len(keys)] for place in places if keys]


class Told:
    """What a node has that is told of some of the tables only, by way of a journal."""

    def __init__(self) -> None:
        self.replica = Replica()
        self.generation: int | None = None

    def hear(self, journal: Journal) -> None:
        whole, patch = journal.since(self.generation)
        if whole is not None or (patch and not patch.before):
            self.replica = Replica(patched(whole, patch))
        elif patch:
            self.replica.apply(patch)
        self.generation = self.replica.fib.generation


def snapshots_of(steps: list[Any]) -> Iterator[tuple[Snapshot, str]]:
    """The Snapshot after each step, and what becomes of it."""
    snapshots = [Snapshot(1)]
    for generation, (put, places, what) in enumerate(steps, start=2):
        before = snapshots[-1]
        snapshot = with_ids(before.changed(put, dropped(before, places)), generation, len(put))
        if what == "back" and len(snapshots) > 1:
            snapshot = replace(snapshots[-2], generation=generation)
        snapshots.append(snapshot)
        yield snapshot, what


@settings(max_examples=300)
@given(STEPS)
def test_tables_compiled_from_change_to_change_are_those_compiled_from_nothing(steps):
    compiler, journal, told = Compiler(), Journal(), Told()
    last = None
    for snapshot, what in snapshots_of(steps):
        if what == "unseen":
            continue
        node_tables, named, found = compiler.compile(snapshot)
        if node_tables is not last:
            journal, last = journal.noted(node_tables.patch), node_tables
        told.hear(journal)
        fresh = fib.compile(snapshot)
        assert fib.equal(told.replica.fib, fresh), fib.dump(told.replica.fib) + fib.dump(fresh)
        assert_indexed(told.replica.fib)
        assert node_tables.health == healthchecks.health_checks(snapshot)
        assert names.equal(named, names.compile(snapshot, int))
        assert routes.dump(found) == routes.dump(routecompiler.compile(snapshot))
        assert not any(array.flags.writeable for array in told.replica.fib[1:])


def assert_indexed(table: Fib) -> None:
    """That the index is as it would be made of the frontends, of those that are reached."""
    reached = table.frontend_index["row"]
    shadowed = set(np.flatnonzero(table.frontends["proto"]).tolist()) - set(reached.tolist())
    assert build_index(table.frontends, shadowed).tobytes() == table.frontend_index.tobytes()
    assert ring_of(table.pools).tolist() == table.ring_of.tolist()


# Of those who hear of tables: each hears of some only. Now and then the compiler fails, or lays the tables down whole.
FATES = st.lists(st.tuples(st.sets(st.integers(0, 3)), some(["", "", "", "", "fails", "whole"])), max_size=10)


@given(STEPS, FATES)
def test_patches_one_after_the_other_or_composed_or_upon_whole_tables_come_to_the_same_bytes(steps, fates):
    compiler, index, journal = fib.Compiler(), EndpointIndex(), Journal()
    everybody = [Told() for _ in range(4)]
    generation = 0
    for (snapshot, _), (who, fate) in zip(snapshots_of(steps), fates, strict=False):
        if fate == "fails":
            compiler, index, generation = fib.Compiler(), EndpointIndex(), 0
        patch = compiler.compile(snapshot, index, index.follow(snapshot), generation)
        generation, whole = snapshot.generation, compiler.whole(snapshot.generation)
        journal = journal.noted(patch)
        if fate == "whole":
            journal = journal.begun(whole, generation, 1 << 20)
        for told in (everybody[number] for number in who):
            told.hear(journal)
            assert_same_bytes(told.replica.fib, whole)


def test_a_patch_that_is_large_beside_the_whole_tables_is_not_kept_for_those_who_are_behind():
    rows = np.zeros(100, np.uint32)
    sizes = (1, 100, 10, 1)
    lengths = (0,) * len(TABLES)
    patches = [Patch(at, at + 1, lengths, {"members": [(0, rows[:size])]}) for at, size in enumerate(sizes, start=1)]
    whole = fib.compile(Snapshot(5))
    journal = Journal(patches=tuple(patches)).begun(whole, 5, 44 * 8)
    assert [patch.before for patch in journal.patches] == [3, 4]
    assert journal.since(2) == (whole, None)
    assert journal.begun(whole, 5, 0).since(5) == (None, None)
    there, patch = journal.since(3)
    assert there is None
    assert (patch.before, patch.generation) == (3, 5)
    assert [patch.before for patch in Journal(patches=tuple(patches)).begun(whole, 5, 43 * 8).patches] == [4]


@given(STEPS)
def test_what_a_patch_gives_back_undoes_it_and_one_between_two_fibs_leads_from_one_to_the_other(steps):
    replica = Replica()
    for snapshot, _ in snapshots_of(steps):
        before, fresh = Fib(replica.fib.generation, *(array.copy() for array in replica.fib[1:])), fib.compile(snapshot)
        undo = replica.apply(between(before, fresh))
        assert_same_bytes(replica.fib, fresh)
        again = between(before, fresh)
        replica.apply(undo)
        assert_same_bytes(replica.fib, before)
        frontends = replica.table("frontends", again)
        numbers, was, now = replica.rows("backends", again)
        replica.apply(again)
        assert_same_bytes(replica.fib, fresh)
        assert frontends.tobytes() == fresh.frontends.tobytes()
        for number, old, new in zip(numbers.tolist(), was, now, strict=True):
            for row, table in ((old, before.backends), (new, fresh.backends)):
                assert row == (table[number] if number < len(table) else np.zeros((), BACKEND))
        both = range(min(len(before.backends), len(fresh.backends)))
        assert {row for row in both if before.backends[row] != fresh.backends[row]} <= set(numbers.tolist())


def assert_same_bytes(one: Fib, other: Fib) -> None:
    assert one.generation == other.generation
    for name, left, right in zip(Fib._fields[1:], one[1:], other[1:], strict=True):
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes(), name


def test_a_patch_for_another_fib_or_of_other_tables_changes_nothing():
    replica = Replica(fib.compile(Snapshot(3)))
    before = Fib(3, *(array.copy() for array in replica.fib[1:]))
    good = between(before, fib.compile(with_ids(Snapshot(4).changed([A_SERVICE]), 4, 0)))
    rows = np.zeros(1, np.int64)
    for bad in (
        good._replace(before=2),
        good._replace(lengths=good.lengths[1:]),
        good._replace(lengths=(1000, *good.lengths[1:])),
        good._replace(runs={**good.runs, "pools": [(0, rows)]}),
        good._replace(runs={**good.runs, "members": [(-1, rows.astype(np.uint32))]}),
        good._replace(runs={**good.runs, "nothing": [(0, rows)]}),
        good._replace(runs={**good.runs, "members": [(0, rows.astype(np.uint32).reshape(1, 1))]}),
    ):
        with pytest.raises(ValueError, match="a patch"):
            replica.apply(bad)
        assert_same_bytes(replica.fib, before)
    replica.apply(good)
    assert len(replica.fib.frontends) == 2


def same_pools(old: Fib, new: Fib) -> list[int]:
    """For each pool of ``new`` the one that the same frontend has in ``old``, frontend by frontend."""

    def names(table: Fib) -> list[tuple[int, int, int]]:
        return list(zip(*(table.frontends[column].tolist() for column in ("ip", "port", "proto")), strict=True))

    rows = {name: row for row, name in enumerate(names(old)) if row}
    nodes = min(fib.highest_node(each.frontends, each.sources) for each in (old, new))
    before = [0] * len(new.pools)
    for row, name in enumerate(names(new)):
        if not row or name not in rows:
            continue
        was, now = old.frontends[rows[name]], new.frontends[row]
        for side, flag in (("inside", INSIDE), ("outside", OUTSIDE)):
            several = was["by_node"] & now["by_node"] & flag
            for number in range(1 + (nodes if several else 0)):
                place, source = int(now[side]) + number, int(was[side]) + number
                if place < len(before) and source < len(old.pools):
                    before[place] = source
    return before


def test_of_services_at_one_address_the_first_by_name_is_reached_whichever_came_first():
    compiler, index, replica, snapshot = fib.Compiler(), EndpointIndex(), Replica(), Snapshot(1)
    spec = A_SERVICE["spec"]
    for generation, (put, drop) in enumerate((("b", ""), ("a", ""), ("c", "a"), ("a", "b"), ("", "a")), start=2):
        several = [
            obj("Service", name, spec={**spec, "ports": [{**spec["ports"][0], "name": name}]}, metadata=BY_NAME[name])
            for name in put
        ]
        snapshot = snapshot.changed(several, [Key("Service", "default", name) for name in drop])
        snapshot = replace(snapshot, generation=generation)
        replica.apply(compiler.compile(snapshot, index, index.follow(snapshot), replica.fib.generation))
        assert fib.dump(replica.fib) == fib.dump(fib.compile(snapshot))


@given(STEPS)
def test_turns_go_on_with_the_pools_of_the_same_frontends(steps):
    snapshot, last = Snapshot(1), fib.compile(Snapshot(1))
    for generation, (put, places, _) in enumerate(steps, start=2):
        snapshot = with_ids(snapshot.changed(put, dropped(snapshot, places)), generation, 0)
        table = fib.compile(snapshot)
        nodes = [fib.highest_node(each.frontends, each.sources) for each in (last, table)]
        rows, sources = _same_pools(last.frontends, table.frontends, *nodes)
        before = np.zeros(len(table.pools), np.intp)
        before[rows[sources > 0]] = sources[sources > 0]
        assert before.tolist() == same_pools(last, table)
        last = table


@st.composite
def workloads(draw: Draw) -> Object:
    app = draw(some(["web", "api"]))
    template = {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": draw(some(["v1", "v2"]))}]},
    }
    spec = {
        "replicas": draw(st.integers(0, 3)),
        "selector": {"matchLabels": {"app": app}},
        "template": template,
        "revisionHistoryLimit": draw(st.integers(0, 1)),
    }
    return obj("Deployment", app, metadata={"uid": f"d-{app}"}, spec=spec)


@st.composite
def selectors(draw: Draw) -> Object:
    name = draw(some(SERVICES))
    kind = draw(some(["ClusterIP", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]))
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": draw(some([8080, 9090]))}]
    selector = draw(some([{"app": "web"}, {"app": "api"}, {"app": "web", "more": "no"}, {}]))
    return obj(
        "Service", name, metadata={"uid": f"s-{name}"}, spec={"type": kind, "selector": selector, "ports": ports}
    )


@st.composite
def single_pods(draw: Draw) -> Object:
    labels = {"app": draw(some(["web", "api"]))}
    spec = {"containers": [{"name": "c", "image": "v1"}], "nodeSelector": draw(some([{}, {"no": "such"}]))}
    name = draw(some("pq"))
    return obj("Pod", name, metadata={"uid": f"p-{name}", "labels": labels}, spec=spec)


WANTED = st.one_of(workloads(), selectors(), single_pods(), nodes(), slices())
PASSES = st.lists(
    st.tuples(
        st.lists(WANTED, max_size=4),
        st.lists(st.integers(0, 50), max_size=2),
        st.lists(st.tuples(st.integers(0, 10), some(["ready", "unready", "finished", "gone"])), max_size=3),
        some(["keep", "keep", "keep", "discard"]),
    ),
    min_size=1,
    max_size=10,
)


def reported(snapshot: Snapshot, reports: list[tuple[int, str]]) -> Snapshot:
    """What nodes say of some pods."""
    pods = list(snapshot.all("Pod"))
    for place, what in reports if pods else ():
        pod = pods[place % len(pods)]
        rows = [{"type": "Ready", "status": "True" if what == "ready" else "False"}]
        status = {
            **(pod.get("status") or {}),
            "phase": "Succeeded" if what == "finished" else "Running",
            "conditions": rows,
        }
        snapshot = (
            snapshot.changed(drop=[key_of(pod)]) if what == "gone" else snapshot.changed([{**pod, "status": status}])
        )
    return snapshot


@settings(max_examples=150)
@given(PASSES)
def test_reconciling_from_change_to_change_is_reconciling_from_nothing(passes):
    reconciler, snapshot = Reconciler(PLAN), Snapshot(1)
    for put, places, reports, fate in passes:
        wanted = reported(snapshot.changed(put, dropped(snapshot, places)), reports)
        after = reconciler(wanted, NOW)
        fresh = reconcile(wanted, PLAN, NOW)
        assert after.objects == fresh.objects
        assert after.backends == fresh.backends
        if fate == "keep":
            snapshot = replace(after, generation=snapshot.generation + 1)


def test_after_many_changes_nothing_is_kept_of_what_has_gone():
    """Indexes are as large as those that are made anew from the same Snapshot."""
    rows = [{"addresses": [ip], "conditions": {}} for ip in ADDRESSES]
    spec = {"clusterIP": "127.96.1.1", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    maglev = {"annotations": {ALGORITHM_ANNOTATIONS[1]: "maglev"}}
    reconciler, compiler, snapshot = Reconciler(PLAN), Compiler(), Snapshot(1)
    for change in range(300):
        each = obj(
            "EndpointSlice",
            f"s{change % 7}",
            metadata={"labels": {SERVICE_LABEL: "a"}, "uid": f"u{change}"},
            endpoints=[{**row, "addresses": [f"10.{change % 11}.{change % 251}.{at}"]} for at, row in enumerate(rows)],
            ports=[{"name": "http", "port": 80, "protocol": "TCP"}],
        )
        service = obj("Service", "abc"[change % 3], metadata=maglev, spec=spec)
        snapshot = reconciler(replace(snapshot, generation=change).changed([each, service]), NOW)
        compiler.compile(snapshot)
    anew = Compiler()
    anew.compile(snapshot)
    fresh = Reconciler(PLAN)
    fresh(snapshot, NOW)
    assert sizes(compiler) == sizes(anew)
    reconciler(snapshot, NOW)
    assert sizes(reconciler) == sizes(fresh)


def sizes(thing: Any, path: str = "", seen: set[int] | None = None) -> dict[str, int]:
    """How many things each container has that can be reached from an object by its attributes."""
    seen = set() if seen is None else seen
    found: dict[str, int] = {}
    if id(thing) in seen or isinstance(thing, Snapshot | Rows):
        return found
    seen.add(id(thing))
    if isinstance(thing, dict | set | list) and path.rpartition(".")[2] not in (
        "_queued",
        "_holes",
        "_free",
        "_keys",
        "_holders",
    ):
        found[path] = len(thing)
    held = thing.values() if isinstance(thing, dict) and all(isinstance(key, type | str) for key in thing) else ()
    for name, value in [*getattr(thing, "__dict__", {}).items(), *((type(each).__name__, each) for each in held)]:
        found |= sizes(value, f"{path}.{name}", seen)
    return found


PAIRS = st.dictionaries(st.integers(0, 400), some("ab"), max_size=400)


# Pairs in a leaf and parts in a branch: as it is, and so few that the tree is high.
SIZES = some([(rows_module.LEAF, rows_module.BRANCH), (2, 2), (3, 4)])


@given(PAIRS, st.lists(st.tuples(PAIRS, st.lists(st.integers(0, 400), max_size=300)), max_size=6), SIZES)
def test_rows_are_the_sorted_mapping_that_the_changes_come_to(first, changes, sizes):
    with mock.patch.multiple(rows_module, LEAF=sizes[0], BRANCH=sizes[1]):
        follow_rows(first, changes)


def follow_rows(first: dict[int, str], changes: list[tuple[dict[int, str], list[int]]]) -> None:
    rows, expected = Rows(first), dict(first)
    versions = [rows]
    followed: Followed[int, str] = Followed()
    told: dict[int, str] = {}
    for put, drop in changes:
        rows = rows.changed(put, drop)
        versions.append(rows)
        expected |= put
        for key in drop:
            expected.pop(key, None)
        assert list(rows.items()) == sorted(expected.items())
        assert [rows.get(key) for key in range(400)] == [expected.get(key) for key in range(400)]
        assert len(rows) == len(expected) == len(list(rows.values()))
        assert list(rows.since(200)) == [pair for pair in sorted(expected.items()) if pair[0] >= 200]
        for before in versions:
            assert_differ(before, rows)
            assert_differ(rows, before)
        for key, _, new in followed.news(rows):
            if new is None:
                del told[key]
            else:
                told[key] = new
        assert told == expected


def assert_differ(one: Rows[int, str], other: Rows[int, str]) -> None:
    """What differs is told as it is, by what the versions remember and by their trees."""
    pairs = {key: (one.get(key), other.get(key)) for key in {*one, *other} if one.get(key) is not other.get(key)}
    for found in (differences(one, other), rows_module._differences(*rows_module._unshared(one, other))):
        told = list(found)
        assert len(told) == len(pairs)
        assert {key: (old, new) for key, old, new in told} == pairs


def test_rows_know_the_last_changes_that_they_were_made_by():
    versions = [Rows(dict.fromkeys(range(1_000), "a"))]
    for number in range(10):
        versions.append(versions[-1].changed({number: "b", 7: str(number)}, [500 + number]))
    last = versions.pop()
    known = [rows_module._remembered(before, last) is not None for before in versions]
    assert known == [False] * 2 + [True] * rows_module.REMEMBERED
    assert rows_module._remembered(last, versions[-1]) is None
    assert differences(last, versions[-1]) == [(7, "9", "8"), (9, "b", "a"), (509, None, "a")]


def test_a_change_of_rows_costs_what_is_changed():
    rows = Rows(dict.fromkeys(range(100_000), "a"))
    for number in (0, 50_000, 99_999, 100_000):
        changed = rows.changed({number: "b"})
        for old, new in ((rows, changed), (changed, rows)):
            assert len(rows_module._unshared(old, new)[0]) <= 2 * rows_module.LEAF
            assert {key for key, _, _ in differences(old, new)} == {number}
        assert len(parts_of(changed._root) - parts_of(rows._root)) <= 4
        rows = changed


@pytest.mark.parametrize("descending", [True, False])
def test_a_tree_that_is_thinned_out_is_compact(descending: bool):
    rows = Rows(dict.fromkeys(range(5_000)))
    for number in sorted(rows, reverse=descending):
        if number % 16:
            rows = rows.changed({}, [number])
    assert len(parts_of(rows._root)) <= 3 * len(parts_of(Rows(dict(rows))._root))


def parts_of(part: Any) -> set[int]:
    """The parts of a tree, by identity, to be compared while all of them are there."""
    below = part.parts if isinstance(part, rows_module._Branch) else ()
    return {id(part)}.union(*map(parts_of, below))


def test_rows_that_nothing_changes_are_the_same_object():
    rows = Rows({1: "a", 2: "b"})
    assert rows.changed({1: "a"}, [3]) is rows
    assert rows.changed({3: "c"}, [3]) is rows
