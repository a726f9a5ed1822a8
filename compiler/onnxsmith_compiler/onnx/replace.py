"""Models with some initializers replaced, before they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from onnxsmith_compiler.errors import CompileError, MalformedModel, quoted


class WrongInitializer(CompileError):
    """A replacement for an initializer that the model does not have, or that has another type or shape."""

    code = "InvalidArgument"


def replace_initializers(source: Path | bytes, arrays: Mapping[str, npt.NDArray[np.generic]]) -> onnx.ModelProto:
    """The model with the named initializers set to `arrays`, which have their types and shapes.

    An initializer whose data is in an external file needs that file no more. Raises MalformedModel and
    WrongInitializer.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise MalformedModel(f"not an ONNX model, or a truncated one: {error}") from None
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, array in arrays.items():
        if name not in tensors:
            raise WrongInitializer(f"the model has no initializer {quoted(name)} that could be replaced")
        _replace(tensors[name], array)
    return model


def _replace(tensor: onnx.TensorProto, array: npt.NDArray[np.generic]) -> None:
    new = numpy_helper.from_array(array, tensor.name)
    if new.data_type != tensor.data_type or list(new.dims) != list(tensor.dims):
        declared = f"{onnx.TensorProto.DataType.Name(tensor.data_type)}{list(tensor.dims)}"
        given = f"{onnx.TensorProto.DataType.Name(new.data_type)}{list(new.dims)}"
        raise WrongInitializer(f"initializer {quoted(tensor.name)} is {declared}; its replacement is {given}")
    tensor.CopyFrom(new)
