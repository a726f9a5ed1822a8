"""Runs kernels printed for CUDA in numba's simulator: `NUMBA_ENABLE_CUDASIM=1 python -m <this module>`.

The simulator is chosen when numba is imported, so that this is a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import cuda
from tests.graphs import Array, Sketch, normal

from onnxsmith_compiler.codegen.cuda import CudaKernel, print_cuda
from onnxsmith_compiler.codegen.loop_style import CUDA_BLOCK
from onnxsmith_compiler.codegen.namespace import REFERENCE_NAMESPACE
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.graph import Graph, Value
from onnxsmith_compiler.schedule.fusion import schedule


def pointwise(rows: int, columns: int) -> tuple[Sketch, Array]:
    x, bias = normal(rows, columns), normal(columns, seed=1)
    sketch = Sketch()
    total = sketch.map("add", sketch.fed(x, "n"), sketch.constant(bias))
    sketch.output(sketch.map("mul", sketch.map("tanh", total), 0.5))
    return sketch, np.tanh(x + bias) * np.float32(0.5)


def row_sums(rows: int, columns: int) -> tuple[Sketch, Array]:
    x = normal(rows, columns)
    sketch = Sketch()
    sketch.output(sketch.reduce("sum", sketch.fed(x, "n"), 1))
    return sketch, x.sum(axis=1, keepdims=True)


def softmax(rows: int, columns: int) -> tuple[Sketch, Array]:
    x = normal(rows, columns)
    sketch = Sketch()
    sketch.output(sketch.softmax(sketch.fed(x, "n")))
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return sketch, powers / powers.sum(axis=1, keepdims=True)


CASES: tuple[Callable[[int, int], tuple[Sketch, Array]], ...] = (pointwise, row_sums, softmax)
SIZES = ((1, 5), (2, 7), (3, 129), (2, 300))


def launch(kernel: CudaKernel, arrays: dict[Value, Array], sizes: dict[str, int]) -> None:
    """Runs the kernel; its results go into the arrays of the values it writes."""
    blocks = dims.evaluate(kernel.blocks, sizes)
    arguments: list[object] = []
    given = iter(kernel.arguments)
    for parameter in kernel.parameters:
        if parameter.name.startswith("memory_"):
            arguments.append(np.zeros(blocks * dims.evaluate(kernel.row_bytes, sizes), np.float32))
            continue
        argument = next(given)
        arguments.append(arrays[argument] if isinstance(argument, Value) else dims.evaluate(argument, sizes))
    scope: dict[str, object] = {**REFERENCE_NAMESPACE, "cuda": cuda}
    exec(compile(kernel.text, "<cuda kernel>", "exec"), scope)
    cuda.jit(scope["kernel"])[blocks, CUDA_BLOCK](*arguments)


def run(graph: Graph, feeds: dict[str, Array], sizes: dict[str, int]) -> Array:
    """The graph's only output, computed by CUDA kernels alone."""
    arrays = {value: feeds[value.name].reshape(-1) for value in graph.inputs}
    for node in graph.nodes:
        for value in node.operands():
            if value.data is not None:
                arrays[value] = np.asarray(value.data).reshape(-1)
        for value in node.outputs:
            arrays[value] = np.zeros(dims.evaluate(value.type.size, sizes), value.dtype.storage)
    for group in schedule(graph).groups:
        launch(print_cuda(group, frozenset(group.outputs) & graph.kept_values()), arrays, sizes)  # type: ignore[arg-type]
    ((_, result),) = graph.outputs
    return arrays[result]


def main() -> None:
    for case in CASES:
        for rows, columns in SIZES:
            sketch, expected = case(rows, columns)
            result = run(sketch.graph(), sketch.feeds, {"n": rows})
            np.testing.assert_allclose(result.reshape(expected.shape), expected, 1e-5, 1e-6)
            print(f"{case.__name__} {rows} {columns}")


if __name__ == "__main__":
    main()
