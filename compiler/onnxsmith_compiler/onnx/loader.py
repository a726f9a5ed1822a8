"""Any model a user passes to a checked `Model`."""

from __future__ import annotations

import os
from collections.abc import Mapping

import onnx

from onnxsmith_compiler.errors import (
    CompileError,
    EmptyModel,
    InvalidGraph,
    UnsupportedVersion,
    quoted,
)
from onnxsmith_compiler.onnx.check import checked_graph
from onnxsmith_compiler.onnx.convert import (
    Converter,
    FunctionBody,
    FunctionKey,
    function_key,
    imports_of,
)
from onnxsmith_compiler.onnx.external_data import ExternalData
from onnxsmith_compiler.onnx.inline import Inliner
from onnxsmith_compiler.onnx.limits import Budget, LoadLimits
from onnxsmith_compiler.onnx.model import Metadata, Model, OnnxGraph
from onnxsmith_compiler.onnx.names import NamePool, text
from onnxsmith_compiler.onnx.rename import all_names
from onnxsmith_compiler.onnx.schema import NEWEST_OPSETS, check_schemas
from onnxsmith_compiler.onnx.source import ModelSource, ParsedSource, read_source
from onnxsmith_compiler.onnx.tensors import TensorReader

IR_VERSIONS = range(3, 15)
DEFAULT_OPSETS: Mapping[str, int] = {**NEWEST_OPSETS, "com.microsoft": 1}
"""Operator sets of domains that a model uses without importing them, as in onnxruntime."""

DEFAULT_LIMITS = LoadLimits()


def load_model(
    source: ModelSource,
    *,
    base_dir: str | os.PathLike[str] | None = None,
    limits: LoadLimits = DEFAULT_LIMITS,
) -> Model:
    """Reads, checks and inlines a model.

    `source` is a path (binary, or text by its suffix: .json, .textproto, ...), the bytes of a serialized
    ModelProto, or a ModelProto. External data is looked up in `base_dir`, if None in the folder of the path.
    The arrays of the result are views of the file where it stores them as numpy does: do not truncate it.

    Raises TypeError for another kind of source, a subclass of CompileError for anything wrong with the model.
    """
    try:
        return _load(read_source(source, base_dir), limits)
    except CompileError as error:
        if isinstance(source, str | os.PathLike):
            raise type(error)(f"{quoted(os.fspath(source))}: {error.message}") from None
        raise


def _load(parsed: ParsedSource, limits: LoadLimits) -> Model:
    proto = parsed.proto
    if not proto.HasField("graph"):
        raise EmptyModel("no graph was found in the protobuf")
    opsets = _checked_versions(proto)
    external = ExternalData(parsed.folder)
    budget = Budget(limits)
    graph = _graph(proto, opsets, TensorReader(parsed.payloads, external, budget), budget)
    return Model(
        ir_version=proto.ir_version,
        opset_imports=opsets,
        graph=graph,
        metadata=_metadata(proto),
        external_files=external.files,
    )


def _graph(proto: onnx.ModelProto, opsets: Mapping[str, int], reader: TensorReader, budget: Budget) -> OnnxGraph:
    functions = _functions_by_key(proto)
    node_names = NamePool()
    converter = Converter(reader, budget, node_names, frozenset(functions))
    graph = converter.main_graph(proto.graph, {**DEFAULT_OPSETS, **opsets}, proto.ir_version)
    if functions:
        bodies: dict[FunctionKey, FunctionBody] = {
            key: converter.function(function) for key, function in functions.items()
        }
        graph = Inliner(bodies, NamePool(all_names(graph)), node_names, budget).graph(graph)
    graph = checked_graph(graph)
    check_schemas(graph)
    return graph


def _checked_versions(proto: onnx.ModelProto) -> dict[str, int]:
    """The model's operator set imports."""
    if proto.ir_version not in IR_VERSIONS:
        raise UnsupportedVersion(
            f"the model has IR version {proto.ir_version}, known are {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}"
        )
    opsets = imports_of(proto.opset_import)
    if not opsets:
        raise UnsupportedVersion("the model imports no operator set (its opset_import is empty)")
    for domain, version in opsets.items():
        newest = NEWEST_OPSETS.get(domain, version)
        if not 1 <= version <= newest:
            raise UnsupportedVersion(
                f"the model imports version {version} of operator set {quoted(domain or 'ai.onnx')}, "
                f"known are 1 to {newest}"
            )
    return opsets


def _functions_by_key(proto: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    functions: dict[FunctionKey, onnx.FunctionProto] = {}
    for function in proto.functions:
        key = function_key(function)
        if key in functions:
            raise InvalidGraph(f"function {quoted(key[1])} of domain {quoted(key[0])} is defined twice")
        functions[key] = function
    return functions


def _metadata(proto: onnx.ModelProto) -> Metadata:
    return Metadata(
        producer_name=text(proto.producer_name),
        graph_name=text(proto.graph.name),
        domain=text(proto.domain),
        description=text(proto.doc_string),
        graph_description=text(proto.graph.doc_string),
        version=proto.model_version,
        custom_metadata_map={text(entry.key): text(entry.value) for entry in proto.metadata_props},
    )
