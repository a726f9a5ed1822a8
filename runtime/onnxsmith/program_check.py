"""Consistency of programs: native code follows a program's indices as they are, so each is checked once."""

from __future__ import annotations

from collections.abc import Iterator

from onnxsmith.program import Argument, Place, Program, Step
from onnxsmith.tables import probe_size

_INT64 = range(-(1 << 63), 1 << 63)


def check_program(program: Program) -> None:
    """ValueError, saying where, for the first index that leads nowhere or is used before it has a value."""
    for problem in _problems(program):
        raise ValueError(f"inconsistent program: {problem}")


def _problems(program: Program) -> Iterator[str]:
    if not program.segments:
        yield "it has no segment"
    yield from _border_problems(program)
    known = _slots_of_inputs(program)
    first_step = 0
    for number, segment in enumerate(program.segments):
        for problem in _segment_problems(program, number, first_step, known):
            yield f"segment {number}: {problem}"
        first_step += len(segment.steps)
    for number, tensor in enumerate(program.outputs):
        if not known.issuperset(tensor.dims):
            yield f"output {number}: its shape is never known"


def _border_problems(program: Program) -> Iterator[str]:
    count = len(program.slots)
    if len(program.input_symbols) != len(program.symbols) or len(program.symbols) > count:
        yield "symbols, their sources and slots do not match in number"
    if any(value not in _INT64 for value in program.slots):
        yield "a slot's initial value is outside 64 bits"
    for number, tensor in enumerate((*program.inputs, *program.outputs)):
        if any(slot not in range(count) for slot in tensor.dims):
            yield f"tensor {number}: a dimension names no slot"
    for slot, source in enumerate(program.input_symbols):
        if source is None:
            continue
        index, axis = source
        if index not in range(len(program.inputs)) or axis not in range(len(program.inputs[index].dims)):
            yield f"symbol {slot}: its input has no such dimension"
        elif program.inputs[index].dims[axis] != slot:
            yield f"symbol {slot}: the dimension that binds it names another slot"
    for name, offset in program.overridable.items():
        if name not in [tensor.name for tensor in program.inputs]:
            yield f"overridable '{name}' is no input"
        if offset not in range(program.weight_bytes + 1):
            yield f"overridable '{name}' lies outside the weights"
    for output, changed in program.in_place:
        if output not in range(len(program.outputs)) or changed not in range(len(program.inputs)):
            yield f"output {output} cannot take the memory of input {changed}: one of them does not exist"
    for number, buffer in enumerate(program.buffers):
        if buffer.segment not in range(len(program.segments)) or buffer.size not in range(count):
            yield f"buffer {number}: its segment or size does not exist"
        if buffer.first > buffer.last:
            yield f"buffer {number}: it dies before it is born"


def _slots_of_inputs(program: Program) -> set[int]:
    """Slots that have a value before the first segment: input symbols and constants."""
    computed = {instruction.dst for segment in program.segments for instruction in segment.instructions}
    late = {slot for slot, source in enumerate(program.input_symbols) if source is None}
    return set(range(len(program.slots))) - computed - late


def _segment_problems(program: Program, number: int, first_step: int, known: set[int]) -> Iterator[str]:
    """Problems of one segment; `known` gains the slots that it gives a value."""
    segment = program.segments[number]
    outputs = {o for o, tensor in enumerate(program.outputs) if known.issuperset(tensor.dims)}
    yield from _binding_problems(program, number, first_step, known, outputs)
    known.update(binding.slot for binding in segment.bindings)
    for turn, instruction in enumerate(segment.instructions):
        if not known.issuperset((instruction.a, instruction.b)):
            yield f"instruction {turn}: it reads a slot without a value"
        if instruction.dst not in range(len(program.symbols), len(program.slots)):
            yield f"instruction {turn}: it writes a symbol or no slot"
        known.add(instruction.dst)
    for turn, buffer in enumerate(program.buffers):
        if buffer.segment == number and buffer.size not in known:
            yield f"buffer {turn}: its size is not known when its segment begins"
    for turn, check in enumerate(segment.checks):
        if not known.issuperset((check.left, check.right)):
            yield f"check {turn}: it compares a slot without a value"
    outputs = {o for o, tensor in enumerate(program.outputs) if known.issuperset(tensor.dims)}
    for turn, step in enumerate(segment.steps, first_step):
        for problem in _step_problems(program, number, step, turn, known, outputs):
            yield f"step {turn} ({step.label}): {problem}"


def _binding_problems(
    program: Program, number: int, first_step: int, known: set[int], outputs: set[int]
) -> Iterator[str]:
    for binding in program.segments[number].bindings:
        symbol = range(len(program.symbols))
        if binding.slot not in symbol or program.input_symbols[binding.slot] is not None:
            yield f"a binding sets slot {binding.slot}, which is no symbol of its own"
        if number == 0 and (binding.source.place is not Place.INPUT or binding.source.offset is not None):
            yield "before the first step, a size can be read from the start of an input alone"
        if binding.source.place in (Place.SLOT, Place.WEIGHT) or binding.element < 0:
            yield "a binding reads no tensor of this run"
        try:
            probe_size(binding.dtype)
        except TypeError as error:
            yield str(error)
        yield from _argument_problems(program, number - 1, binding.source, first_step - 1, known, outputs)


def _step_problems(
    program: Program, segment: int, step: Step, number: int, known: set[int], outputs: set[int]
) -> Iterator[str]:
    if step.kernel not in range(len(program.kernels)):
        yield f"there is no kernel {step.kernel}"
    if not known.issuperset((step.tiles, step.cost, step.scratch, step.flops, step.traffic)):
        yield "tiles, cost, scratch, flops or traffic have no value"
    for argument in step.arguments:
        yield from _argument_problems(program, segment, argument, number, known, outputs)


def _argument_problems(
    program: Program, segment: int, argument: Argument, step: int, known: set[int], outputs: set[int]
) -> Iterator[str]:
    """Problems of an argument that is used in step `step` of `segment`."""
    index = argument.index
    if argument.offset is not None and argument.offset not in known:
        yield "an argument's offset has no value"
    match argument.place:
        case Place.SLOT:
            if index not in known:
                yield f"slot {index} has no value"
        case Place.BUFFER:
            if index not in range(len(program.buffers)):
                yield f"there is no buffer {index}"
                return
            buffer = program.buffers[index]
            if buffer.segment > segment or step not in range(buffer.first, buffer.last + 1):
                yield f"buffer {index} is not alive"
        case Place.WEIGHT:
            if index not in range(program.weight_bytes + 1):
                yield f"byte {index} is outside the weights"
        case Place.INPUT:
            if index not in range(len(program.inputs)):
                yield f"there is no input {index}"
        case Place.OUTPUT:
            if index not in outputs:
                yield f"there is no output {index} whose shape is known"
