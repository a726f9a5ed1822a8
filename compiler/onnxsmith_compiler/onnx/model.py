"""A model in memory, free of protobuf: what the loader returns and the importer reads.

Mappings are read-only by type; arrays may be read-only and unaligned views of the model's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from onnxsmith_compiler.errors import quoted
from onnxsmith_compiler.ir.dtype import DType

Array: TypeAlias = npt.NDArray[Any]
Dim: TypeAlias = int | str | None
"""One dimension: its size, the name of a symbol, or None where nothing is known."""


@dataclass(frozen=True)
class TensorType:
    """A dense tensor. `shape` is None where not even the rank is known.

    `denotations` holds what the model says a dimension means (such as "DATA_BATCH"), or is empty.
    """

    dtype: DType
    shape: tuple[Dim, ...] | None
    denotations: tuple[str | None, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class SparseTensorType:
    """A sparse tensor in coordinate form."""

    dtype: DType
    shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class SequenceType:
    """A list of values of one type; `element` is None where the model does not say which."""

    element: OnnxType | None


@dataclass(frozen=True)
class OptionalType:
    """A value or its absence."""

    element: OnnxType | None


@dataclass(frozen=True)
class MapType:
    """A dictionary; keys are integers or strings."""

    key: DType
    value: OnnxType | None


@dataclass(frozen=True)
class OpaqueType:
    """A type that only its producer understands."""

    domain: str
    name: str


OnnxType: TypeAlias = TensorType | SparseTensorType | SequenceType | OptionalType | MapType | OpaqueType


@dataclass(frozen=True)
class ValueInfo:
    """A named value and its declared type, None where the model declares none."""

    name: str
    type: OnnxType | None


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """A sparse tensor attribute: `values` of shape (n,), row-major `indices` of shape (n,), dense `shape`."""

    values: Array
    indices: npt.NDArray[np.int64]
    shape: tuple[int, ...]

    def to_dense(self) -> Array:
        """The same tensor with its zeros written out."""
        dense = np.zeros(int(np.prod(self.shape, dtype=np.int64)), self.values.dtype)
        dense[self.indices] = self.values
        return dense.reshape(self.shape)


Scalar: TypeAlias = "int | float | str | bytes | Array | SparseTensor | OnnxGraph | OnnxType"
AttributeValue: TypeAlias = "Scalar | tuple[Scalar, ...]"
"""ONNX lists (INTS, FLOATS, STRINGS, TENSORS, GRAPHS, ...) are tuples. A string that is no UTF-8 is bytes."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """One operator call.

    `name` is never empty and unique within the model (a nameless node is called "Add_3"); `domain` is "" for
    ai.onnx. `version` is the operator set version in force for the domain, not the one the operator was last
    changed in. An omitted optional input or output is None.

    `overload` and `references` (attribute name -> name of the enclosing function's attribute) matter only
    until functions are inlined: after loading both are empty.
    """

    name: str
    op_type: str
    domain: str
    version: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    overload: str = ""
    references: Mapping[str, str] = field(default_factory=dict)

    def input(self, index: int) -> str | None:
        """The name of an input; None where it is omitted, at the end of the list too."""
        return self.inputs[index] if index < len(self.inputs) else None

    def attribute(self, name: str, kind: type[T], default: T | None = None) -> T:
        """The attribute as a `kind`; `default` where it is absent. KeyError or TypeError otherwise."""
        value = self.attributes.get(name, default)
        if value is None:
            raise KeyError(f"{self} has no attribute '{name}'")
        if not isinstance(value, kind):
            raise TypeError(f"{self}: attribute '{name}' is a {type(value).__name__}, not a {kind.__name__}")
        return value

    def subgraphs(self) -> Iterator[tuple[str, OnnxGraph]]:
        """The graphs among the attributes, with the attribute each one came from."""
        for name, value in self.attributes.items():
            items = value if isinstance(value, tuple) else (value,)
            if items and isinstance(items[0], OnnxGraph):  # the items of a list are of one type
                yield from ((name, item) for item in items if isinstance(item, OnnxGraph))

    def __str__(self) -> str:
        kind = f"{self.domain}.{self.op_type}" if self.domain else self.op_type
        return f"node {quoted(self.name)} ({quoted(kind)[1:-1]})"


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """A graph or subgraph: every name is defined once and before its use.

    `inputs` are what a caller must feed. `overridable` are the initializers that a feed may replace (none in
    models of IR version below 4, where initializers are constants). `value_info` holds the declared types
    of values in between, hints only. In a subgraph, a name not defined here is one of an enclosing graph.
    """

    name: str
    nodes: tuple[OnnxNode, ...]
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    initializers: Mapping[str, Array] = field(default_factory=dict)
    overridable: tuple[ValueInfo, ...] = ()
    value_info: Mapping[str, ValueInfo] = field(default_factory=dict)


@dataclass(frozen=True)
class Metadata:
    """What a model says of itself, named as in onnxruntime's `ModelMetadata`."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    custom_metadata_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExternalFile:
    """A file of external data that was read: with these five a cache can tell whether it changed."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, eq=False)
class Model:
    """A checked model: functions inlined, nodes sorted, names unique, data in numpy arrays.

    `opset_imports` maps a domain to its operator set version ("" is ai.onnx).
    """

    ir_version: int
    opset_imports: Mapping[str, int]
    graph: OnnxGraph
    metadata: Metadata = Metadata()
    external_files: tuple[ExternalFile, ...] = ()
