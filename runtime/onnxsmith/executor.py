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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxsmith import native_layout as abi
from onnxsmith.arrays import address_of, native_arrays
from onnxsmith.artifact import Program
from onnxsmith.faults import InputMismatch
from onnxsmith.loader import Library
from onnxsmith.plan import Lane
from onnxsmith.segment_runner import SegmentRunner, TimedRun, check_output, fault_of
from onnxsmith.threads import default_threads, process_pool
from onnxsmith.values import numpy_dtype

_new_array = np.empty  # found sooner than an attribute of the module, in every run

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PLANS_KEPT = 32  # for each lane
IDLE_LANES_KEPT = 8


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
        self._weights = weights
        self._output_dtypes = [numpy_dtype(tensor.dtype) for tensor in program.outputs]
        self._no_outputs = [None] * len(program.outputs)
        self._idle: deque[Lane] = deque(maxlen=IDLE_LANES_KEPT)
        # Only a program of one segment can be run by one call.
        self._one_call = library if len(program.segments) == 1 and native_arrays() else None
        self.defaults = {name: self._default(name, at) for name, at in program.overridable.items()}
        weights_address = 0 if weights is None else weights.ctypes.data
        self._segments = SegmentRunner(program, library, self._pool, self.threads, weights_address, self.defaults)
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
                raise fault_of(lane.block)
            results = made if status == abi.DONE else self._segments.run(lane, inputs, apart)
        finally:
            self._idle.append(lane)
        for number, (wanted, result) in enumerate(zip(outputs, results, strict=True)):
            if wanted is not None and wanted is not result:
                check_output(number, wanted, result.dtype, result.shape)
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
                raise fault_of(lane.block)
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
            timed.outputs = self._segments.run(lane, inputs, self._no_outputs, timed)
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
        return Lane(len(self.program.segments), PLANS_KEPT, self._pool.address, self._one_call)

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
            raise fault_of(lane.block)
        return self._segments.run(lane, inputs, self._no_outputs)


def _feed_picker(names: Sequence[str], defaults: Mapping[str, Array]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """What takes the values of `names` out of a feed, in order; KeyError where one has no default either."""
    if defaults:
        return lambda feed: tuple([feed[name] if name in feed else defaults[name] for name in names])
    if len(names) == 1:
        (only,) = names
        return lambda feed: (feed[only],)
    return operator.itemgetter(*names) if names else lambda feed: ()


def _is_same(one: Array | None, other: Array) -> bool:
    """Whether both are the same elements in memory."""
    return one is not None and (address_of(one), one.nbytes) == (address_of(other), other.nbytes)
