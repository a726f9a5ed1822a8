"""Loaded models back to protobuf, so that another engine can say what they compute."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper, numpy_helper

from onnxsmith_compiler.onnx.model import Model, OnnxGraph, OnnxNode, ValueInfo
from onnxsmith_compiler.onnx.to_proto import attribute_proto, node_proto, type_proto


def export_model(model: Model) -> onnx.ModelProto:
    """A ModelProto with the newest operator set version of any node, per domain."""
    versions = dict(model.opset_imports)
    for node in _all_nodes(model.graph):
        versions[node.domain] = max(node.version, versions.get(node.domain, 1))
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(export_graph(model.graph), opset_imports=imports, ir_version=model.ir_version)


def export_graph(graph: OnnxGraph) -> onnx.GraphProto:
    return helper.make_graph(
        [export_node(node) for node in graph.nodes],
        graph.name or "graph",
        _value_infos((*graph.inputs, *graph.overridable)),
        _value_infos(graph.outputs),
        [numpy_helper.from_array(value, name) for name, value in graph.initializers.items()],
    )


def export_node(node: OnnxNode) -> onnx.NodeProto:
    attributes = []
    for name, value in node.attributes.items():
        if isinstance(value, OnnxGraph):
            attributes.append(helper.make_attribute(name, export_graph(value)))
        else:
            empty = isinstance(value, tuple) and not value
            attributes.append(attribute_proto(name, value, onnx.AttributeProto.INTS if empty else None))
    return node_proto(node, attributes)


def _value_infos(infos: Sequence[ValueInfo]) -> list[onnx.ValueInfoProto]:
    return [helper.make_value_info(info.name, type_proto(info.type)) for info in infos]


def _all_nodes(graph: OnnxGraph) -> list[OnnxNode]:
    nodes = list(graph.nodes)
    for node in graph.nodes:
        for _, subgraph in node.subgraphs():
            nodes += _all_nodes(subgraph)
    return nodes
