"""Runs a program segment by segment, as is done for shapes that are not those of the last run.

It plans what is not planned yet, reads between two segments the sizes that the first has computed, and can time
every step. Afterwards the lane is ready for one call of `Lane.run` on inputs of these shapes, where the program has
one segment.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from onnxsmith import native_layout as abi
from onnxsmith.arrays import address_of, read_integer
from onnxsmith.artifact import Binding, Place, Program
from onnxsmith.faults import ExecutionFault, InputMismatch, OutputMismatch, OutputSizeFault
from onnxsmith.loader import Library
from onnxsmith.plan import Lane, Plan
from onnxsmith.program import outputs_of_segment
from onnxsmith.record import Record
from onnxsmith.tables import plan_form, probe_size, segment_tables
from onnxsmith.threads import ThreadPool
from onnxsmith.values import numpy_dtype

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class StepTime(Record):
    """One step of a timed run: its number in the program, and time.perf_counter_ns around it."""

    step: int
    begin: int
    end: int


class TimedRun:
    """A run of `program`, step by step, on up to `threads` threads.

    Its outputs, the time of each step, and the values of all slots at its end.
    """

    def __init__(self, program: Program, threads: int) -> None:
        self.program = program
        self.threads = threads
        self.outputs: list[Array] = []
        self.times: list[StepTime] = []
        self.slots: list[int] = []


class SegmentRunner:
    """Runs one program with the code of `library` on up to `threads` threads of `pool`.

    `weights_address` is where the packed weights are. `defaults` has the values of overridable initializers.
    """

    def __init__(
        self,
        program: Program,
        library: Library,
        pool: ThreadPool,
        threads: int,
        weights_address: int,
        defaults: Mapping[str, Array],
    ) -> None:
        self._program = program
        self._library = library
        self._pool = pool
        self._threads = threads
        self._defaults = defaults
        kernels = [library.address_of(symbol) for symbol in program.kernels]
        self._tables = [segment_tables(program, n, kernels) for n in range(len(program.segments))]
        self._form = plan_form(program, self._tables, threads, pool.address, weights_address)
        self._input_dtypes = [numpy_dtype(tensor.dtype) for tensor in program.inputs]
        self._output_dtypes = [numpy_dtype(tensor.dtype) for tensor in program.outputs]
        self._binders = [binder for binder in program.input_symbols if binder is not None]
        self._symbol_slots = [s for s, binder in enumerate(program.input_symbols) if binder is not None]
        self._outputs_of_segment = outputs_of_segment(program)

    def run(
        self,
        lane: Lane,
        inputs: Sequence[Array | None],
        given: Sequence[Array | None],
        timed: TimedRun | None = None,
    ) -> list[Array]:
        """The outputs for `inputs`; `given` are arrays to write them to, None where one is to be made.

        InputMismatch, OutputMismatch, ExecutionFault, PlanFault, SizeFault, OutputSizeFault, MemoryError.
        """
        lane.forget_last()
        arrays = self._accept(inputs)
        plan = self._plan_for(lane, arrays)
        for number, array in enumerate(arrays):
            plan.set_address(number, address_of(array))
        results: list[Array | None] = list(given)
        for segment in range(len(self._tables)):
            self._make_ready(lane, plan, segment, arrays, results)
            for output in self._outputs_of_segment[segment]:
                results[output] = self._place_output(plan, output, given[output])
            self._run_segment(plan, segment, None if timed is None else timed.times)
        if len(self._tables) == 1:
            made = tuple([array.shape for array in results if array is not None])
            lane.try_first(plan, tuple([array.shape for array in arrays]), made)
        if timed is not None:
            timed.slots = plan.slots()
        return cast(list[Array], results)

    def _accept(self, inputs: Sequence[Array | None]) -> list[Array]:
        """The inputs as native code takes them; InputMismatch where a dtype or a rank differs."""
        tensors = self._program.inputs
        if len(inputs) != len(tensors):
            raise InputMismatch(len(tensors), "count", len(inputs), len(tensors))
        arrays = []
        for number, (array, tensor, dtype) in enumerate(zip(inputs, tensors, self._input_dtypes, strict=True)):
            if array is None and tensor.name in self._defaults:
                array = self._defaults[tensor.name]
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                raise InputMismatch(number, "dtype", getattr(array, "dtype", type(array)), dtype)
            if array.ndim != len(tensor.dims):
                raise InputMismatch(number, "rank", array.ndim, len(tensor.dims))
            flags = array.flags
            arrays.append(array if flags.c_contiguous and flags.aligned else array.copy(order="C"))
        return arrays

    def _plan_for(self, lane: Lane, arrays: Sequence[Array]) -> Plan:
        """The plan for these inputs, its first segment ready. InputMismatch where a dimension differs."""
        bindings = self._program.segments[0].bindings
        symbols = tuple(arrays[number].shape[axis] for number, axis in self._binders)
        probes = tuple(_input_element(arrays, binding) for binding in bindings)
        key = (*symbols, *probes)
        plan = lane.find(key)
        if plan is not None and lane.is_ready(plan, 0):
            self._check_dimensions(plan, arrays)
            return plan
        plan = Plan(self._form, key)
        for slot, value in zip(self._symbol_slots, symbols, strict=True):
            plan.set_slot(slot, value)
        for binding, value in zip(bindings, probes, strict=True):
            plan.set_slot(binding.slot, value)
        plan.set_probes(probes)
        lane.prepare(self._library, plan, 0)
        self._check_dimensions(plan, arrays)
        plan.expect_shapes()
        lane.add(plan)
        return plan

    def _check_dimensions(self, plan: Plan, arrays: Sequence[Array]) -> None:
        for number, array in enumerate(arrays):
            expected = plan.shape(number)
            if array.shape != expected:
                axis = next(a for a, (x, y) in enumerate(zip(array.shape, expected, strict=True)) if x != y)
                slot = self._program.inputs[number].dims[axis]
                symbol = self._program.symbols[slot] if slot < len(self._program.symbols) else None
                reason = "dimension" if symbol is None else "symbol"
                raise InputMismatch(number, reason, array.shape[axis], expected[axis], axis, symbol)

    def _make_ready(
        self, lane: Lane, plan: Plan, segment: int, arrays: Sequence[Array], results: Sequence[Array | None]
    ) -> None:
        """Read the segment's Bindings, and plan it unless it is planned for their values."""
        bindings = self._program.segments[segment].bindings if segment else ()
        values = tuple(self._element(plan, binding, arrays, results) for binding in bindings)
        if lane.is_ready(plan, segment) and plan.bound[segment] == values:
            return
        for binding, value in zip(bindings, values, strict=True):
            plan.set_slot(binding.slot, value)
        lane.prepare(self._library, plan, segment)
        plan.bound[segment] = values

    def _element(self, plan: Plan, binding: Binding, arrays: Sequence[Array], results: Sequence[Array | None]) -> int:
        """The value that a Binding of a later segment reads."""
        source = binding.source
        size = probe_size(binding.dtype)
        offset = (0 if source.offset is None else plan.slot(source.offset)) + binding.element * abs(size)
        if source.place is Place.BUFFER:
            address = plan.buffer_address(source.index)
            room = plan.slot(self._program.buffers[source.index].size)
        else:
            array = arrays[source.index] if source.place is Place.INPUT else results[source.index]
            assert array is not None
            address, room = address_of(array), array.nbytes
        if not 0 <= offset <= room - abs(size):
            raise IndexError(f"a size is read at byte {offset} of a tensor of {room} bytes")
        return read_integer(address + offset, size)

    def _place_output(self, plan: Plan, output: int, given: Array | None) -> Array:
        """The array that an output is written to; the plan is told its address."""
        tensor = len(self._program.inputs) + output
        shape = plan.shape(tensor)
        dtype = self._output_dtypes[output]
        if given is None:
            try:
                array = np.empty(shape, dtype)
            except ValueError:
                raise OutputSizeFault(output, shape) from None
        else:
            check_output(output, given, dtype, shape)
            array = given
        plan.set_address(tensor, address_of(array))
        return array

    def _run_segment(self, plan: Plan, segment: int, times: list[StepTime] | None) -> None:
        count = self._tables[segment].step_count
        if times is None:
            self._run_steps(plan, segment, 0, count)
            return
        first = self._tables[segment].first_step
        for number in range(count):
            begin = time.perf_counter_ns()
            self._run_steps(plan, segment, number, number + 1)
            times.append(StepTime(first + number, begin, time.perf_counter_ns()))

    def _run_steps(self, plan: Plan, segment: int, first: int, last: int) -> None:
        run = plan.runs[segment]
        status = self._library.steps(run, first, last)
        if status == abi.NEED_THREADS:
            self._pool.ensure(self._threads, self._library)
            status = self._library.steps(run, first, last)
        if status == abi.FAULT:
            raise fault_of(run)


def fault_of(run: int) -> ExecutionFault:
    """What stopped the run of the run block at address `run`."""
    words = (abi.RUN_FAULT_STEP, abi.RUN_FAULT_CODE, abi.RUN_FAULT_VALUE, abi.RUN_FAULT_LIMIT)
    return ExecutionFault(*(read_integer(run + word * abi.WORD, -abi.WORD) for word in words))


def _input_element(arrays: Sequence[Array], binding: Binding) -> int:
    number = binding.source.index
    if binding.element >= arrays[number].size:
        raise InputMismatch(number, "size", arrays[number].size, binding.element + 1)
    return int(arrays[number].reshape(-1)[binding.element])


def check_output(number: int, array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """OutputMismatch where output `number` cannot be written to `array`."""
    flags = array.flags
    if array.dtype != dtype or array.shape != shape:
        raise OutputMismatch(number, f"{array.dtype} {array.shape}", f"{dtype} {shape}")
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise OutputMismatch(number, "not contiguous, aligned and writeable", f"{dtype} {shape}")
