"""Table-driven tests of operators: many cases merged into one model, each compared with what it should give.

A case is a small model with its inputs and the expected outputs. Merging keeps the tests fast: starting a
compilation costs a second, a case a few milliseconds.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx.compose
import onnx.reference
import onnxruntime
from onnx import helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

import onnxsmith

Array = np.ndarray[Any, np.dtype[Any]]
Oracle = Literal["onnxruntime", "reference"]


@dataclass(frozen=True, eq=False)
class Fixed:
    """An input that is an initializer of the model, so that its value is known when it is compiled."""

    array: Array


@dataclass(frozen=True, eq=False)
class Case:
    """A model, its feeds by name, and its expected outputs in order."""

    name: str
    model: onnx.ModelProto
    feeds: dict[str, Array]
    expected: tuple[Array, ...]
    rtol: float = 1e-5
    atol: float = 1e-6


def node_case(
    op_type: str,
    *inputs: Array | Fixed | None,
    opset: int,
    outputs: int = 1,
    domain: str = "",
    expected: Oracle | Sequence[Array] = "onnxruntime",
    symbolic: bool = True,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    **attributes: Any,
) -> Case:
    """A model of one node. Plain arrays are fed when it runs, None stands for an input that is left out.

    `symbolic`: every size of a fed input is a symbol of its own. `expected` names who computes the outputs,
    or gives them.
    """
    names = ["" if value is None else f"x{number}" for number, value in enumerate(inputs)]
    given = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
    fed = {name: value for name, value in given.items() if not isinstance(value, Fixed)}
    results = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(op_type, names, results, domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "case",
        [_declare(name, array, symbolic) for name, array in fed.items()],
        [onnx.ValueInfoProto(name=name) for name in results],
        [numpy_helper.from_array(v.array, n) for n, v in given.items() if isinstance(v, Fixed)],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    arrays = ask(model, fed, expected) if isinstance(expected, str) else list(expected)
    name = f"{op_type}-{opset} {' '.join(_describe(value) for value in inputs)} {attributes or ''}"
    return Case(name, model, fed, tuple(arrays), rtol, atol)


def _declare(name: str, array: Array, symbolic: bool) -> onnx.ValueInfoProto:
    shape = [f"{name}_{axis}" if symbolic else size for axis, size in enumerate(array.shape)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)


def _describe(value: Array | Fixed | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, Fixed):
        return f"fixed:{_describe(value.array)}"
    return f"{value.dtype}{list(value.shape)}"


def ask(model: onnx.ModelProto, feeds: dict[str, Array], oracle: str) -> list[Array]:
    if oracle == "reference":
        return [np.asarray(result) for result in onnx.reference.ReferenceEvaluator(model).run(None, feeds)]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def official_cases(*op_types: str, without: Iterable[str] = ()) -> list[Case]:
    """The ONNX project's own cases made of these operators alone, without those that `without` names."""
    left_out = set(without)
    cases = []
    for test in _official_tests():
        proto = test.model
        if test.name in left_out or not all(node.op_type in op_types for node in proto.graph.node):
            continue
        for inputs, outputs in test.data_sets:
            names = [info.name for info in proto.graph.input]
            feeds = {name: np.asarray(value) for name, value in zip(names, inputs, strict=True)}
            expected = tuple(np.asarray(value) for value in outputs)
            narrow = any(array.dtype == ml_dtypes.bfloat16 for array in expected)
            rtol = max(test.rtol, 2**-6) if narrow else test.rtol  # as the suite's own runner has it
            cases.append(Case(test.name, proto, feeds, expected, rtol, test.atol))
    return cases


@functools.cache
def _official_tests() -> Sequence[Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return load_model_tests(kind="node")


def check(cases: Sequence[Case], *, optimization_level: int = 99) -> None:
    """Runs the cases, those of the same opset versions in one model; AssertionError lists all that differ."""
    groups: dict[object, list[Case]] = {}
    for case in cases:
        imports = tuple(sorted((entry.domain, entry.version) for entry in case.model.opset_import))
        groups.setdefault((imports, case.model.ir_version), []).append(case)
    wrong: list[str] = []
    for group in groups.values():
        wrong += _check_together(group, optimization_level)
    assert not wrong, f"{len(wrong)} of {len(cases)} cases:\n" + "\n".join(wrong)


def _check_together(cases: Sequence[Case], optimization_level: int) -> list[str]:
    merged = onnx.ModelProto()
    merged.CopyFrom(cases[0].model)
    merged.ClearField("graph")
    merged.graph.name = "cases"
    feeds: dict[str, Array] = {}
    for number, case in enumerate(cases):
        prefix = f"c{number}_"
        graph = onnx.compose.add_prefix_graph(case.model.graph, prefix)
        for info in graph.input:
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = prefix + dim.dim_param
        for node in graph.node:
            node.name = case.name
        for part in ("node", "input", "output", "initializer", "sparse_initializer"):
            getattr(merged.graph, part).extend(getattr(graph, part))
        feeds |= {prefix + name: array for name, array in case.feeds.items()}
    found = run(merged, feeds, optimization_level)
    wrong = []
    for case in cases:
        arrays, found = found[: len(case.expected)], found[len(case.expected) :]
        wrong += [f"{case.name}: {why}" for why in _differences(case, arrays)]
    return wrong


def run(model: onnx.ModelProto, feeds: dict[str, Array], optimization_level: int = 99) -> list[Array]:
    """The outputs of `model` compiled by onnxsmith."""
    options = onnxsmith.SessionOptions()
    options.graph_optimization_level = onnxsmith.GraphOptimizationLevel(optimization_level)
    options.intra_op_num_threads = 2
    session = onnxsmith.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, feeds))


def _differences(case: Case, arrays: Sequence[Array]) -> Iterable[str]:
    for number, (found, wanted) in enumerate(zip(arrays, case.expected, strict=True)):
        if found.dtype != wanted.dtype or found.shape != wanted.shape:
            yield f"output {number} is {_describe(found)}, expected {_describe(wanted)}"
        elif not _close(found, wanted, case.rtol, case.atol):
            yield f"output {number} is {_short(found)}, expected {_short(wanted)}"


def _close(found: Array, wanted: Array, rtol: float, atol: float) -> bool:
    if wanted.dtype.kind in "biu" or found.size == 0:
        return bool(np.array_equal(found, wanted))
    if wanted.dtype.kind in "OSU":
        return found.tolist() == wanted.tolist()
    kind = np.complex128 if wanted.dtype.kind == "c" else np.float64
    return bool(np.allclose(found.astype(kind), wanted.astype(kind), rtol, atol, equal_nan=True))


def _short(array: Array) -> str:
    return np.array2string(array, threshold=20, max_line_width=200, precision=6).replace("\n", "")
