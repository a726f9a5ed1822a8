"""What a session says about its model: inputs, outputs and metadata, as onnxruntime's classes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxsmith.forks import UNDIVIDED
from onnxsmith.record import Record

if TYPE_CHECKING:
    from onnxsmith.program import Program, Tensor

Array: TypeAlias = np.ndarray[Any, np.dtype[np.generic]]

# ONNX's names of element types where they differ from the program's.
_ONNX_NAMES = {"float32": "float", "float64": "double"}

# Program dtype names by TensorProto.DataType, from 1 on.
_BY_ONNX_CODE = (
    "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64",
    "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2",
    "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0", "uint2", "int2",
)  # fmt: skip

# Program dtype name -> (ml_dtypes name), for element types that numpy does not have.
ML_DTYPES = {
    "bfloat16": "bfloat16",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu",
    "float4e2m1": "float4_e2m1fn",
    "int4": "int4",
    "uint4": "uint4",
    "int2": "int2",
    "uint2": "uint2",
}
_PROGRAM_NAMES = {onnx: program for program, onnx in _ONNX_NAMES.items()}
_FROM_ML_DTYPES = {ml: program for program, ml in ML_DTYPES.items()}


class NodeArg(Record):
    """One input or output of a model.

    `type` is ONNX's name such as 'tensor(float)'. `shape` has an int for a fixed dimension, a str for a
    symbol and None for an unknown one; it is empty for a scalar and for a tensor of unknown rank.
    """

    name: str
    type: str
    shape: list[int | str | None]


class ModelMetadata(Record):
    """What a model says of itself; `version` is the model's own version number."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    custom_metadata_map: Mapping[str, str] = MappingProxyType({})


def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """The numpy dtype that holds elements of program type `name` ("float32", "bfloat16", "string", ...).

    ml_dtypes is imported for the types that numpy lacks, and only then. KeyError for an unknown name.
    """
    if name == "string":
        return np.dtype(object)
    if name in ML_DTYPES:
        with UNDIVIDED:
            import ml_dtypes

        dtype: np.dtype[np.generic] = np.dtype(getattr(ml_dtypes, ML_DTYPES[name]))
        return dtype
    try:
        return np.dtype(name)
    except TypeError:
        raise KeyError(f"no element type '{name}'") from None


def program_dtype(dtype: np.dtype[np.generic]) -> str:
    """The program's name of numpy's `dtype`: "float32", "bfloat16", "string", ..."""
    return "string" if dtype.kind in "OUST" else _FROM_ML_DTYPES.get(dtype.name, dtype.name)


def onnx_code(dtype: np.dtype[np.generic]) -> int:
    """The TensorProto.DataType of numpy's `dtype`. KeyError where ONNX has no such type."""
    name = program_dtype(dtype)
    if name not in _BY_ONNX_CODE:
        raise KeyError(f"ONNX has no element type '{name}'")
    return _BY_ONNX_CODE.index(name) + 1


def numpy_dtype_from_code(code: int) -> np.dtype[np.generic]:
    """The numpy dtype of a TensorProto.DataType. KeyError for an unknown code."""
    if not 1 <= code <= len(_BY_ONNX_CODE):
        raise KeyError(f"no ONNX element type has the number {code}")
    return numpy_dtype(_BY_ONNX_CODE[code - 1])


def tensor_type(name: str) -> str:
    """'tensor(float)' for the program type "float32"."""
    return f"tensor({_ONNX_NAMES.get(name, name)})"


def tensor_type_of(dtype: np.dtype[np.generic]) -> str:
    """'tensor(float)' for numpy's float32; numpy's own name where ONNX has no such type."""
    return tensor_type(program_dtype(dtype))


def numpy_dtype_of(tensor_type: str) -> np.dtype[np.generic]:
    """numpy's float32 for 'tensor(float)'. KeyError where it is no tensor or numpy and ml_dtypes lack it."""
    name = tensor_type.removeprefix("tensor(").removesuffix(")")
    return numpy_dtype(_PROGRAM_NAMES.get(name, name))


def node_arg(tensor: Tensor) -> NodeArg:
    """The description of a program's input or output."""
    return NodeArg(tensor.name, tensor_type(tensor.dtype), list(tensor.shape or ()))


def model_metadata(program: Program) -> ModelMetadata:
    """The metadata that the compiler copied from the model into `program`."""
    known = program.metadata
    return ModelMetadata(
        producer_name=known.get("producer_name", ""),
        graph_name=known.get("graph_name", ""),
        domain=known.get("domain", ""),
        description=known.get("description", ""),
        graph_description=known.get("graph_description", ""),
        version=int(known.get("version", "0")),
        custom_metadata_map=dict(program.custom_metadata),
    )
