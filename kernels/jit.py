"""How all that is compiled here is.

Law: a kernel is compiled at its first call and never at import. It holds no GIL, is kept on disk, divides as NumPy
does, so that no exception can leave it unless NUMBA_BOUNDSCHECK is set, and is inlined into kernels that call it. It
has no access to Numba's run time for memory: one that allocates an array does not compile, and passing arrays about
counts no references, which would cost ten times what deciding about a flow does. Large tuples of them go by
``reference``. Integers that wrap are ``uint64`` throughout, because Numba and NumPy both turn ``uint64 + int64`` into a
float.

It is compiled for types, not for numbers: one that a caller writes out is an int64 as any other. Numba would take each
for a type of its own, and compile all that is called with it once more. True and False stay types, so that what reads
in two ways is compiled for either.

Python calls none whose name begins with an underscore, no ``inner``, no ``part`` and no ``vectorised``: these have no
entrance for it, and become machine code only with those that have (``fragments``). A call is a TypeError.

With ``NUMBA_DISABLE_JIT=1`` all of it is plain Python; hashes wrap around just as they do in machine code, and NumPy is
told that this is no mistake.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from kernels import fragments

INTERPRETED = bool(numba.config.DISABLE_JIT)  # type: ignore[attr-defined]

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "forceinline": True,
    "_nrt": False,
}
_WITHOUT_ENTRANCE: dict[str, Any] = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": fragments.Compiler,
}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` for each set of types that it is called with."""
    if INTERPRETED:
        return np.errstate(over="ignore")(function)
    if function.__name__.startswith("_"):
        return _closed(_compiled(function, **_OPTIONS, **_WITHOUT_ENTRANCE))
    return _compiled(function, **_OPTIONS)


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``kernel``, for kernels of other files only: it has no entrance for Python, whatever its name is."""
    if INTERPRETED:
        return kernel(function)
    return _closed(_compiled(function, **_OPTIONS, **_WITHOUT_ENTRANCE))


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``kernel``, but inlined only where LLVM finds that worth it: large ones would be there for each caller."""
    if INTERPRETED:
        return kernel(function)
    return _closed(_compiled(function, **{**_OPTIONS, **_WITHOUT_ENTRANCE, "forceinline": False}))


def vectorised(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``inner``, for loops over columns that become vector instructions: wide ones, four of them at work at once.

    No loop adds up floats: in which order would differ from processor to processor.
    An array that it writes to lies apart from all others that it is given, and none of them is returned or kept: C's
    ``restrict``, and as little checked.
    """
    if INTERPRETED:
        return kernel(function)
    return _closed(_compiled(function, **{**_OPTIONS, **_WITHOUT_ENTRANCE, "pipeline_class": fragments.VectorCompiler}))


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Numba's dispatcher, to which a number that a caller of compiled code writes out is one of int64."""
    compiled: Any = numba.njit(**options)(function)
    called_with = compiled.get_call_template

    def call_template(given: tuple[types.Type, ...], named: dict[str, types.Type]) -> Any:
        named = {name: _of_any_value(kind) for name, kind in named.items()}
        return called_with(tuple(map(_of_any_value, given)), named)

    add = compiled.add_overload

    def add_complete(result: Any) -> None:
        fragments.complete(result)
        add(result)

    compiled.get_call_template, compiled.add_overload = call_template, add_complete
    return compiled


def _of_any_value(kind: types.Type) -> types.Type:
    return types.unliteral(kind) if isinstance(kind, types.IntegerLiteral) else kind


def _closed(compiled: Any) -> Any:
    """Has what is without an entrance refuse a call from Python; Numba would jump to where there is none."""

    def refuse(*given: Any, **named: Any) -> None:
        name = f"{compiled.py_func.__module__}.{compiled.py_func.__name__}"
        raise TypeError(f"{name} has no entrance for Python: it has to be a kernel, without an underscore, for that")

    def note(result: Any) -> None:
        compiled.overloads[tuple(result.signature.args)] = result  # and not in the table of what Python may call

    compiled._compile_for_args, compiled.add_overload = refuse, note
    compiled._cache = fragments.Cache(compiled.py_func)
    return compiled


def by_family(ipv4: Callable[..., Any], ipv6: Callable[..., Any]) -> Callable[..., Any]:
    """One name for two kernels of equal arguments: ``ipv6`` where the first is, or is a column of, ``ADDRESS6``.

    Which of them it is follows from types alone, so that compiled code for one family has no trace of the other.
    """

    def either(*given):
        is_wide = getattr(getattr(given[0], "dtype", None), "names", None) is not None
        return (ipv6 if is_wide else ipv4)(*given)

    def choose(*given):
        kind = given[0].dtype if isinstance(given[0], types.Array) else given[0]
        chosen = ipv6 if isinstance(kind, types.Record) else ipv4
        return lambda *given: chosen(*given)

    if not INTERPRETED:
        overload(either, jit_options={"nogil": True, "error_model": "numpy", "forceinline": True})(choose)
    return either


def _prefetching(locality: int) -> Any:
    """(array, index): bring the line in which ``array[index]`` begins to a cache; an index may be beyond the array.

    locality  LLVM's: 3 for the core's first cache, 2 for its second one
    """

    @intrinsic
    def prefetching(context, array, index):
        def code(context, builder, signature, arguments):
            held = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = builder.bitcast(builder.gep(held.data, [arguments[1]]), cgutils.voidptr_t)
            flag = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
            call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(call, [address, flag(0), flag(locality), flag(1)])  # to be read, data
            return context.get_dummy_value()

        return types.void(array, types.uint64), code

    return prefetching


def _nothing(array, index):
    """What interpreted code does for a prefetch."""


prefetch: Callable[..., None] = _nothing if INTERPRETED else _prefetching(3)
# For lines that take long: a core can wait for more on their way to its second cache than to its first.
prefetch_far: Callable[..., None] = _nothing if INTERPRETED else _prefetching(2)


@intrinsic
def _among(context, table, first, key):
    """Which of the four rows from ``table[first]`` on has this key, counted from 0, uint64; 4 where none has.

    A row is two words, of which the first is ``key``; the table has all four. They are compared at once and without a
    branch, for which compilers find no way of their own; of several the first counts.
    """

    def code(context, builder, signature, arguments):
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        word, place = ir.IntType(64), ir.IntType(32)
        words = ir.VectorType(word, 8)
        line = builder.load(builder.bitcast(builder.gep(held.data, [arguments[1]]), words.as_pointer()))
        line.align = 8
        one = builder.insert_element(ir.Constant(words, ir.Undefined), arguments[2], place(0))
        same = builder.icmp_unsigned("==", line, builder.shuffle_vector(one, one, ir.VectorType(place, 8)([0] * 8)))
        bits = builder.zext(builder.bitcast(same, ir.IntType(8)), word)
        bits = builder.or_(builder.and_(bits, word(0b01010101)), word(1 << 8))
        return builder.lshr(builder.cttz(bits, ir.IntType(1)(1)), word(1))

    return types.uint64(table, types.uint64, types.uint64), code


def _among_rows(table, first, key):
    """The same row by row, for interpreted code and where every index is checked."""
    for i in range(4):
        if table[first + np.uint64(i)]["key"] == key:
            return np.uint64(i)
    return np.uint64(4)


among: Callable[..., Any] = _among
if INTERPRETED or numba.config.BOUNDSCHECK:  # type: ignore[attr-defined]
    among = kernel(_among_rows)


LANES = 16  # so many numbers of 32 bits are looked up together where the processor can


@intrinsic
def _unmarked(context, marks, at, step, size, count, out, to):
    """Copy to ``out[to:]`` those of ``count`` numbers ``at, at + step, …`` modulo ``size`` of which ``marks`` is 0.

    In order; how many these are, uint64, as all numbers are. They are looked up LANES at a time and moved together,
    without a branch, for which compilers find no way of their own.

    marks     uint8, uint16 or uint32[at least size + 3]
    at, step  below ``size``, and that at most 2^31: the sum of two has 32 bits, an index is a signed one
    count     a multiple of LANES
    out       uint32; behind those found there are LANES more, of which nothing is left as it was
    """
    number, bits = ir.IntType(32), marks.dtype.bitwidth
    lanes, flags = ir.VectorType(number, LANES), ir.VectorType(ir.IntType(1), LANES)
    none = lanes([0] * LANES)

    def code(context, builder, signature, arguments):
        def call(name, result, *given):
            kind = ir.FunctionType(result, [each.type for each in given])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)

        def in_all(value):
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, number(0))
            return builder.shuffle_vector(one, one, none)

        def add(one, other, modulus):
            total = builder.add(one, other)
            less = builder.sub(total, modulus)
            return builder.select(builder.icmp_unsigned("<", total, less), total, less)

        def data(i):
            return context.make_array(signature.args[i])(context, builder, arguments[i]).data

        at, step, size = (builder.trunc(each, number) for each in arguments[1:4])
        sizes, numbers = in_all(size), in_all(at)
        for bit in (1, 2, 4, 8):  # of a lane's number, by which it is so many steps further
            has_bit = lanes([-1 if lane & bit else 0 for lane in range(LANES)])
            numbers = add(numbers, builder.and_(in_all(step), has_bit), sizes)
            step = add(step, step, size)
        steps, bytes_of = in_all(step), builder.bitcast(data(0), cgutils.voidptr_t)
        ahead = cgutils.alloca_once_value(builder, numbers)
        end = cgutils.alloca_once_value(builder, arguments[6])
        with cgutils.for_range(builder, builder.udiv(arguments[4], arguments[4].type(LANES))):
            numbers, to = builder.load(ahead), builder.load(end)
            where = none, bytes_of, numbers, flags([1] * LANES), number(bits // 8)
            found = call("llvm.x86.avx512.mask.gather.dpi.512", lanes, *where)  # each with what lies behind it
            free = builder.icmp_unsigned("==", builder.and_(found, lanes([(1 << bits) - 1] * LANES)), none)
            kept = call("llvm.experimental.vector.compress.v16i32", lanes, numbers, free, none)
            builder.store(kept, builder.bitcast(builder.gep(data(5), [to]), lanes.as_pointer()), align=4)
            count = builder.ctpop(builder.bitcast(free, ir.IntType(LANES)))
            builder.store(builder.add(to, builder.zext(count, to.type)), end)
            builder.store(add(numbers, steps, sizes), ahead)
        return builder.sub(builder.load(end), arguments[6])

    every = types.uint64
    return every(marks, every, every, every, every, out, every), code


@kernel
def _unmarked_by_four(marks, at, step, size, count, out, to):
    """The same by four, for other processors, interpreted code and where every index is checked."""
    found, two = np.uint64(0), modular_sum(step, step, size)
    three, four = modular_sum(step, two, size), modular_sum(two, two, size)
    for _ in range(count // np.uint64(4)):
        found += _copy_unmarked(marks, at, out, to + found)
        found += _copy_unmarked(marks, modular_sum(at, step, size), out, to + found)
        found += _copy_unmarked(marks, modular_sum(at, two, size), out, to + found)
        found += _copy_unmarked(marks, modular_sum(at, three, size), out, to + found)
        at = modular_sum(at, four, size)
    return found


@inner
def modular_sum(one, other, size):
    """The sum of two numbers below ``size``, modulo that: of less than that, the difference wraps to a large number."""
    total = one + other
    return min(total, total - size)


@kernel
def _copy_unmarked(marks, number, out, to):
    out[to] = number  # one too many, without a branch that nobody can foresee
    return np.uint64(marks[number] == 0)


unmarked: Callable[..., Any] = _unmarked
if INTERPRETED or numba.config.BOUNDSCHECK or not fragments.HAS_AVX512:  # type: ignore[attr-defined]
    unmarked = _unmarked_by_four


@intrinsic
def _move_bytes(context, out, to, data, first, size):
    """Copy ``data[first : first + size]`` to ``out[to:]``, uint8 both, which may overlap; the caller has checked that.

    It is memmove; a loop over bytes stays one, a byte a turn, where the compiler does not see that they do not overlap.
    """

    def code(context, builder, signature, arguments):
        def place(array, index):
            held = context.make_array(signature.args[array])(context, builder, arguments[array])
            return builder.gep(held.data, [arguments[index]])

        cgutils.raw_memmove(builder, place(0, 1), place(2, 3), arguments[4], 1)
        return context.get_dummy_value()

    return types.void(out, types.int64, data, types.int64, types.int64), code


def _copied(out, to, data, first, size):
    """What interpreted code does in its place."""
    out[to : to + size] = data[first : first + size]


move_bytes: Callable[..., None] = _copied if INTERPRETED else _move_bytes
