"""What compiled code reads and writes through a reference is what is in the tuple."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from numba.core.errors import TypingError

from kernels.jit import INTERPRETED, kernel, part
from kernels.reference import reference

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
    out[8] = all_of_it.plane[1][3] + all_of_it.space[1, 1][2]


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


@kernel
def each(tuples, out):
    for i in range(out.size):
        out[i] = _first(reference(tuples[i]))


@part
def _first(inside):
    return inside.one[0]


def everything() -> Everything:
    rows = np.array([(1, 10), (0, 20)], ROW)
    inside = Inside(np.arange(3), np.arange(10, 14))
    plane, space = np.arange(8).reshape(2, 4), np.arange(24).reshape(2, 3, 4)
    return Everything(7, rows, inside, plane, space, np.arange(9)[::2], np.arange(8).reshape(2, 4).T, np.zeros(0))


def test_lengths_and_shapes_are_those_of_the_arrays() -> None:
    out = np.zeros(9, np.int64)
    sizes(everything(), out)
    assert out.tolist() == [2, 8, 2, 4, 24, 5, 4, 0, 4]


def test_items_of_all_layouts_are_found() -> None:
    it, out = everything(), np.zeros(9, np.int64)
    items(it, out)
    found = [it.scalar, 20, 1, 12, it.plane[1, 2], it.space[1, 2, 3], 4, it.across[2, 1], 7 + it.space[1, 1, 2]]
    assert out.tolist() == found


def test_what_is_written_is_read_again() -> None:
    it = everything()
    write(it)
    assert it.plane[0].tolist() == [11, 12, 13, 14]
    assert it.rows["count"].tolist() == [14, 20]
    assert it.inside.one.tolist() == [50, 1, 2]


def test_references_made_one_after_the_other_are_each_to_its_own() -> None:
    tuples = tuple(Inside(np.array([number]), np.array([0])) for number in range(5))
    out = np.zeros(5, np.int64)
    each(tuples, out)
    assert out.tolist() == [0, 1, 2, 3, 4]


def test_a_field_that_there_is_none_of_does_not_compile() -> None:
    wrong: tuple[type[Exception], str] = (AttributeError, "scalr") if INTERPRETED else (TypingError, "scalr")
    with pytest.raises(wrong[0], match=wrong[1]):
        misspelt(everything())


@pytest.mark.skipif(INTERPRETED, reason="there are no types")
def test_names_of_compiled_functions_stay_short_and_tell_types_apart() -> None:
    import numba

    from kernels.reference import Reference

    def named(value: Any) -> str:
        return Reference(numba.typeof(value)).mangling_args[0]

    it = everything()
    assert len(named(it)) < 40
    assert named(it) == named(everything())
    assert named(it) != named(it._replace(nothing=np.zeros(0, np.int8)))
