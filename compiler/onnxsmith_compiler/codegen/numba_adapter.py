"""Kernels and native functions to object code: numba's front end, helpers linked in, LLVM's passes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from onnxsmith_compiler.codegen import entry_points, llvm_backend
from onnxsmith_compiler.codegen.compile_errors import KernelCompileError
from onnxsmith_compiler.codegen.kernel_function import Helper, Routine
from onnxsmith_compiler.codegen.namespace import ROUTINES, define_kernel
from onnxsmith_compiler.codegen.numba_frontend import FrontEnd, Lowered, helper_symbol
from onnxsmith_compiler.codegen.routine_names import called_routines
from onnxsmith_compiler.codegen.routines import routine_module
from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target


@dataclass(frozen=True)
class NativeFunction:
    """A function to export with a plain C signature, its types named as in `source.Parameter`.

    `function`'s globals are as a Helper's. `noalias` lists the positions of parameters through which
    alone their memory is reached.
    """

    symbol: str
    function: Callable[..., Any]
    result: str
    arguments: tuple[str, ...]
    noalias: tuple[int, ...] = ()


class Compiler:
    """Compiles kernels and native functions for one target; helpers are compiled once and kept."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._front_end = FrontEnd(target)
        self._helpers: dict[Helper, tuple[bytes, tuple[Helper, ...]]] = {}

    def compile_kernel(self, source: KernelSource, symbol: str, *, routines: bool = True) -> bytes:
        """A relocatable object that exports `symbol`, with the kernel ABI.

        `routines`: it holds those that the kernel calls; otherwise it needs their objects beside it.

        Raises KernelCompileError where numba refuses the text, UndefinedSymbolError where code calls what
        nothing defines.
        """
        module = self.kernel_module(source, symbol, routines=routines)
        given = () if routines else [ROUTINES[name].symbol for name in called_routines(source.text)]
        with _naming(f"kernel {source.label}"):
            return llvm_backend.emit_object(module, self.target, f"kernel {source.label}", given)

    def compile_routine(self, name: str) -> bytes:
        """A relocatable object that exports the routine `name`, one of ROUTINES. Raises KernelCompileError."""
        with _naming(f"routine {name}"):
            module = self._routine(ROUTINES[name])
            module.verify()
            llvm_backend.optimise(module, self.target)
            return llvm_backend.emit_object(module, self.target, f"routine {name}")

    def kernel_module(self, source: KernelSource, symbol: str, *, routines: bool = True) -> llvm.ModuleRef:
        """The optimised LLVM module of `source`; see compile_kernel."""
        kinds = [parameter.type for parameter in source.parameters]
        noalias = [index for index, parameter in enumerate(source.parameters, 1) if parameter.noalias]
        arguments = ("int64*", *kinds, "int64", "int64")
        with _naming(f"kernel {source.label}"):
            lowered = self._front_end.lower(
                define_kernel(source.text),
                "int32",
                arguments,
                noalias,
                functools.partial(entry_points.wrap_kernel, symbol, arguments),
            )
            return self._link([lowered], [symbol], unroll=source.unroll, routines=routines)

    def compile_functions(self, functions: Iterable[NativeFunction]) -> bytes:
        """A relocatable object that exports every one of `functions` with its C signature."""
        functions = list(functions)
        lowered = []
        for native in functions:
            wrap = functools.partial(entry_points.wrap_native, native.symbol, native.result != "void")
            with _naming(f"native function {native.symbol}"):
                lowered.append(
                    self._front_end.lower(native.function, native.result, native.arguments, native.noalias, wrap)
                )
        with _naming("native functions"):
            module = self._link(lowered, [native.symbol for native in functions])
            return llvm_backend.emit_object(module, self.target, "native functions")

    def _link(
        self, lowered: Sequence[Lowered], exported: Sequence[str], *, unroll: bool = True, routines: bool = True
    ) -> llvm.ModuleRef:
        """One optimised module of `lowered`, all the helpers that they reach, and the `routines` if they are wanted."""
        module = self._joined(lowered, exported)
        for routine in dict.fromkeys(routine for one in lowered for routine in one.routines if routines):
            module.link_in(self._routine(routine))
        llvm_backend.keep_only(module, exported)
        module.verify()
        llvm_backend.optimise(module, self.target, unroll=unroll)
        return module

    def _joined(self, lowered: Sequence[Lowered], exported: Sequence[str]) -> llvm.ModuleRef:
        """One module of `lowered` and all the helpers that they reach, before it is optimised."""
        texts = [text for one in lowered for text in one.modules]
        module = llvm_backend.parse(texts[0], self.target)
        for text in texts[1:]:
            module.link_in(llvm_backend.parse(text, self.target))
        for bitcode in self._reachable_helpers([helper for one in lowered for helper in one.helpers]):
            module.link_in(llvm.parse_bitcode(bitcode))
        llvm_backend.keep_only(module, exported)
        return module

    def _routine(self, routine: Routine) -> llvm.ModuleRef:
        """The routine as it was written."""
        if routine.text:
            wrap = functools.partial(entry_points.wrap_native, routine.symbol, False)
            lowered = self._front_end.lower(define_kernel(routine.text), "void", routine.arguments, (), wrap)
            return self._joined([lowered], [routine.symbol])
        module = routine_module(routine, self.target)
        entry_points.set_attributes(module, self.target)
        return llvm_backend.parse(str(module), self.target)

    def _reachable_helpers(self, roots: Sequence[Helper]) -> list[bytes]:
        found: dict[Helper, bytes] = {}
        pending = list(roots)
        while pending:
            helper = pending.pop()
            if helper not in found:
                found[helper], callees = self._helper(helper)
                pending.extend(callees)
        return list(found.values())

    def _helper(self, helper: Helper) -> tuple[bytes, tuple[Helper, ...]]:
        """The helper's bitcode, simplified but not vectorised, and the helpers that it calls."""
        if helper not in self._helpers:
            symbol = helper_symbol(helper)
            wrap = functools.partial(entry_points.wrap_native, symbol, helper.result != "void", always_inline=True)
            with _naming(f"helper {helper.name}"):
                lowered = self._front_end.lower(helper.function, helper.result, helper.arguments, (), wrap)
            module = llvm_backend.parse(lowered.modules[0], self.target)
            for text in lowered.modules[1:]:
                module.link_in(llvm_backend.parse(text, self.target))
            llvm_backend.keep_only(module, [symbol])
            llvm_backend.optimise(module, self.target, vectorise=False)
            self._helpers[helper] = module.as_bitcode(), lowered.helpers
        return self._helpers[helper]


@contextmanager
def _naming(label: str) -> Iterator[None]:
    """Any failure within becomes a KernelCompileError that says what of."""
    try:
        yield
    except KernelCompileError:
        raise
    except Exception as error:
        raise KernelCompileError(f"{label}: {type(error).__name__}: {error}") from error


@functools.cache
def compiler_for(target: Target) -> Compiler:
    """This process's Compiler for `target`."""
    return Compiler(target)


def compile_kernel(source: KernelSource, symbol: str, target: Target) -> bytes:
    """A relocatable object for `target` that exports `symbol`; see Compiler.compile_kernel."""
    return compiler_for(target).compile_kernel(source, symbol)


def compile_functions(functions: Iterable[NativeFunction], target: Target) -> bytes:
    """A relocatable object for `target` that exports `functions` with plain C signatures."""
    return compiler_for(target).compile_functions(functions)
