"""What has no entrance for Python: a call of it is refused, and there is none; and what LLVM is told of loops."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config, types

from kernels import jit
from kernels.jit import INTERPRETED, LANES, kernel, vectorised


@kernel
def _inner(number):
    return number + 1


@kernel
def outer(number):
    return _inner(number)


@kernel
def _shifted(number, by):
    return number + by


@vectorised
def _look_up(table, out):
    for i in range(out.size):
        out[i] = table[out[i]]


@kernel
def look_up(table, out):
    _look_up(table, out)


@kernel
def unmarked(marks, at, step, size, count, out, to):
    """What compiled code alone can call."""
    return jit.unmarked(marks, at, step, size, count, out, to)


@kernel
def unmarked_by_four(marks, at, step, size, count, out, to):
    """The same as it is where there are no such instructions."""
    return jit._unmarked_by_four(marks, at, step, size, count, out, to)


@st.composite
def marked(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Marks and what lies behind them, the first number, and the step."""
    kind = draw(st.sampled_from([np.uint8, np.uint16, np.uint32]))
    largest = int(np.iinfo(kind).max)
    mark = st.just(0) | st.sampled_from([1, largest, largest - largest // 256])
    marks = draw(st.lists(mark, min_size=4, max_size=300))
    numbers = st.integers(0, len(marks) - 4)
    return np.array(marks, kind), draw(numbers), draw(numbers | st.just(len(marks) - 4))


def has_wide_vectors() -> bool:
    """What the processor has and Numba was not told to do without."""
    if config.CPU_FEATURES is not None:
        return "+avx512dq" in config.CPU_FEATURES
    return bool(config.ENABLE_AVX and llvm.get_host_cpu_features().get("avx512dq"))


KERNELS = Path(__file__).parents[2] / "kernels"
CLOSED = {"inner", "part", "vectorised"}


def decorators(function: ast.FunctionDef) -> set[str]:
    return {each.id for each in function.decorator_list if isinstance(each, ast.Name)}


def calls(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """(module or nothing, function, line) of each name that may be a function's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield "", node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr, node.lineno


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_a_call_from_python_is_refused_before_and_after_compiled_code_has_made_one() -> None:
    with pytest.raises(TypeError, match=r"test_jit\._inner has no entrance for Python"):
        _inner(1)
    assert outer(1) == 2
    with pytest.raises(TypeError, match=r"test_jit\._inner has no entrance for Python"):
        _inner(1)


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_numbers_that_callers_write_out_are_compiled_for_once() -> None:
    for kinds in ((types.int64, types.literal(1)), (types.literal(2), types.literal(3)), (types.int64, types.int64)):
        _shifted.get_call_template(kinds, {})  # what Numba asks for where compiled code calls it
    assert list(_shifted.overloads) == [(types.int64, types.int64)]


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_loops_over_columns_are_told_to_be_wide_and_interleaved_and_their_arrays_lie_apart() -> None:
    out = np.arange(100, dtype=np.uint32)[::-1].copy()
    look_up(np.arange(1, 101, dtype=np.uint32), out)
    assert out.tolist() == list(range(100, 0, -1))
    _look_up.get_call_template((types.uint32[::1], types.uint32[::1]), {})  # also where it was on disk
    (compiled,) = _look_up.overloads.values()
    code = compiled.library.get_llvm_str()
    assert re.search(r"^ +br .*!llvm\.loop", code, re.MULTILINE)
    assert '!"llvm.loop.interleave.count", i32 4' in code
    assert ('!"llvm.loop.vectorize.width", i32 8' in code) == has_wide_vectors()
    assert re.search(r"noalias [^,]*%arg\.out\.4", code)


@pytest.mark.parametrize("of", [unmarked, unmarked_by_four])
@settings(deadline=None, max_examples=200)
@given(marked(), st.integers(0, 3), st.integers(0, 5))
def test_unmarked_of_a_walk_are_copied_in_its_order(of, given_marks, rounds: int, to: int) -> None:
    """Marks behind the last number make no difference, and of ``out`` no more is written to than is said."""
    marks, at, step = given_marks
    size, count = len(marks) - 3, rounds * LANES
    wanted = [number for k in range(count) if not marks[number := (at + k * step) % size]]
    end = to + len(wanted)
    out = np.full(end + LANES + 4, 7777, np.uint32)
    numbers = (np.uint64(number) for number in (at, step, size, count))
    assert of(marks, *numbers, out, np.uint64(to)) == len(wanted)
    assert out[to:end].tolist() == wanted
    assert {*out[:to], *out[end + LANES :]} == {7777}


@pytest.mark.parametrize("of", [unmarked, unmarked_by_four])
def test_numbers_up_to_the_largest_are_told_apart(of) -> None:
    size = (1 << 31) - 1
    marks = np.zeros(size + 3, np.uint8)  # of which hardly any is touched, so that there is no memory behind the others
    marks[[5, size - 1]] = 1
    for at, step in ((size - 1, size - 2), (3, size - 1), (0, 1), (size // 2, size // 2)):
        wanted = [number for k in range(LANES) if (number := (at + k * step) % size) not in (5, size - 1)]
        out = np.zeros(2 * LANES, np.uint32)
        numbers = (np.uint64(number) for number in (at, step, size, LANES))
        assert of(marks, *numbers, out, np.uint64(0)) == len(wanted)
        assert out[: len(wanted)].tolist() == wanted


@pytest.mark.skipif(INTERPRETED or config.BOUNDSCHECK, reason="numbers are looked up one by one, to be checked")
def test_numbers_are_looked_up_together_where_the_processor_can() -> None:
    unmarked(np.zeros(4, np.uint8), *map(np.uint64, (0, 0, 1, LANES)), np.zeros(2 * LANES, np.uint32), np.uint64(0))
    code = unmarked.inspect_asm(unmarked.signatures[0])
    assert ("vpgatherdd" in code and "vpcompressd" in code) == has_wide_vectors()


def test_python_calls_no_compiled_function_that_has_no_entrance_for_it() -> None:
    """Also where no test comes by."""
    trees = {path: ast.parse(path.read_text()) for path in KERNELS.rglob("*.py")}
    inner: defaultdict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for each in ast.walk(tree):
            if isinstance(each, ast.FunctionDef):
                private = "kernel" in decorators(each) and each.name.startswith("_")
                inner[path.stem] |= {each.name} if private or decorators(each) & CLOSED else set()
    assert {"read", "_begin", "clock", "write"} <= inner["requests"], "the decorators have other names now"
    wrong = [
        f"{path.name}:{line} {name}"
        for path, tree in trees.items()
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef) and not decorators(each) & {"kernel", "intrinsic", *CLOSED}
        for module, name, line in calls(each)
        if name in inner[module or path.stem]
    ]
    assert not wrong


def test_references_are_made_at_the_head_of_what_python_calls_and_nowhere_else() -> None:
    """Of its parameters, before anything else; where and how long they last is only known there."""
    made, right = set(), set()
    for path in KERNELS.rglob("*.py"):
        for each in ast.walk(ast.parse(path.read_text())):
            if _makes_reference(each):
                made.add((path.name, each.lineno))
            elif isinstance(each, ast.FunctionDef) and (head := _head_of(each)) is not None:
                right.add((path.name, head.lineno))
    assert made, "references have another name now"
    assert made <= right


def _makes_reference(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reference"


def _head_of(function: ast.FunctionDef) -> ast.stmt | None:
    """``a = reference(a)``, or so for several parameters, in one line, of what Python may call."""
    head = (function.body[1:] if ast.get_docstring(function) else function.body)[:1]
    is_entrance = decorators(function) == {"kernel"} and not function.name.startswith("_")
    if not is_entrance or not head or not isinstance(head[0], ast.Assign):
        return None
    named = {each.id for each in ast.walk(head[0]) if isinstance(each, ast.Name)} - {"reference"}
    return head[0] if named <= {each.arg for each in function.args.args} else None
