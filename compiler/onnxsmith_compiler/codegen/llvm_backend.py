"""LLVM IR text to a relocatable object: target machine, pass pipeline, checks of the result."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import llvmlite.binding as llvm

from onnxsmith_compiler.codegen.compile_errors import UndefinedSymbolError
from onnxsmith_compiler.codegen.target import Target

_OPTIMISATION_LEVEL = 3
_PIPELINE_LEVEL = 2


@functools.cache
def _initialise_llvm() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()


@functools.cache
def target_machine(target: Target) -> llvm.TargetMachine:
    """LLVM's code generator for `target`, shared by all who do not keep it."""
    return new_target_machine(target)


def new_target_machine(target: Target) -> llvm.TargetMachine:
    """A code generator for `target` that an execution engine may own: position independent, small code model."""
    _initialise_llvm()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=_OPTIMISATION_LEVEL, reloc="pic", codemodel="small"
    )


def parse(text: str, target: Target) -> llvm.ModuleRef:
    """The module that `text` (LLVM assembly) describes, set up for `target`."""
    machine = target_machine(target)
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    return module


def keep_only(module: llvm.ModuleRef, exported: Iterable[str]) -> None:
    """Make everything that `module` defines private to it, but the functions `exported`."""
    keep = set(exported)
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in keep:
            value.linkage = "internal"


def optimise(module: llvm.ModuleRef, target: Target, *, vectorise: bool = True, unroll: bool = True) -> None:
    """Run LLVM's default pipeline over `module`, in place."""
    tuning = llvm.create_pipeline_tuning_options(speed_level=_PIPELINE_LEVEL)
    tuning.loop_vectorization = vectorise
    tuning.slp_vectorization = vectorise
    tuning.loop_interleaving = vectorise
    tuning.loop_unrolling = vectorise and unroll
    builder = llvm.create_pass_builder(target_machine(target), tuning)
    builder.getModulePassManager().run(module, builder)


def emit_object(module: llvm.ModuleRef, target: Target, label: str, imports: Iterable[str] = ()) -> bytes:
    """The relocatable object of `module`.

    Raises UndefinedSymbolError, naming `label` and the symbols, where it calls what neither it nor another object
    (`imports`) defines.
    """
    known = set(imports)
    missing = [
        value.name
        for value in (*module.functions, *module.global_variables)
        if value.is_declaration and not value.name.startswith("llvm.") and value.name not in known
    ]
    if missing:
        raise UndefinedSymbolError(f"{label}: calls functions that nothing defines: {', '.join(sorted(missing))}")
    return bytes(target_machine(target).emit_object(module))


def emit_assembly(module: llvm.ModuleRef, target: Target) -> str:
    """The assembly of `module`, for people to read."""
    return str(target_machine(target).emit_assembly(module))
