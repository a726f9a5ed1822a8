"""Reading elements by position: Gather, GatherElements, GatherND."""

from __future__ import annotations

from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.gather import Gather, GatherElements, GatherND


def gather(node: NodeImport) -> Value:
    data = node.input(0)
    return node.emit(Gather(normalize_axis(node.int("axis", 0), data.rank)), data, node.input(1))


def gather_elements(node: NodeImport) -> Value:
    data = node.input(0)
    return node.emit(GatherElements(normalize_axis(node.int("axis", 0), data.rank)), data, node.input(1))


def gather_nd(node: NodeImport) -> Value:
    return node.emit(GatherND(node.int("batch_dims", 0)), node.input(0), node.input(1))
