"""What only compiled code calls: kept as LLVM's code, and made machine code with each entrance that leads there.

Law: a fragment is never run by itself, so it is neither optimised as a whole nor given to the processor; both happen
once, in what Python calls, where all of it lies together. Numba would do both for each function anew, with all that
this calls in turn, and throw most of it away. What is kept on disk of a fragment is LLVM's code too.
"""

from typing import Any

import llvmlite.binding as llvm
from numba.core import compiler
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary


class Fragment(JITCodeLibrary):
    """Numba's library of one such function and of what it calls."""

    def _optimize_final_module(self) -> None:
        """Left to whom it is linked into."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """There is none."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """Asked for only by who sets environments, which are those of calls from Python."""
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


class _WithoutEnvironments:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Nobody will look for it."""


class Compiler(compiler.Compiler):
    """Numba's, for a function that becomes a fragment."""

    def define_pipelines(self) -> list[Any]:
        self.state.library = Fragment(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        return super().define_pipelines()


class _OnDisk(CompileResultCacheImpl):
    def rebuild(self, context: Any, payload: tuple[Any, ...]) -> Any:
        (name, _, bitcode), described, environment, signature, *_ = payload
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
