"""IOBinding: inputs and outputs of a session bound to memory once, for many runs."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsmith.ort_value import Array, ElementType, OrtValue, element_dtype

if TYPE_CHECKING:
    from onnxsmith.session import InferenceSession


class IOBinding:
    """Bound inputs and outputs of `session`, used by `session.run_with_iobinding`.

    Outputs are returned in the order in which they were first bound. One that is bound without memory is a
    new tensor at each run; memory that is bound is written to, and must be of the result's type and shape.
    """

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array | None] = {}
        self._results: list[Array] = []  # of all outputs, in the session's order
        self._input_names = [tensor.name for tensor in session.program.inputs]
        self._output_names = [tensor.name for tensor in session.program.outputs]
        self._ordered: tuple[list[Array] | None, list[Array | None]] | None = None
        # What a run can be one native call on: arrays for all inputs and outputs, which do not overlap.
        self._direct: tuple[list[Array], list[Array]] | None = None

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Bind an input to an array; what it holds when a run begins is used, unless it is not contiguous."""
        self._bind_input(name, OrtValue.ortvalue_from_numpy(np.asarray(arr_on_cpu)).numpy())

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: ElementType,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        """Bind an input to the memory at `buffer_ptr`, which must stay while the binding is used."""
        _require_cpu(device_type)
        self._bind_input(name, _array_at(buffer_ptr, element_type, shape))

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Bind an input to a tensor."""
        self._bind_input(name, ortvalue.numpy())

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: ElementType | None = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Bind an output to the memory at `buffer_ptr`, or ask for a new tensor at each run.

        ValueError where memory is given without its type and shape.
        """
        _require_cpu(device_type)
        if buffer_ptr is None:
            self._bind_output(name, None)
            return
        if element_type is None or shape is None:
            raise ValueError("`element_type` and `shape` are to be provided if pre-allocated memory is provided")
        self._bind_output(name, _array_at(buffer_ptr, element_type, shape))

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Bind an output to a tensor, which each run overwrites."""
        self._bind_output(name, ortvalue.numpy())

    def synchronize_inputs(self) -> None:
        """Wait until the inputs are on their device, which memory of the CPU always is."""

    def synchronize_outputs(self) -> None:
        """Wait until the outputs are complete, which they are when a run returns."""

    def get_outputs(self) -> list[OrtValue]:
        """The bound outputs of the last run."""
        return [OrtValue(array) for array in self._bound_results()]

    def copy_outputs_to_cpu(self) -> list[Array]:
        """The bound outputs of the last run, copied into new arrays."""
        return [array.copy() for array in self._bound_results()]

    def clear_binding_inputs(self) -> None:
        """Forget the bound inputs."""
        self._inputs.clear()
        self._forget_order()

    def clear_binding_outputs(self) -> None:
        """Forget the bound outputs."""
        self._outputs.clear()
        self._results = []
        self._forget_order()

    def _bind_input(self, name: str, array: Array) -> None:
        _require_name(name, self._input_names)
        self._inputs[name] = array
        self._forget_order()

    def _bind_output(self, name: str, array: Array | None) -> None:
        _require_name(name, self._output_names)
        self._outputs[name] = array
        self._forget_order()

    def _forget_order(self) -> None:
        self._ordered = self._direct = None

    def _bound_results(self) -> list[Array]:
        if not self._results:
            return []
        return [self._results[self._output_names.index(name)] for name in self._outputs]

    def _in_order(self) -> tuple[list[Array] | None, list[Array | None]]:
        """The bound inputs and outputs in the session's order; no inputs where not all are bound.

        RuntimeError where no output is bound.
        """
        if self._ordered is None:
            if not self._outputs:
                raise RuntimeError("Error in execution: At least one output should be requested.")
            inputs = [self._inputs[name] for name in self._input_names if name in self._inputs]
            outputs = [self._outputs.get(name) for name in self._output_names]
            self._ordered = (inputs if len(inputs) == len(self._input_names) else None), outputs
        return self._ordered

    def _keep_results(self, results: list[Array]) -> None:
        """The results of a run on the arrays of `_in_order`; further runs may be direct where all were bound."""
        self._results = results
        inputs, outputs = self._in_order()
        if inputs is None or any(bound is not result for bound, result in zip(outputs, results, strict=True)):
            return
        executor = self._session._executor
        if not any(executor.shares_memory(number, inputs, results) for number in range(len(results))):
            self._direct = inputs, results


def _require_name(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise RuntimeError(f"Failed to find NodeArg with name: {name} in the def list, which has {', '.join(known)}")


def _require_cpu(device_type: str) -> None:
    if device_type.lower() != "cpu":
        raise RuntimeError(f"Memory on device '{device_type}' cannot be bound here; 'cpu' can.")


def _array_at(address: int, element_type: ElementType, shape: Sequence[int]) -> Array:
    """The array whose elements lie at `address`."""
    dtype = element_dtype(element_type)
    count = math.prod(shape)
    if count == 0:
        return np.empty(tuple(shape), dtype)
    memory = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    bytes_there: Array = np.ctypeslib.as_array(memory)
    return bytes_there.view(dtype).reshape(tuple(shape))
