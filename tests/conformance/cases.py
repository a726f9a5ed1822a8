"""The cases of the official ONNX backend suite that need no download, each with its model and its data."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import loader
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import Runner

KINDS = ("node", "simple", "light", "pytorch-converted", "pytorch-operator")
_LIGHT = Path(loader.__file__).parent.parent / "data" / "light"


@dataclass(frozen=True, eq=False)
class DataSet:
    """Inputs in the order of the model's inputs, and expected outputs: arrays, or lists of them, or None."""

    inputs: Sequence[Any]
    outputs: Sequence[Any]


@dataclass(frozen=True, eq=False)
class OfficialCase:
    """One case; `rtol` and `atol` are what the suite allows for it."""

    name: str
    kind: str
    rtol: float
    atol: float
    test: TestCase

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators of the model, each once."""
        return tuple(dict.fromkeys(node.op_type for node in self.model().graph.node))

    def model(self) -> onnx.ModelProto:
        if self.test.model is not None:
            return self.test.model
        return onnx.load(_model_path(self.test))

    def data_sets(self) -> Iterator[DataSet]:
        if self.test.data_sets is not None:
            for inputs, outputs in self.test.data_sets:
                yield DataSet([_array(value) for value in inputs], [_array(value) for value in outputs])
        elif self.kind == "light":
            yield _light_data(self.model(), _model_path(self.test))
        else:
            for folder in sorted(Path(self.test.model_dir or "").glob("test_data_set*")):
                yield _stored_data(self.model(), folder)


@functools.cache
def official_cases() -> Mapping[str, OfficialCase]:
    """All cases by name, in the order of the suite."""
    cases: dict[str, OfficialCase] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for kind in KINDS:
            for test in _load(kind):
                if test.name in cases:
                    raise ValueError(f"the suite has two cases named {test.name}")
                cases[test.name] = OfficialCase(test.name, kind, test.rtol, test.atol, test)
    return cases


def _load(kind: str) -> Sequence[TestCase]:
    """The suite's "real" cases are the light ones: their models are in the onnx package, with constant weights."""
    if kind == "node":
        return loader.load_model_tests(kind=kind)
    found = loader.load_model_tests(kind="real" if kind == "light" else kind)
    return sorted(found, key=lambda test: test.name)


def _model_path(test: TestCase) -> Path:
    if test.model_dir is not None:
        return Path(test.model_dir) / "model.onnx"
    return _LIGHT / Path(test.url or "").name


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _light_data(model: onnx.ModelProto, path: Path) -> DataSet:
    """Inputs as the suite's own runner makes them up; the outputs stand beside the model."""
    constants = {initializer.name for initializer in model.graph.initializer}
    inputs = [
        Runner.generate_dummy_data(info, seed=0, name=path.stem, random=False)
        for info in model.graph.input
        if info.name not in constants
    ]
    outputs = [
        numpy_helper.to_array(onnx.load_tensor(str(path.with_name(f"{path.stem}_output_{number}.pb"))))
        for number in range(len(model.graph.output))
    ]
    return DataSet(inputs, outputs)


def _stored_data(model: onnx.ModelProto, folder: Path) -> DataSet:
    return DataSet(
        [_read(path, model.graph.input[i].type) for i, path in enumerate(_numbered(folder, "input"))],
        [_read(path, model.graph.output[i].type) for i, path in enumerate(_numbered(folder, "output"))],
    )


def _numbered(folder: Path, stem: str) -> Sequence[Path]:
    return [folder / f"{stem}_{number}.pb" for number in range(len(list(folder.glob(f"{stem}_*.pb"))))]


def _read(path: Path, declared: onnx.TypeProto) -> Any:
    content = path.read_bytes()
    if declared.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if declared.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))
