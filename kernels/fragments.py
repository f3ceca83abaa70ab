"""What only compiled code calls: kept as LLVM's code, and made machine code with each entrance that leads there.

Law: a fragment is never run by itself, so it is neither optimised as a whole nor given to the processor; both happen
once, in what Python calls, where all of it lies together. Numba would do both for each function anew, with all that
this calls in turn, and throw most of it away. What is kept on disk of a fragment is LLVM's code too, with a copy of all
that it calls; so the names in it, by which copies of one function are told to be one, outlive the process that made
them, and are no other process's.
"""

import itertools
import os
from typing import Any, ClassVar

import llvmlite.binding as llvm
from llvmlite import ir
from llvmlite.ir.instructions import Branch
from numba.core import bytecode, compiler, config
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary, get_host_cpu_features

# Numba counts its functions from 1 in each process, and tells those of one name apart by that.
bytecode.FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "big"))


class Fragment(JITCodeLibrary):
    """Numba's library of one such function and of what it calls."""

    def _optimize_final_module(self) -> None:
        """Left to whom it is linked into."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """There is none, which is 0."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """Asked for only by who sets environments: those of fragments are set in each entrance, see ``complete``."""
        return _WithoutEnvironments

    def serialize_using_object_code(self) -> tuple[str, str, bytes]:
        return self.serialize_using_bitcode()

    @classmethod
    def of(cls, codegen: Any, name: str, bitcode: bytes) -> "Fragment":
        """That which was serialized."""
        fragment = cls(codegen, name)
        fragment._final_module = llvm.parse_bitcode(bitcode)
        fragment._finalize_final_module()
        return fragment


_told: str | None = config.CPU_FEATURES  # type: ignore[attr-defined]  # by who wants code for another processor
HAS_AVX512 = "+avx512dq" in (get_host_cpu_features() if _told is None else _told).split(",")

# For each loop: how many vectors are at work at once, four where LLVM by itself has as many in short ones only; and how
# many words a vector has, eight where the processor has such, and by itself half as many, lest its clock slow down.
_ADVICE = {"interleave.count": 4}
if HAS_AVX512:
    _ADVICE["vectorize.width"] = 8


class _Vectors(Fragment):
    """One whose ``for`` loops become vector instructions as is best for long columns of 64-bit words."""

    def add_ir_module(self, module: ir.Module) -> None:
        advice = [
            module.add_metadata([ir.MetaDataString(module, f"llvm.loop.{name}"), ir.IntType(32)(number)])
            for name, number in _ADVICE.items()
        ]
        loop = module.add_metadata(advice)
        loop.operands = (loop, *advice)  # what is said of a loop begins with itself
        for function in module.functions:
            above = set()  # where else jumps go back to what is above, LLVM takes no notice
            for block in function.blocks:
                above.add(block)
                if isinstance(block.terminator, Branch) and block.terminator.operands[0] in above:
                    block.terminator.set_metadata("llvm.loop", loop)
        super().add_ir_module(module)


class _WithoutEnvironments:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """There is no machine code that would look for it."""


class Compiler(compiler.Compiler):
    """Numba's, for a function that becomes a fragment."""

    library: ClassVar[type[Fragment]] = Fragment

    def define_pipelines(self) -> list[Any]:
        self.state.library = self.library(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        return super().define_pipelines()


class VectorCompiler(Compiler):
    """The same, for one with loops over columns that lie apart."""

    library = _Vectors

    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return super().define_pipelines()


class _OnDisk(CompileResultCacheImpl):
    def rebuild(self, context: Any, payload: tuple[Any, ...]) -> Any:
        library, described, environment, signature, _, _, _, reloads, _ = payload
        assert not reloads
        name, _, bitcode = library
        fragment = Fragment.of(context.codegen(), name, bitcode)
        return compiler.compile_result(
            target_context=context,
            typing_context=context.typing_context,
            library=fragment,
            environment=environment,
            entry_point=context.get_executable(fragment, described, environment),
            fndesc=described,
            signature=signature,
            objectmode=False,
            lifted=(),
        )


class Cache(FunctionCache):
    """Where fragments of a function are kept."""

    _impl_class = _OnDisk


def complete(entrance: Any) -> None:
    """Give the machine code of an entrance the environments of all that is in it; ``print`` looks for its own."""
    for environment in entrance._find_referenced_environments():
        entrance.library.codegen.set_env(environment.env_name, environment)
