"""What compiled code reads and writes through a reference is what is in the tuple."""

from collections import namedtuple
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from numba.core.errors import NumbaError, TypingError

from kernels.jit import INTERPRETED, kernel, part
from kernels.reference import Reference, reference

ROW = np.dtype([("flag", "u1"), ("count", "i8")], align=True)


class Inside(NamedTuple):
    """A tuple of which all members have one type, which Numba keeps in another way."""

    one: np.ndarray
    other: np.ndarray


class Everything(NamedTuple):
    scalar: int
    rows: np.ndarray
    inside: Inside
    plane: np.ndarray  # of two dimensions
    space: np.ndarray  # of three
    point: np.ndarray  # of none
    gaps: np.ndarray  # every other item of an array
    across: np.ndarray  # an array the other way round
    nothing: np.ndarray


@part
def _sizes(all_of_it, out):
    out[0], out[1] = all_of_it.rows.size, all_of_it.plane.size
    out[2], out[3] = all_of_it.plane.shape[0], all_of_it.plane.shape[1]
    out[4], out[5] = all_of_it.space.size, all_of_it.gaps.size
    out[6], out[7] = all_of_it.across.shape[0], all_of_it.nothing.size
    out[8] = len(all_of_it.inside.other)


@part
def _items(all_of_it, out):
    out[0], out[1] = all_of_it.scalar, all_of_it.rows[1]["count"]
    out[2], out[3] = all_of_it.inside.one[1], all_of_it.inside.other[2]
    out[4], out[5] = all_of_it.plane[1, 2], all_of_it.space[1, 2, 3]
    out[6], out[7] = all_of_it.gaps[2], all_of_it.across[2, 1]
    out[8] = all_of_it.point[()] + all_of_it.plane[1][3] + all_of_it.space[1, 1][2]


@kernel
def sizes(all_of_it, out):
    _sizes(reference(all_of_it), out)


@kernel
def items(all_of_it, out):
    all_of_it = reference(all_of_it)
    _items(reference(all_of_it), out)  # what is a reference stays it


@part
def _write(inside, row, at):
    for i in range(at.size):  # written and read in turns: only what the tuple holds stays, not what that leads to
        row["count"] += 1
        at[i] = row["count"]
        inside.one[0] += at[i]


@kernel
def write(all_of_it):
    all_of_it = reference(all_of_it)
    _write(all_of_it.inside, all_of_it.rows[0], all_of_it.plane[0])


@kernel
def misspelt(all_of_it):
    return reference(all_of_it).scalr


@part
def _makes_one(inside):
    return reference(inside).one[0]


@kernel
def has_one_made(inside):
    return _makes_one(inside)


@kernel
def of_no_named_tuple(numbers):
    return reference(numbers)


def everything() -> Everything:
    rows = np.array([(1, 10), (0, 20)], ROW)
    inside = Inside(np.arange(3), np.arange(10, 14))
    plane, space = np.arange(8).reshape(2, 4), np.arange(24).reshape(2, 3, 4)
    return Everything(
        7, rows, inside, plane, space, np.array(5), np.arange(9)[::2], np.arange(8).reshape(2, 4).T, np.zeros(0)
    )


def test_lengths_and_shapes_are_those_of_the_arrays() -> None:
    out = np.zeros(9, np.int64)
    sizes(everything(), out)
    assert out.tolist() == [2, 8, 2, 4, 24, 5, 4, 0, 4]


def test_items_of_all_layouts_are_found() -> None:
    it, out = everything(), np.zeros(9, np.int64)
    items(it, out)
    found = [it.scalar, 20, 1, 12, it.plane[1, 2], it.space[1, 2, 3], 4, it.across[2, 1], 12 + it.space[1, 1, 2]]
    assert out.tolist() == found


def test_what_is_written_is_read_again() -> None:
    it = everything()
    write(it)
    assert it.plane[0].tolist() == [11, 12, 13, 14]
    assert it.rows["count"].tolist() == [14, 20]
    assert it.inside.one.tolist() == [50, 1, 2]


def test_a_field_that_there_is_none_of_does_not_compile() -> None:
    wrong: tuple[type[Exception], str] = (AttributeError, "scalr") if INTERPRETED else (TypingError, "scalr")
    with pytest.raises(wrong[0], match=wrong[1]):
        misspelt(everything())


def named(value: Any) -> str:
    return Reference(numba.typeof(value)).mangling_args[0]


@pytest.mark.skipif(INTERPRETED, reason="there are no types")
def test_names_of_compiled_functions_stay_short_and_tell_types_apart() -> None:
    it = everything()
    assert len(named(it)) < 40
    assert named(it) == named(everything())
    assert named(it) != named(it._replace(nothing=np.zeros(0, np.int8)))


@pytest.mark.skipif(INTERPRETED, reason="there are no types")
def test_tuples_of_one_name_and_other_fields_are_told_apart() -> None:
    one, other = (namedtuple("Load", names)(1, 2) for names in ("a b", "b a"))
    assert Reference(numba.typeof(one)) != Reference(numba.typeof(other))
    assert named(one) != named(other)
    inside, outside = Inside(np.zeros(1), np.zeros(1)), namedtuple("Around", "load")
    assert named(outside(one)) != named(outside(other))
    assert Reference(numba.typeof(inside)) == Reference(numba.typeof(inside._replace(one=np.ones(3))))


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_a_reference_that_could_outlive_what_it_is_to_does_not_compile() -> None:
    with pytest.raises(NumbaError, match="a reference is made by what Python calls"):
        has_one_made(everything().inside)


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_a_reference_is_to_a_named_tuple_only() -> None:
    with pytest.raises(TypingError, match="a reference is to a named tuple, and not to"):
        of_no_named_tuple((1, 2))
