"""From a loaded model to the tensor IR, in one forward pass: types, shapes and known sizes are inferred on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.errors import CompileError, InvalidGraph, UnsupportedFeature
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, TensorType, Value
from onnxsmith_compiler.onnx import model as onnx_model
from onnxsmith_compiler.onnx.functions import expand_function, has_function_body
from onnxsmith_compiler.onnx.model import Model, OnnxGraph, OnnxNode, ValueInfo
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.onnx.op_table import find_importer
from onnxsmith_compiler.ops.base import ShapeError
from onnxsmith_compiler.ops.builder import GraphBuilder

DeclaredShape = tuple[int | str | None, ...] | None

_MISFITS = (ArithmeticError, AssertionError, IndexError, TypeError, ValueError)
"""What an importer runs into where ranks or attributes are others than its operator's."""


@dataclass(frozen=True, eq=False)
class Imported:
    """The graph, what the model declares about its inputs and outputs, and which initializers a feed may replace."""

    graph: Graph
    input_shapes: tuple[DeclaredShape, ...]
    output_shapes: tuple[DeclaredShape, ...]
    overridable: Mapping[str, Value]


def import_model(model: Model, fixed: Mapping[str, int] | None = None, denoted: Mapping[str, int] | None = None,
                 distinct: tuple[str, ...] = (), fold: bool = True) -> Imported:  # fmt: skip
    """The tensor IR of `model`. `fixed` gives symbols a size, `denoted` does so by what the model says they mean.

    Occurrences of the symbols in `distinct` in different inputs become symbols of their own.

    Raises UnsupportedFeature naming every unsupported operator at once, InvalidGraph for shapes that do not fit.
    """
    return _Importer(model, fixed or {}, denoted or {}, distinct, fold).run()


class _Importer:
    def __init__(
        self, model: Model, fixed: Mapping[str, int], denoted: Mapping[str, int], distinct: tuple[str, ...], fold: bool
    ) -> None:
        self.model = model
        self.fixed = fixed
        self.denoted = denoted
        self.distinct = distinct
        self.builder = GraphBuilder(fold=fold)
        self.values: dict[str, Value] = {}

    def run(self) -> Imported:
        graph = self.model.graph
        _check_supported(graph)
        self.builder.reserve(_symbols(graph))
        inputs = [self._input(number, info) for number, info in enumerate(graph.inputs)]
        for info in graph.overridable:
            inputs.append(self._overridable(graph, info))
        for name, array in graph.initializers.items():
            if name not in self.values:
                self.values[name] = self._constant(name, array)
        for node in graph.nodes:
            self._import(node)
        outputs = tuple((info.name, self._output(info)) for info in graph.outputs)
        built = Graph(
            tuple(inputs),
            outputs,
            tuple(self.builder.nodes),
            tuple(self.builder.late_symbols),
            tuple(self.builder.assumptions.values()),
        )
        _check_types(built)
        shapes = [self._declared(info) for info in (*graph.inputs, *graph.overridable)]
        overridable = {
            info.name: self._constant(info.name, graph.initializers[info.name]) for info in graph.overridable
        }
        return Imported(built, tuple(shapes), tuple(self._declared(info) for info in graph.outputs), overridable)

    def _constant(self, name: str, array: np.ndarray) -> Value:
        return self.builder.constant(array, name=self.builder.unique(name))

    def _input(self, number: int, info: ValueInfo) -> Value:
        declared = info.type
        if not isinstance(declared, onnx_model.TensorType):
            raise UnsupportedFeature(f"input '{info.name}' is no tensor: only tensor inputs are supported")
        if declared.shape is None:
            raise UnsupportedFeature(f"input '{info.name}' has no rank: declare as many dimensions as it has")
        shape = tuple(self._size(number, axis, size, declared) for axis, size in enumerate(declared.shape))
        value = Value(info.name, TensorType(declared.dtype, shape))
        self.builder.unique(info.name)
        self.values[info.name] = value
        return value

    def _size(self, number: int, axis: int, size: onnx_model.Dim, declared: onnx_model.TensorType) -> Dim:
        size = self._chosen(axis, size, declared)
        if size is None:
            return dims.symbol(self.builder.unique(f"?{number}.{axis}"))
        if isinstance(size, str):
            return dims.symbol(self.builder.unique(f"{size}.{number}.{axis}") if size in self.distinct else size)
        return size

    def _chosen(self, axis: int, size: onnx_model.Dim, declared: onnx_model.TensorType) -> onnx_model.Dim:
        """The declared size of dimension `axis`, or the one that the options fix it to."""
        if isinstance(size, int):
            return size
        denotation = declared.denotations[axis] if axis < len(declared.denotations) else None
        if denotation is not None and denotation in self.denoted:
            return self.denoted[denotation]
        return self.fixed.get(size, size) if size is not None else None

    def _declared(self, info: ValueInfo) -> DeclaredShape:
        declared = info.type
        if not isinstance(declared, onnx_model.TensorType) or declared.shape is None:
            return None
        return tuple(self._chosen(axis, size, declared) for axis, size in enumerate(declared.shape))

    def _overridable(self, graph: OnnxGraph, info: ValueInfo) -> Value:
        array = graph.initializers[info.name]
        value = Value(info.name, TensorType(dtypes.from_numpy(array.dtype), array.shape))
        self.values[info.name] = value
        return value

    def _import(self, node: OnnxNode) -> None:
        inputs = tuple(None if name is None else self.values[name] for name in node.inputs)
        importer = find_importer(node.domain, node.op_type, node.version)
        if importer is None:
            self._expand(node, inputs)
            return
        self.builder.origin = node.name
        try:
            results = importer(NodeImport(node, inputs, self.builder))
        except CompileError:
            raise
        except ShapeError as error:
            raise InvalidGraph(f"{node}: {error}") from error
        except KeyError as error:
            raise InvalidGraph(f"{node}: {error.args[0]}") from error
        except _MISFITS as error:
            raise InvalidGraph(f"{node}: its inputs and attributes do not go together ({error})") from error
        outputs = (results,) if isinstance(results, Value) else tuple(results)
        for name, value in zip(node.outputs, outputs, strict=False):
            if name is not None:
                if value is None:
                    raise UnsupportedFeature(f"{node}: output '{name}' is not supported")
                self.values[name] = value

    def _expand(self, node: OnnxNode, inputs: tuple[Value | None, ...]) -> None:
        types = [
            None if value is None else onnx_model.TensorType(value.dtype, tuple(_name_of(size) for size in value.shape))
            for value in inputs
        ]
        body = expand_function(node, types)
        if body is None:
            raise UnsupportedFeature(f"{node} has no implementation")
        for inner in body:
            self._import(inner)

    def _output(self, info: ValueInfo) -> Value:
        if info.name not in self.values:
            raise InvalidGraph(f"output '{info.name}' is computed by no node")
        return self.values[info.name]


def _symbols(graph: OnnxGraph) -> Iterator[str]:
    """The names that the model gives to sizes of its inputs."""
    for info in graph.inputs:
        if isinstance(info.type, onnx_model.TensorType):
            yield from (size for size in info.type.shape or () if isinstance(size, str))


def _check_types(graph: Graph) -> None:
    """Raises UnsupportedFeature for the first node that works on elements which kernels cannot address."""
    for node in graph.nodes:
        for value in (*node.operands(), *node.outputs):
            if value.dtype.kind in ("string", "complex"):
                raise UnsupportedFeature(f"node '{node.origin}': tensors of {value.dtype} are not supported")


def _check_supported(graph: OnnxGraph) -> None:
    """Raises one error that names every node whose operator has no importer and no function body."""
    missing: dict[str, list[str]] = {}
    for node in graph.nodes:
        if find_importer(node.domain, node.op_type, node.version) is None and not has_function_body(node):
            operator = f"{node.domain + '.' if node.domain else ''}{node.op_type} (opset {node.version})"
            missing.setdefault(operator, []).append(node.name)
    if missing:
        listed = "; ".join(f"{operator}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
                           for operator, names in sorted(missing.items()))  # fmt: skip
        raise UnsupportedFeature(f"the model has operators that are not supported yet: {listed}")


def _name_of(size: Dim) -> int | str:
    return size if isinstance(size, int) else str(size)
