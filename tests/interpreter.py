"""Runs a graph without compiling it: its printed kernels as plain Python, and the operators' own numpy forms.

Kernels run on flat numpy arrays of just the right length, so that an element out of bounds is an IndexError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from onnxsmith_compiler.codegen.kernel_text import PrintedStep
from onnxsmith_compiler.codegen.namespace import define_kernel
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, TensorType, Value
from onnxsmith_compiler.ir.polynomial import Poly
from onnxsmith_compiler.ops.base import Op
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import print_steps, run_passes
from onnxsmith_compiler.schedule.fusion import resolve, schedule

Array = np.ndarray[Any, np.dtype[Any]]

HOST = Target.generic_x86_64("v3")
_POISON = 0x55


class Fault(Exception):
    """A kernel returned a fault code: code, value and limit."""


class Context(np.ndarray[Any, np.dtype[np.int64]]):
    """What kernels take for `ctx`: its words, and the thread's scratch memory."""

    scratch: Array

    @staticmethod
    def of(scratch_bytes: int) -> Context:
        context = np.zeros(16, np.int64).view(Context)
        memory = np.full(scratch_bytes + 64, _POISON, np.uint8)
        start = -memory.ctypes.data % 64
        context.scratch = memory[start : start + scratch_bytes]
        return context


def run_kernels(
    graph: Graph, feeds: Mapping[str, Array], options: CompileOptions | None = None, target: Target = HOST
) -> list[Array]:
    """The outputs of `graph` as its passes, schedule and printed kernels compute them. Raises Fault."""
    options = options or CompileOptions()
    graph = run_passes(graph, options, target)
    scheduled = schedule(graph, options.fuse)
    return run_steps(graph, print_steps(graph, scheduled, target), scheduled.aliases, feeds)


def run_steps(
    graph: Graph, steps: Sequence[PrintedStep], aliases: dict[Value, Value], feeds: Mapping[str, Array]
) -> list[Array]:
    """The outputs of `graph` as these steps compute them."""
    memory = {value: np.ascontiguousarray(feeds[value.name]).reshape(-1) for value in graph.inputs}
    sizes = input_sizes(graph, feeds)

    def number(size: Dim) -> int:
        return dims.evaluate(size, sizes)

    def array(value: Value, written: bool) -> Array:
        value = resolve(value, aliases)
        if value.data is not None:
            return np.ascontiguousarray(value.data).reshape(-1)
        if value not in memory:
            assert written, f"{value!r} is read before it is written"
            length = number(value.type.size) * value.dtype.itemsize
            memory[value] = np.full(length, _POISON, np.uint8).view(value.dtype.storage)
        return memory[value]

    for step in steps:
        kernel = step.kernel
        arguments = [
            array(argument, argument in step.writes) if isinstance(argument, Value) else number(argument)
            for argument in kernel.arguments
        ]
        context = Context.of(number(kernel.scratch))
        with np.errstate(all="ignore"):
            status = define_kernel(kernel.source.text)(context, *arguments, 0, number(kernel.tiles))
        if status:
            raise Fault(int(status), int(context[3]), int(context[4]))
        written = {resolve(value, aliases): memory[resolve(value, aliases)] for value in step.writes}
        _bind_late(graph, sizes, lambda value, written=written: written.get(resolve(value, aliases)))
    return [array(value, False).reshape([number(size) for size in value.shape]) for _, value in graph.outputs]


def run_operators(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of `graph` by `Op.evaluate` of each operator, which must offer it."""
    sizes = input_sizes(graph, feeds)
    known: dict[Value, Array] = {value: feeds[value.name] for value in graph.inputs}

    def operand(value: Value | None) -> Array | None:
        return None if value is None else known[value] if value.data is None else value.data

    for node in graph.nodes:
        types = [TensorType(v.dtype, tuple(dims.evaluate(size, sizes) for size in v.shape)) for v in node.outputs]
        with np.errstate(all="ignore"):
            results = fixed(node.op, sizes).evaluate([operand(value) for value in node.inputs], types)
        assert results is not None, f"{node.op} has no numpy form"
        for value, type_, result in zip(node.outputs, types, results, strict=True):
            known[value] = np.asarray(result).astype(type_.dtype.storage).reshape(type_.shape)  # type: ignore[arg-type]
        _bind_late(graph, sizes, known.get)
    return [np.asarray(operand(value)) for _, value in graph.outputs]


def input_sizes(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, int]:
    """The sizes that the inputs' shapes, and their elements, give to symbols."""
    sizes: dict[str, int] = {}
    for value in graph.inputs:
        for size, length in zip(value.shape, feeds[value.name].shape, strict=True):
            if isinstance(size, Poly):
                sizes.setdefault(str(size), length)
            assert dims.evaluate(size, sizes) == length
    _bind_late(graph, sizes, lambda value: feeds[value.name] if value in graph.inputs else value.data)
    return sizes


def _bind_late(graph: Graph, sizes: dict[str, int], find: Callable[[Value], Array | None]) -> None:
    """Binds the late symbols whose tensors `find` knows."""
    for late in graph.late_symbols:
        elements = find(late.source)
        if elements is not None:
            sizes[late.name] = int(elements.reshape(-1)[late.element])


def fixed(op: Op, sizes: Mapping[str, int]) -> Op:
    """The operator with the sizes in its attributes known."""
    return replace(op, **{field.name: _fixed(getattr(op, field.name), sizes) for field in fields(op)})


def _fixed(attribute: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(attribute, Poly):
        return dims.evaluate(attribute, sizes)
    if isinstance(attribute, tuple):
        return tuple(_fixed(element, sizes) for element in attribute)
    assert not is_dataclass(attribute) or not isinstance(attribute, Op)
    return attribute
