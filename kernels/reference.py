"""Tuples of tables, by reference: how compiled functions hand one another all that a loop works with.

Law: a reference is made at the head of what Python calls, of a parameter, and nowhere else; it lasts until that call
returns. The tuple does not change meanwhile, so whatever is read through it may be read once for all. A member that is
a tuple itself is a reference again. Numba passes a tuple member by member, and each array as seven words: for a gateway
400 arguments, which took longer to hand over than most functions take, and longer to compile than what is in them.

Fields are read by name; a reference has neither length, order nor numbered items.
"""

import hashlib
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, models, register_model

from kernels.fragments import Fragment
from kernels.jit import INTERPRETED


class Reference(types.Type):
    """Numba's type of a reference to a named tuple of type ``to``."""

    def __init__(self, to: Any):
        self.to = to
        super().__init__(f"reference({to.name})")

    @property
    def key(self) -> Any:
        """By which types are equal: a tuple's name has of its class the bare name only."""
        return self.to

    @property
    def mangling_args(self) -> tuple[str, tuple[()]]:
        """What stands for it in names of compiled functions, where the name of a large tuple fills pages."""
        return f"reference{hashlib.blake2b(_described(self.to).encode(), digest_size=8).hexdigest()}", ()

    def field(self, name: str) -> tuple[int, types.Type]:
        """The number of a field of the tuple, and its type there."""
        number = self.to.fields.index(name)
        return number, self.to.types[number]


def _described(kind: Any) -> str:
    """A type in full, with the fields of tuples."""
    is_tuple = isinstance(kind, types.BaseNamedTuple)
    if not is_tuple:
        return str(kind)
    fields = zip(kind.fields, kind.types, strict=True)
    inside = ", ".join(f"{name}: {_described(each)}" for name, each in fields)
    return f"{kind.instance_class.__module__}.{kind.instance_class.__qualname__}({inside})"


@register_model(Reference)
class _ReferenceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Reference):
        super().__init__(manager, kind, manager.lookup(kind.to).get_value_type().as_pointer())


@infer_getattr
class _Fields(AttributeTemplate):
    key = Reference

    def generic_resolve(self, kind, name):  # type: ignore[override]
        if name not in kind.to.fields:
            return None
        _, found = kind.field(name)
        return Reference(found) if isinstance(found, types.BaseNamedTuple) else found


@lower_getattr_generic(Reference)
def _field(context, builder, kind, pointer, name):
    number, found = kind.field(name)
    place = cgutils.gep_inbounds(builder, pointer, 0, number)
    if isinstance(found, types.BaseNamedTuple):
        return place
    if isinstance(found, types.Array):
        return _array(context, builder, found, place)
    return _constant(builder, place)


def _array(context, builder, kind, place):
    """The array at a place. Only where it lies and its shape are read; the rest follows from its type."""
    model, word = context.data_model_manager.lookup(kind), context.get_value_type(types.intp)
    size = word(context.get_abi_sizeof(context.get_data_type(kind.dtype)))

    def at(name, *number):
        return _constant(builder, cgutils.gep_inbounds(builder, place, 0, model.get_field_position(name), *number))

    shape = [at("shape", i) for i in range(kind.ndim)]
    if kind.layout == "C" and kind.ndim:
        strides = [size]
        for length in shape[:0:-1]:
            strides.insert(0, builder.mul(strides[0], length))
    else:
        strides = [at("strides", i) for i in range(kind.ndim)]
    known = {
        "nitems": shape[0] if kind.ndim == 1 else at("nitems"),
        "itemsize": size,
        "data": at("data"),
    }
    if kind.ndim:
        known |= {"shape": cgutils.pack_array(builder, shape), "strides": cgutils.pack_array(builder, strides)}
    array = ir.Constant(context.get_value_type(kind), None)
    for name, value in known.items():
        array = builder.insert_value(array, value, model.get_field_position(name))
    return array


def _constant(builder, place):
    """What lies at a place, of which the compiler is told that it stays."""
    loaded = builder.load(place)
    loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded


@intrinsic
def _reference(context, record):
    """A reference to a named tuple; what is one already stays it."""
    if isinstance(record, Reference):
        return record(record), lambda context, builder, signature, arguments: arguments[0]
    if not isinstance(record, types.BaseNamedTuple):
        raise TypingError(f"a reference is to a named tuple, and not to {record}")

    def code(context, builder, signature, arguments):
        if isinstance(context.active_code_library, Fragment):
            raise TypingError("a reference is made by what Python calls: the rest is handed one")
        # Within another function the place would be somebody else's once this one's part of it is over.
        builder.function.attributes.discard("alwaysinline")
        builder.function.attributes.add("noinline")
        place = cgutils.alloca_once_value(builder, arguments[0])
        # To the compiler it is another pointer from here on, of which it does not know that there is something written.
        kind = ir.FunctionType(place.type, [place.type])
        return builder.asm(kind, "", "=r,0,~{memory}", [place], side_effect=True)

    return Reference(record)(record), code


def _itself(record):
    """What interpreted code makes of it."""
    return record


reference: Any = _itself if INTERPRETED else _reference
