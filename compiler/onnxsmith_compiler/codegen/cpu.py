"""Prints every group of a schedule as a kernel for a CPU, with the arguments its step passes."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from onnxsmith_compiler.codegen.contractions import print_contraction
from onnxsmith_compiler.codegen.kernel_text import PrintedKernel, PrintedStep
from onnxsmith_compiler.codegen.library.table import LIBRARY
from onnxsmith_compiler.codegen.loop_printer import print_loops
from onnxsmith_compiler.codegen.recurrent import print_recurrence
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.lowering import Contract, LibraryCall
from onnxsmith_compiler.ops.recurrent import PackedRecurrence
from onnxsmith_compiler.schedule.groups import CallGroup, ContractGroup, Group, LoopGroup
from onnxsmith_compiler.schedule.work import call_work, loop_work


def print_group(group: Group, kept: frozenset[Value], target: Target) -> Iterable[PrintedStep]:
    """The steps that compute `group`; `kept` are the values that other groups, or the caller, read."""
    match group:
        case LoopGroup():
            kernel = print_loops(group, kept)
            writes = tuple(value for value in group.outputs if value in kept)
            yield PrintedStep(kernel, writes, kernel.source.label, group.origins, loop_work(group, kept))
        case CallGroup(calls=calls, temporaries=temporaries):
            written: tuple[Value, ...] = (*group.outputs, *temporaries)
            for call in calls:
                own = tuple(value for value in call.arguments if isinstance(value, Value) and value in written)
                work = call_work(call.arguments)
                yield PrintedStep(print_call(call, own), own, call.function, group.origins, work)
        case ContractGroup(contract=Contract(kernel=PackedRecurrence() as op)):
            yield from print_recurrence(group, op, target)
        case ContractGroup():
            yield from print_contraction(group, target)


def print_call(call: LibraryCall, written: Sequence[Value]) -> PrintedKernel:
    """A library kernel with its parameters typed by what the call passes."""
    text = LIBRARY[call.function](call)
    (definition,) = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    names = [argument.arg for argument in definition.args.args][1:-2]
    parameters = tuple(
        Parameter(name, f"{argument.dtype}*", noalias=True) if isinstance(argument, Value) else Parameter(name, "int64")
        for name, argument in zip(names, call.arguments, strict=True)
    )
    source = KernelSource(call.function, text, parameters)
    return PrintedKernel(source, call.arguments, call.tiles, call.cost, call.scratch)
