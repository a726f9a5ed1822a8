"""numba as a front end: typed Python functions to LLVM IR, without its JIT, its runtime or Python's C API.

This file and `numba_lowering.py` alone use numba's internals; numba is pinned to a minor version.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import (
    codegen,
    compiler,
    compiler_machinery,
    cpu,
    cpu_options,
    errors,
    fastmathpass,
    imputils,
    interpreter,
    types,
    typing,
)
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing import builtins as numba_builtins
from numba.core.typing import templates
from numba.cpython import builtins, numbers, rangeobj, tupleobj  # noqa: F401 (they fill the registry)
from numba.extending import models, register_model, typeof_impl

from onnxsmith_compiler.codegen import llvm_backend
from onnxsmith_compiler.codegen.entry_points import set_attributes
from onnxsmith_compiler.codegen.kernel_function import Helper, Intrinsic, Routine
from onnxsmith_compiler.codegen.numba_lowering import RANGE, KernelLowering
from onnxsmith_compiler.codegen.pointer_types import named_type
from onnxsmith_compiler.codegen.target import Target

FAST_MATH = ("contract", "nsz")


class _Interpreter(interpreter.Interpreter):  # type: ignore[misc]
    """numba's translation of byte code, without the searches for `with`, `try`, and building lists and dictionaries."""

    def post_process(self, peepholes: object, func_ir: Any) -> Any:
        return func_ir


@compiler_machinery.register_pass(mutates_CFG=True, analysis_only=False)
class _TranslateByteCode(compiler.TranslateByteCode):  # type: ignore[misc]
    _name = "translate_byte_code_of_kernel"

    def run_pass(self, state: Any) -> bool:
        state["func_ir"] = _Interpreter(state["func_id"]).interpret(state["bc"])
        return True


_PASSES = (
    _TranslateByteCode,
    compiler.FixupArgs,
    compiler.NopythonTypeInference,
    KernelLowering,
    compiler.NoPythonBackend,
)


class _CallableType(types.Callable, types.Dummy):  # type: ignore[misc]
    """The numba type of one Intrinsic or Helper."""

    def __init__(self, function: Intrinsic | Helper) -> None:
        self.function = function
        super().__init__(f"{type(function).__name__.lower()} {function.name}")

    @property
    def key(self) -> object:
        return self.function

    def get_call_type(self, context: Any, args: Sequence[types.Type], kws: dict[str, types.Type]) -> Any:
        if kws:
            raise errors.TypingError(f"{self.function.name}: takes no keyword arguments")
        if isinstance(self.function, Helper):
            return _helper_signature(self.function)
        typed = self._define(context, args)
        if typed is None:
            given = ", ".join(str(argument) for argument in args)
            raise errors.TypingError(f"{self.function.name}: does not take ({given})")
        return typed[0]

    def _define(self, context: Any, args: Sequence[types.Type]) -> Any:
        assert isinstance(self.function, Intrinsic)
        if not self.function.literals:
            args = [types.unliteral(argument) for argument in args]
        try:
            return self.function.definition(context, *args)
        except TypeError as error:
            raise errors.TypingError(f"{self.function.name}: {error}") from error

    def implementation(self, context: Any, signature: Any) -> Callable[..., ir.Value]:
        """What numba calls, with a builder and values, to emit one call."""
        if isinstance(self.function, Helper):
            return functools.partial(_call_helper, context, self.function)
        emit = self._define(None, signature.args)[1]
        return functools.partial(_emit_intrinsic, context, self.function.name, signature, emit)

    def get_call_signatures(self) -> tuple[list[Any], bool]:
        return [], True

    def get_impl_key(self, signature: Any) -> object:
        return self.function


register_model(_CallableType)(models.OpaqueModel)


@typeof_impl.register(Intrinsic)  # type: ignore[untyped-decorator]
@typeof_impl.register(Helper)  # type: ignore[untyped-decorator]
def _typeof_callable(value: Intrinsic | Helper, context: object) -> _CallableType:
    return _CallableType(value)


def _emit_intrinsic(
    context: Any,
    name: str,
    signature: Any,
    emit: Callable[..., ir.Value],
    builder: ir.IRBuilder,
    arguments: Sequence[ir.Value],
    location: object = None,
) -> ir.Value:
    try:
        return emit(context, builder, signature, arguments)
    except TypeError as error:
        raise errors.LoweringError(f"{name}: {error}") from error


def _helper_signature(helper: Helper) -> Any:
    return typing.signature(named_type(helper.result), *map(named_type, helper.arguments))


def helper_symbol(helper: Helper) -> str:
    return f"onnxsmith.helper.{helper.function.__module__}.{helper.name}"


def _call_helper(
    context: Any,
    helper: Helper,
    builder: ir.IRBuilder,
    arguments: Sequence[ir.Value],
    location: object = None,
) -> ir.Value:
    context.helpers_called[helper_symbol(helper)] = helper
    signature = _helper_signature(helper)
    symbol = helper_symbol(helper)
    callee = builder.module.globals.get(symbol)
    if callee is None:
        kinds = [context.get_value_type(kind) for kind in signature.args]
        result = ir.VoidType() if helper.result == "void" else context.get_value_type(signature.return_type)
        callee = ir.Function(builder.module, ir.FunctionType(result, kinds), symbol)
    returned = builder.call(callee, arguments)
    return context.get_dummy_value() if helper.result == "void" else returned


class _ModuleCollector(codegen.CodeLibrary):  # type: ignore[misc]
    """Keeps the modules that numba lowers, in place of compiling them."""

    def __init__(self, owner: Any, name: str) -> None:
        super().__init__(owner, name)
        self.modules: list[ir.Module] = []
        self.linked: list[_ModuleCollector] = []

    def add_ir_module(self, ir_module: ir.Module) -> None:
        self.modules.append(ir_module)

    def add_linking_library(self, library: _ModuleCollector) -> None:
        if library not in self.linked:
            self.linked.append(library)

    def all_modules(self) -> list[ir.Module]:
        """Its own modules and, once each, those of the libraries that it links to."""
        found: dict[int, ir.Module] = {id(module): module for module in self.modules}
        for library in self.linked:
            found.update((id(module), module) for module in library.all_modules())
        return list(found.values())

    def finalize(self) -> None:
        self._finalized = True

    def get_function(self, name: str) -> Any:
        raise NotImplementedError

    get_llvm_str = get_asm_str = get_function


class _FrontEndCodegen(codegen.Codegen):  # type: ignore[misc]
    """numba's notion of a code generator, without an execution engine."""

    _library_class = _ModuleCollector

    def __init__(self, target: Target) -> None:
        machine = llvm_backend.target_machine(target)
        self._triple = machine.triple
        self._target_data = machine.target_data
        self._data_layout = str(machine.target_data)

    def _create_empty_module(self, name: str) -> ir.Module:
        module = ir.Module(name)
        module.triple = self._triple
        module.data_layout = self._data_layout
        return module

    def _add_module(self, module: object) -> None:
        raise NotImplementedError

    def magic_tuple(self) -> tuple[str, ...]:
        return (self._triple,)


@functools.cache
def _typing_rules() -> templates.Registry:
    """numba's typing rules for scalars, ranges and tuples: those of one module, without overloads."""
    rules = templates.Registry()
    rules.functions = [rule for rule in templates.builtin_registry.functions if _is_builtin(rule)]
    rules.attributes = [rule for rule in templates.builtin_registry.attributes if _is_builtin(rule)]
    rules.globals = [
        (value, kind)
        for value, kind in templates.builtin_registry.globals
        if isinstance(kind, types.Function) and all(map(_is_builtin, kind.templates))
    ]
    return rules


def _is_builtin(rule: type) -> bool:
    return any(base.__module__ == numba_builtins.__name__ for base in rule.__mro__)


# Operators that numba types for a constant operand as for any of its type.
_OPERATORS = (
    *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv),
    *(operator.iadd, operator.isub, operator.imul, operator.ifloordiv, operator.imod, operator.itruediv),
    *(operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift),
    *(operator.iand, operator.ior, operator.ixor, operator.ilshift, operator.irshift),
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
)


class _KernelTyping(typing.BaseContext):  # type: ignore[misc]
    """numba's typing, of scalars, ranges and tuples alone."""

    def init(self) -> None:
        self._resolved: dict[tuple[Any, ...], Any] = {}
        self._callables: dict[Any, types.Type] = {}
        self.install_registry(_typing_rules())
        self._operators = {*_OPERATORS, *map(self.resolve_value_type, _OPERATORS)}

    def refresh(self) -> None:
        """Nothing is ever added to the rules."""

    def resolve_value_type(self, val: Any) -> Any:
        """The type of a global or constant; remembered for functions and scalar types."""
        if not callable(val):
            return super().resolve_value_type(val)
        if val is range:
            val = RANGE
        if val not in self._callables:
            self._callables[val] = super().resolve_value_type(val)
        return self._callables[val]

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """The signature of a call; remembered, since it depends on the types alone."""
        if kws:
            return super().resolve_function_type(func, args, kws)
        if func in self._operators:
            args = tuple(map(types.unliteral, args))
        key = (func, *args)
        if key not in self._resolved:
            self._resolved[key] = super().resolve_function_type(func, args, kws)
        return self._resolved[key]


class _KernelContext(cpu.CPUContext):  # type: ignore[misc]
    """numba's lowering of scalars, ranges and tuples, plus Intrinsics and Helpers."""

    def __init__(self, target: Target) -> None:
        self.kernel_target = target
        self.helpers_called: dict[str, Helper] = {}
        self.routines_called: dict[str, Routine] = {}
        super().__init__(_KernelTyping(), "cpu")

    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = _FrontEndCodegen(self.kernel_target)
        self.install_registry(imputils.builtin_registry)

    def refresh(self) -> None:
        """Nothing is ever added to the registry."""

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        if isinstance(fn, _CallableType):
            return fn.implementation(self, sig)
        return super().get_function(fn, sig, _firstcall=False)

    def post_lowering(self, mod: ir.Module, library: _ModuleCollector) -> None:
        fastmathpass.rewrite_module(mod, self.fastmath)


class _KernelPipeline(compiler.CompilerBase):  # type: ignore[misc]
    """numba's passes to LLVM IR, without those that serve closures, arrays and reference counts."""

    def define_pipelines(self) -> list[compiler.PassManager]:
        passes = compiler.PassManager("kernel")
        for each in _PASSES:
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]


def _flags() -> compiler.Flags:
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.enable_pyobject = False
    flags.nrt = False
    flags.error_model = "numpy"
    flags.fastmath = cpu_options.FastMathOptions(set(FAST_MATH))
    return flags


@dataclass(frozen=True)
class Lowered:
    """One function in LLVM IR: numba's modules, with the exported function, and what else it calls."""

    modules: tuple[str, ...]
    helpers: tuple[Helper, ...]
    routines: tuple[Routine, ...]


class FrontEnd:
    """numba for one target."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._context = _KernelContext(target)

    def lower(
        self,
        function: Callable[..., Any],
        result: str,
        arguments: Sequence[str],
        noalias: Iterable[int],
        wrap: Callable[[ir.Module, ir.Function], None],
    ) -> Lowered:
        """Type and lower `function`, whose types are named as in `source.Parameter`.

        `noalias` lists the positions of parameters that are noalias. `wrap(module, numba's function)` adds
        the exported function to the module. Raises numba's errors.
        """
        context = self._context
        context.helpers_called = {}
        context.routines_called = {}
        library = context.codegen().create_library(function.__name__)
        with global_compiler_lock:
            compiled = compiler.compile_extra(
                context.typing_context,
                context,
                function,
                tuple(map(named_type, arguments)),
                named_type(result),
                _flags(),
                {},
                library=library,
                pipeline_class=_KernelPipeline,
            )
        module = library.modules[0]
        inner = module.globals[compiled.fndesc.llvm_func_name]
        for index in noalias:
            inner.args[index + 2].add_attribute("noalias")
        wrap(module, inner)
        modules = library.all_modules()
        for part in modules:
            set_attributes(part, self.target)
        called = tuple(context.helpers_called.values()), tuple(context.routines_called.values())
        return Lowered(tuple(map(str, modules)), *called)
