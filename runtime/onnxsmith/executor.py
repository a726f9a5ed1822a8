"""Runs a compiled program.

    executor = Executor(program, library, weights, threads=4)
    outputs = executor.run([x, y])

`run` takes one numpy array for each of `program.inputs`, in order, and returns one for each of
`program.outputs`. A run whose inputs have the dtypes, ranks and shapes of the last one is a single native
call, under a microsecond: native code compares the arrays with the plan itself, so a caller need not check
what it passes. Only where something differs does Python look closer: it finds or makes the plan for these
shapes, or raises one of the classes of
`onnxsmith.faults`, which carry the facts for a message.

Inputs must be numpy arrays of the exact dtype (`InputMismatch` otherwise); they may be non-contiguous, and
are then copied. For inputs that are overridable initializers, `executor.defaults` has what to pass where none
is fed. Executors may be used by any number of threads at once.
"""

from __future__ import annotations

import math
import operator
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from onnxsmith import native_layout as abi
from onnxsmith.arrays import address_of, native_arrays, read_integer
from onnxsmith.artifact import Binding, Place, Program
from onnxsmith.faults import ExecutionFault, InputMismatch, OutputMismatch, OutputSizeFault
from onnxsmith.loader import Library
from onnxsmith.plan import Lane, Plan
from onnxsmith.program import outputs_of_segment
from onnxsmith.record import Record
from onnxsmith.tables import plan_form, probe_size, segment_tables
from onnxsmith.threads import default_threads, process_pool
from onnxsmith.values import numpy_dtype

_new_array = np.empty  # found sooner than an attribute of the module, in every run

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PLANS_KEPT = 32  # for each lane
IDLE_LANES_KEPT = 8


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


class Executor:
    """Runs one program. `library` is the loaded code, `weights` its packed weights as bytes (uint8 array).

    `threads` is the most threads a run may use, the caller's included; 0 is one for each core.
    `defaults` maps the names of overridable initializers to their values, read-only views of the weights.

    ValueError where the program and the weights do not belong together.
    """

    def __init__(self, program: Program, library: Library, weights: Array | None = None, threads: int = 0) -> None:
        if not program.segments:
            raise ValueError("the program has no segment")
        if (0 if weights is None else weights.nbytes) < program.weight_bytes:
            raise ValueError(f"the program needs {program.weight_bytes} bytes of weights")
        self.program = program
        self._pool = process_pool()
        self.threads = self._pool.threads_allowed(threads or default_threads())
        self._library = library
        self._weights = weights
        kernels = [library.address_of(symbol) for symbol in program.kernels]
        self._tables = [segment_tables(program, n, kernels) for n in range(len(program.segments))]
        weights_address = 0 if weights is None else weights.ctypes.data
        self._form = plan_form(program, self._tables, self.threads, self._pool.address, weights_address)
        self._input_dtypes = [numpy_dtype(tensor.dtype) for tensor in program.inputs]
        self._output_dtypes = [numpy_dtype(tensor.dtype) for tensor in program.outputs]
        self._no_outputs = [None] * len(program.outputs)
        self._binders = [binder for binder in program.input_symbols if binder is not None]
        self._symbol_slots = [s for s, binder in enumerate(program.input_symbols) if binder is not None]
        self._outputs_of_segment = outputs_of_segment(program)
        self._idle: deque[Lane] = deque(maxlen=IDLE_LANES_KEPT)
        # Only a program of one segment can be run by one call.
        self._one_call = library if len(program.segments) == 1 and native_arrays() else None
        self.defaults = {name: self._default(name, at) for name, at in program.overridable.items()}
        self._names = frozenset(tensor.name for tensor in program.inputs)
        self._pick = _feed_picker([tensor.name for tensor in program.inputs], self.defaults)
        # A feed of so many values, among which all inputs are, has no other names.
        self._whole_feed = -1 if self.defaults else len(program.inputs)

    def run(self, inputs: Sequence[Array | None]) -> list[Array]:
        """The outputs for `inputs`, new arrays that belong to the caller.

        `inputs` may have None for an overridable initializer that is not fed.
        InputMismatch, ExecutionFault, PlanFault, SizeFault, OutputSizeFault (see `onnxsmith.faults`), MemoryError.
        """
        try:
            lane = self._idle.pop()
        except IndexError:
            lane = self._new_lane()
        try:
            outputs = list(map(_new_array, lane.shapes, self._output_dtypes))
            if status := lane.run(inputs, outputs):
                return self._run_other(lane, inputs, status)
            return outputs
        finally:
            self._idle.append(lane)

    def run_feed(self, feed: Mapping[str, Any]) -> list[Array] | None:
        """As `run` on arrays by input name; None, and nothing was run, where the feed needs a closer look:
        a name is missing or unknown, a value is no numpy array, or a dtype, rank or size does not fit.
        """
        try:
            inputs = self._pick(feed)
        except (KeyError, TypeError):
            return None
        if len(feed) != self._whole_feed and not self._names.issuperset(feed):
            return None
        try:
            return self.run(inputs)
        except InputMismatch:
            return None

    def run_into(self, inputs: Sequence[Array | None], outputs: Sequence[Array | None]) -> list[Array]:
        """As `run`, but results are written to those of `outputs` that are arrays, which are returned.

        They must be C-contiguous, aligned, writeable, and of the result's dtype and shape: OutputMismatch
        otherwise. They may overlap inputs or each other: such a result is copied in at the end, unless
        the program changes that very input in place.
        """
        if len(outputs) != len(self._output_dtypes):
            raise ValueError(f"{len(outputs)} outputs given, the program has {len(self._output_dtypes)}")
        apart = [
            None if out is None or self.shares_memory(number, inputs, outputs) else out
            for number, out in enumerate(outputs)
        ]
        inputs = list(inputs)
        lane = self._take_lane()
        try:
            dtypes = self._output_dtypes
            made = [
                np.empty(shape, dtype) if out is None else out
                for out, shape, dtype in zip(apart, lane.shapes, dtypes, strict=False)
            ]
            status = lane.run(inputs, made)
            if status == abi.FAULT:
                raise _fault(lane.block)
            results = made if status == abi.DONE else self._run_closely(lane, inputs, apart)
        finally:
            self._idle.append(lane)
        for number, (wanted, result) in enumerate(zip(outputs, results, strict=True)):
            if wanted is not None and wanted is not result:
                _check_output(number, wanted, result.dtype, result.shape)
                np.copyto(wanted, result)
                results[number] = wanted
        return results

    def run_bound(self, inputs: list[Array], outputs: list[Array]) -> bool:
        """Run from and to arrays, one for each input and output, no output overlapping another of them.

        False, and nothing was run, where a plan for their shapes is not at hand or an array does not fit.
        """
        try:
            lane = self._idle.pop()
        except IndexError:
            lane = self._new_lane()
        try:
            status = lane.run(inputs, outputs)
            if status == abi.MISMATCH and lane.choose(tuple([array.shape for array in inputs])):
                status = lane.run(inputs, outputs)
            if status == abi.FAULT:
                raise _fault(lane.block)
            return not status
        finally:
            self._idle.append(lane)

    def shares_memory(self, output: int, inputs: Sequence[Array | None], outputs: Sequence[Array | None]) -> bool:
        """Whether outputs[output] may overlap another array, other than an input that it may be written over."""
        array = outputs[output]
        assert array is not None
        changed = [source for number, source in self.program.in_place if number == output]
        others = [
            *(other for number, other in enumerate(inputs) if number not in changed or not _is_same(other, array)),
            *(other for number, other in enumerate(outputs) if number != output),
        ]
        return any(other is not None and np.may_share_memory(array, other) for other in others)

    def run_timed(self, inputs: Sequence[Array | None]) -> TimedRun:
        """As `run`, with the time that each step took, measured around one native call a step."""
        timed = TimedRun(self.program, self.threads)
        lane = self._take_lane()
        try:
            timed.outputs = self._run_closely(lane, inputs, self._no_outputs, timed)
        finally:
            self._idle.append(lane)
        return timed

    def idle_bytes(self) -> int:
        """Bytes of working memory that are kept for later runs, and which `trim` frees."""
        return sum(lane.memory_bytes() for lane in self._idle.copy())

    def trim(self) -> None:
        """Free the memory that no run uses at present."""
        self._idle.clear()

    def _default(self, name: str, offset: int) -> Array:
        tensor = next(tensor for tensor in self.program.inputs if tensor.name == name)
        shape = tuple(self.program.slots[slot] for slot in tensor.dims)
        dtype = numpy_dtype(tensor.dtype)
        assert self._weights is not None
        count = math.prod(shape)
        value = self._weights[offset : offset + count * dtype.itemsize].view(dtype).reshape(shape)
        value.setflags(write=False)
        return value

    def _take_lane(self) -> Lane:
        try:
            return self._idle.pop()
        except IndexError:
            return self._new_lane()

    def _new_lane(self) -> Lane:
        return Lane(len(self._tables), PLANS_KEPT, self._pool.address, self._one_call)

    def _run_other(self, lane: Lane, inputs: Sequence[Array | None], status: int) -> list[Array]:
        """Run inputs that are not as the last ones: on the plan for their shapes, or with a closer look.

        `status` is how a run with `lane.block` ended.
        """
        if status == abi.MISMATCH and lane.choose(tuple([getattr(array, "shape", ()) for array in inputs])):
            outputs = list(map(_new_array, lane.shapes, self._output_dtypes))
            status = lane.run(inputs, outputs)
            if status == abi.DONE:
                return outputs
        if status == abi.FAULT:
            raise _fault(lane.block)
        return self._run_closely(lane, inputs, self._no_outputs)

    def _run_closely(
        self,
        lane: Lane,
        inputs: Sequence[Array | None],
        given: Sequence[Array | None],
        timed: TimedRun | None = None,
    ) -> list[Array]:
        """Run segment by segment, planning what is not planned yet; `given` are arrays for outputs."""
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
        tensors = self.program.inputs
        if len(inputs) != len(tensors):
            raise InputMismatch(len(tensors), "count", len(inputs), len(tensors))
        arrays = []
        for number, (array, tensor, dtype) in enumerate(zip(inputs, tensors, self._input_dtypes, strict=True)):
            if array is None and tensor.name in self.defaults:
                array = self.defaults[tensor.name]
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                raise InputMismatch(number, "dtype", getattr(array, "dtype", type(array)), dtype)
            if array.ndim != len(tensor.dims):
                raise InputMismatch(number, "rank", array.ndim, len(tensor.dims))
            flags = array.flags
            arrays.append(array if flags.c_contiguous and flags.aligned else array.copy(order="C"))
        return arrays

    def _plan_for(self, lane: Lane, arrays: Sequence[Array]) -> Plan:
        """The plan for these inputs, its first segment ready. InputMismatch where a dimension differs."""
        bindings = self.program.segments[0].bindings
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
                slot = self.program.inputs[number].dims[axis]
                symbol = self.program.symbols[slot] if slot < len(self.program.symbols) else None
                reason = "dimension" if symbol is None else "symbol"
                raise InputMismatch(number, reason, array.shape[axis], expected[axis], axis, symbol)

    def _make_ready(
        self, lane: Lane, plan: Plan, segment: int, arrays: Sequence[Array], results: Sequence[Array | None]
    ) -> None:
        """Read the segment's Bindings, and plan it unless it is planned for their values."""
        bindings = self.program.segments[segment].bindings if segment else ()
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
            room = plan.slot(self.program.buffers[source.index].size)
        else:
            array = arrays[source.index] if source.place is Place.INPUT else results[source.index]
            assert array is not None
            address, room = address_of(array), array.nbytes
        if not 0 <= offset <= room - abs(size):
            raise IndexError(f"a size is read at byte {offset} of a tensor of {room} bytes")
        return read_integer(address + offset, size)

    def _place_output(self, plan: Plan, output: int, given: Array | None) -> Array:
        """The array that an output is written to; the plan is told its address."""
        tensor = len(self.program.inputs) + output
        shape = plan.shape(tensor)
        dtype = self._output_dtypes[output]
        if given is None:
            try:
                array = np.empty(shape, dtype)
            except ValueError:
                raise OutputSizeFault(output, shape) from None
        else:
            _check_output(output, given, dtype, shape)
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
            self._pool.ensure(self.threads, self._library)
            status = self._library.steps(run, first, last)
        if status == abi.FAULT:
            raise _fault(run)


def _fault(run: int) -> ExecutionFault:
    """What stopped the run of the run block at address `run`."""
    words = (abi.RUN_FAULT_STEP, abi.RUN_FAULT_CODE, abi.RUN_FAULT_VALUE, abi.RUN_FAULT_LIMIT)
    return ExecutionFault(*(read_integer(run + word * abi.WORD, -abi.WORD) for word in words))


def _feed_picker(names: Sequence[str], defaults: Mapping[str, Array]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """What takes the values of `names` out of a feed, in order; KeyError where one has no default either."""
    if defaults:
        return lambda feed: tuple([feed[name] if name in feed else defaults[name] for name in names])
    if len(names) == 1:
        (only,) = names
        return lambda feed: (feed[only],)
    return operator.itemgetter(*names) if names else lambda feed: ()


def _input_element(arrays: Sequence[Array], binding: Binding) -> int:
    number = binding.source.index
    if binding.element >= arrays[number].size:
        raise InputMismatch(number, "size", arrays[number].size, binding.element + 1)
    return int(arrays[number].reshape(-1)[binding.element])


def _is_same(one: Array | None, other: Array) -> bool:
    """Whether both are the same elements in memory."""
    return one is not None and (address_of(one), one.nbytes) == (address_of(other), other.nbytes)


def _check_output(number: int, array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    flags = array.flags
    if array.dtype != dtype or array.shape != shape:
        raise OutputMismatch(number, f"{array.dtype} {array.shape}", f"{dtype} {shape}")
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise OutputMismatch(number, "not contiguous, aligned and writeable", f"{dtype} {shape}")
