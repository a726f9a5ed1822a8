"""ai.onnx.ml LabelEncoder between numbers; strings are refused."""

from __future__ import annotations

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.look_up import LookUp

_LISTS = (("int64s", np.int64), ("floats", np.float32))
_STRINGS = ("classes_strings", "keys_strings", "values_strings")


def label_encoder(node: NodeImport) -> Value:
    """Each element of x by the value of its key, of two equal keys the first; NaN equals NaN since version 4."""
    if any(node.attribute(name) for name in _STRINGS):
        raise node.unsupported("labels that are strings")
    x, keys, values = node.input(0), _table(node, "keys"), _table(node, "values")
    if len(keys) != len(values):
        raise node.invalid(f"there are {len(keys)} keys and {len(values)} values: expected as many")
    if keys.dtype != x.dtype.storage:
        raise node.invalid(f"keys are {keys.dtype}, and the input is {x.dtype}: expected one type")
    default = _default(node, values.dtype)
    missing = np.isnan(keys) if keys.dtype.kind == "f" else np.zeros(len(keys), bool)
    ordered, first = np.unique(keys[~missing], return_index=True)
    kind = dtypes.from_numpy(values.dtype)
    if len(ordered):
        table = np.append(values[~missing][first], default)
        result = node.emit(LookUp(), x, node.builder.constant(ordered), node.builder.constant(table))
    else:
        result = node.expand(node.constant(default, kind), x.shape)
    if missing.any() and node.version >= 4:
        result = node.select(node.map("isnan", x), node.constant(values[missing][0], kind), result)
    return result


def _table(node: NodeImport, name: str) -> np.ndarray:
    """`keys` or `values`: a list of integers, of floats, or a tensor."""
    tensor = node.attribute(f"{name}_tensor")
    if tensor is not None:
        if not isinstance(tensor, np.ndarray) or tensor.ndim != 1:
            raise node.invalid(f"attribute '{name}_tensor' is no vector")
        if tensor.dtype.kind not in "if":
            raise node.unsupported("labels that are strings")
        return tensor
    for suffix, dtype in _LISTS:
        given = node.attribute(f"{name}_{suffix}")
        if given is not None:
            return np.asarray(given, dtype)
    raise node.invalid(f"there are no {name}: expected one of the attributes {name}_*")


def _default(node: NodeImport, dtype: np.dtype) -> np.ndarray:
    """What becomes of other elements: -1, or -0.0 where values are floats, unless the model says."""
    tensor = node.attribute("default_tensor")
    if isinstance(tensor, np.ndarray):
        if tensor.size != 1 or tensor.dtype != dtype:
            raise node.invalid(
                f"attribute 'default_tensor' is {tensor.dtype}{list(tensor.shape)}: expected one {dtype}"
            )
        return tensor.reshape(())
    if dtype.kind == "f":
        return np.asarray(node.float("default_float", -0.0), dtype)
    return np.asarray(node.int("default_int64", -1), dtype)
