"""The compiled program: what the compiler writes and the runtime runs.

A program is data for one fixed native interpreter. Every run-time number (a symbol, a size, a
stride, an offset) lives in one int64 table of *slots*: the first ones are the symbols, the others are
constants or computed from earlier slots by `Instruction`s. A `Step` calls one kernel with
arguments that name slots, buffers of the arena, weights, model inputs or model outputs. Steps come in
segments: a segment's symbols are all known when it begins, so its buffers are planned and its
arguments filled in one go; a dimension only a run can tell is bound between two segments.

The parts are tuples: a program of a thousand steps is read at every start.
"""

from __future__ import annotations

from enum import IntEnum

from onnxsmith.record import Record

SCHEMA_VERSION = 6


class Opcode(IntEnum):
    """What an Instruction computes, on int64 (floor division and modulo as in Python)."""

    ADD = 0
    SUB = 1
    MUL = 2
    FLOORDIV = 3
    MOD = 4
    MAX = 5
    MIN = 6


class Instruction(Record):
    """slots[dst] = slots[a] op slots[b]."""

    op: Opcode
    dst: int
    a: int
    b: int


class Place(IntEnum):
    """Where an Argument's value comes from."""

    SLOT = 0  # the int64 itself: slots[index]
    BUFFER = 1  # address of arena buffer `index`
    WEIGHT = 2  # address of the packed weights, plus `index` bytes
    INPUT = 3  # address of model input `index`
    OUTPUT = 4  # address of model output `index`


class Argument(Record):
    """One int64 of a kernel's argument table.

    For the address kinds, slots[offset] bytes are added where `offset` is not None.
    """

    place: Place
    index: int  # type: ignore[assignment]  # hides tuple.index, which nothing needs
    offset: int | None = None


class Buffer(Record):
    """A piece of one segment's arena, of slots[size] bytes, aligned to 64.

    Alive from step `first` to step `last` (numbered through the whole program, both included);
    two buffers may share memory only where these do not overlap.
    """

    size: int
    segment: int
    first: int
    last: int


class Step(Record):
    """One kernel call.

    `kernel` is the kernel's index in Program.kernels. The kernel runs over tiles [0, slots[tiles]),
    which threads may share out in any way; one tile costs about slots[cost] nanoseconds, and needs
    slots[scratch] bytes of memory of its own a thread. The whole step does slots[flops] floating-point
    operations (a multiply-add is two) on slots[traffic] bytes of tensors, each counted once. `nodes` are the
    names of the ONNX nodes that it computes, `label` a short name for profiles.
    """

    kernel: int
    arguments: tuple[Argument, ...]
    tiles: int
    cost: int
    scratch: int
    flops: int
    traffic: int
    label: str
    nodes: tuple[str, ...] = ()


class Binding(Record):
    """slots[slot] = element number `element` of the tensor at `source`, of numpy dtype name `dtype`."""

    slot: int
    source: Argument
    element: int
    dtype: str


class Relation(IntEnum):
    """How two sizes must be related."""

    EQUAL = 0
    BROADCAST = 1  # equal, or one of them 1
    AT_MOST = 2  # the left one not larger than the right one


class Check(Record):
    """What the compiler took slots[left] and slots[right] to be; `origin` names the ONNX node that needs it.

    Kernels rely on it: a run in which it does not hold is refused before its steps are.
    """

    left: int
    right: int
    relation: Relation
    origin: str = ""


class Segment(Record):
    """Steps whose sizes are known once `bindings` are read: bindings, then instructions, checks, steps."""

    bindings: tuple[Binding, ...]
    instructions: tuple[Instruction, ...]
    steps: tuple[Step, ...]
    checks: tuple[Check, ...] = ()


class Tensor(Record):
    """A model input or output.

    `dtype` is the DType name ("float32", "bfloat16", ...). `shape` is the declared shape (None: unknown
    dimension, str: symbol), which NodeArg reports. `dims` are the slots that hold the actual shape. For an
    input, a dimension whose slot is a symbol named first by it binds that symbol; every other one is checked.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    dims: tuple[int, ...]


class Program(Record):
    """Everything about a compiled model but its code and its weights.

    `slots` are the initial values of the slot table, of which the first len(symbols) are the symbols.
    `input_symbols[i]` says for symbol i (input index, axis) that binds it, or None for one that a
    Binding sets. `outputs` shapes belong to the segment in which their dims become known.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: tuple[str, ...]
    input_symbols: tuple[tuple[int, int] | None, ...]
    slots: tuple[int, ...]
    segments: tuple[Segment, ...]
    buffers: tuple[Buffer, ...]
    kernels: tuple[str, ...]
    weight_bytes: int
    # Inputs from this index on are initializers that a feed may override: (name -> weight offset).
    overridable: dict[str, int]
    # (output, input) that may be the same memory: the output is the input with some elements changed, and no
    # other step reads the input.
    in_place: tuple[tuple[int, int], ...]
    metadata: dict[str, str]
    custom_metadata: dict[str, str]
    schema: int = SCHEMA_VERSION

    @property
    def why_no_c_functions(self) -> str | None:
        """Why the program is run from Python alone; None where C functions can run it too."""
        if any(tensor.dtype == "string" for tensor in (*self.inputs, *self.outputs)):
            return "its strings are objects of Python"
        return None


def outputs_of_segment(program: Program) -> list[list[int]]:
    """For each segment, the outputs whose shapes are known from its start on, and not before."""
    known = [0] * len(program.slots)
    for number, segment in enumerate(program.segments):
        for slot in (*(b.slot for b in segment.bindings), *(i.dst for i in segment.instructions)):
            known[slot] = number
    outputs: list[list[int]] = [[] for _ in program.segments]
    for number, tensor in enumerate(program.outputs):
        outputs[max((known[slot] for slot in tensor.dims), default=0)].append(number)
    return outputs
