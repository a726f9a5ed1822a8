"""From kernels in order to a program: slots for every size, buffers for every tensor, segments for late symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxsmith.artifact import (
    Argument,
    Binding,
    Buffer,
    Check,
    Instruction,
    Opcode,
    Place,
    Program,
    Relation,
    Segment,
    Step,
    Tensor,
)
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.atom import Atom, Extreme, Monomial, Quotient, Remainder, Symbol
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, LateSymbol, Value
from onnxsmith_compiler.ir.polynomial import Poly

_ALIGNMENT = 64
# Equal constants up to this size share their place.
_COMPARED_BYTES = 1 << 16


@dataclass(frozen=True, eq=False)
class KernelCall:
    """One step before it has memory: `symbol` names its kernel, `arguments` are addresses (Values) and int64s (Dims).

    `writes` are the arguments that it writes. It does `flops` floating-point operations on `traffic` bytes of tensors.
    """

    symbol: str
    arguments: tuple[Value | Dim, ...]
    writes: tuple[Value, ...]
    tiles: Dim
    cost: Dim
    scratch: Dim
    flops: Dim
    traffic: Dim
    label: str
    origins: tuple[str, ...]

    def reads(self) -> Iterable[Value]:
        return (argument for argument in self.arguments if isinstance(argument, Value))

    def sizes(self) -> Iterable[Dim]:
        yield from (argument for argument in self.arguments if not isinstance(argument, Value))
        yield from (self.tiles, self.cost, self.scratch, self.flops, self.traffic)
        for value in self.writes:
            yield from value.shape


@dataclass(frozen=True)
class Border:
    """What a model shows to its caller: declared names and shapes of inputs and outputs, and metadata."""

    input_shapes: tuple[tuple[int | str | None, ...] | None, ...]
    output_shapes: tuple[tuple[int | str | None, ...] | None, ...]
    metadata: Mapping[str, str]
    custom_metadata: Mapping[str, str]
    overridable: Mapping[str, Value]


@dataclass(frozen=True, eq=False)
class Weights:
    """The packed constants by increasing offset, and the bytes of the whole."""

    values: tuple[tuple[int, Value], ...]
    size: int

    @property
    def pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        """(offset, array) in order of offset, each computed when it is its turn."""
        for offset, value in self.values:
            yield offset, np.asarray(value.data, order="C")

    def in_memory(self) -> np.ndarray:
        """The whole as bytes (uint8), aligned as kernels expect it."""
        room = np.zeros(self.size + _ALIGNMENT, np.uint8)
        start = -room.ctypes.data % _ALIGNMENT
        whole = room[start : start + self.size]
        for offset, array in self.pieces:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            whole[offset : offset + data.size] = data
        return whole


@dataclass
class _Slots:
    """The slot table under construction, and the instructions that fill it."""

    values: list[int]
    instructions: list[Instruction] = field(default_factory=list)
    _slots: dict[Dim, int] = field(default_factory=dict)

    def add(self, initial: int = 0) -> int:
        self.values.append(initial)
        return len(self.values) - 1

    def slot(self, size: Dim) -> int:
        """The slot that holds `size`, with instructions added to compute it where it is new."""
        if size not in self._slots:
            self._slots[size] = self.add(size) if isinstance(size, int) else self._compute(size)
        return self._slots[size]

    def bind(self, size: Dim, slot: int) -> None:
        self._slots[size] = slot

    def _compute(self, size: Poly) -> int:
        total: int | None = None
        for monomial, coefficient in size.terms:
            term = self._term(monomial, coefficient)
            total = term if total is None else self._emit(Opcode.ADD, total, term)
        assert total is not None
        return total

    def _term(self, monomial: Monomial, coefficient: int) -> int:
        term: int | None = None
        factors = [self._atom(atom) for atom in monomial]
        if coefficient != 1 or not factors:
            factors.append(self.slot(coefficient))
        for factor in factors:
            term = factor if term is None else self._emit(Opcode.MUL, term, factor)
        assert term is not None
        return term

    def _atom(self, atom: Atom) -> int:
        alone = dims.from_atom(atom)
        if alone in self._slots:
            return self._slots[alone]
        match atom:
            case Quotient(numerator=a, denominator=b):
                slot = self._emit(Opcode.FLOORDIV, self.slot(a), self.slot(b))
            case Remainder(numerator=a, denominator=b):
                slot = self._emit(Opcode.MOD, self.slot(a), self.slot(b))
            case Extreme(kind="broadcast", left=a, right=b):
                slot = self._broadcast(self.slot(a), self.slot(b))
            case Extreme(kind=kind, left=a, right=b):
                slot = self._emit(Opcode.MAX if kind == "max" else Opcode.MIN, self.slot(a), self.slot(b))
            case _:
                raise ValueError(f"the size {atom} is not known when it is needed")
        self._slots[alone] = slot
        return slot

    def _broadcast(self, a: int, b: int) -> int:
        """b where a is 1, else a: a + max(0, 1 - max(a - 1, 1 - a)) * (b - a)."""
        one, zero = self.slot(1), self.slot(0)
        distance = self._emit(Opcode.MAX, self._emit(Opcode.SUB, a, one), self._emit(Opcode.SUB, one, a))
        is_one = self._emit(Opcode.MAX, zero, self._emit(Opcode.SUB, one, distance))
        return self._emit(Opcode.ADD, a, self._emit(Opcode.MUL, is_one, self._emit(Opcode.SUB, b, a)))

    def _emit(self, opcode: Opcode, a: int, b: int) -> int:
        target = self.add()
        self.instructions.append(Instruction(opcode, target, a, b))
        return target


class WeightLayout:
    """Where constants lie in the weights: one layout may serve several programs of the same graph."""

    def __init__(self) -> None:
        self._offsets: dict[Value, int] = {}
        self._known: dict[object, int] = {}
        self._pieces: list[tuple[int, Value]] = []
        self.size = 0

    @property
    def weights(self) -> Weights:
        """All that was asked for so far."""
        return Weights(tuple(self._pieces), self.size)

    def offset(self, value: Value) -> int:
        """Where the constant lies; a new one comes last, unless it is small and equal to another."""
        if value not in self._offsets:
            assert isinstance(value.type.size, int)
            size = value.type.size * value.dtype.itemsize
            key: object = id(value.constant)
            if size <= _COMPARED_BYTES and value.data is not None:
                key = (value.data.dtype.str, value.data.shape, value.data.tobytes())
            if key not in self._known:
                self._known[key] = self.size
                self._pieces.append((self.size, value))
                self.size += -(-size // _ALIGNMENT) * _ALIGNMENT
            self._offsets[value] = self._known[key]
        return self._offsets[value]


class _Places:
    """Where each tensor lives: an input, an output, the weights or a buffer."""

    def __init__(self, graph: Graph, resolve: Callable[[Value], Value], layout: WeightLayout) -> None:
        self.resolve = resolve
        self._inputs = {value: number for number, value in enumerate(graph.inputs)}
        self._outputs = {value: number for number, (_, value) in enumerate(graph.outputs)}
        self._layout = layout
        self.buffers: dict[Value, int] = {}

    def argument(self, value: Value) -> Argument:
        value = self.resolve(value)
        if value in self._outputs:
            return Argument(Place.OUTPUT, self._outputs[value])
        if value in self._inputs:
            return Argument(Place.INPUT, self._inputs[value])
        if value.is_constant:
            return Argument(Place.WEIGHT, self._layout.offset(value))
        return Argument(Place.BUFFER, self.buffers[value])

    def needs_buffer(self, value: Value) -> bool:
        return value not in self._outputs and value not in self._inputs and not value.is_constant


def build_program(
    graph: Graph,
    calls: Sequence[KernelCall],
    resolve: Callable[[Value], Value],
    border: Border,
    layout: WeightLayout,
) -> Program:
    """The program that runs `calls` in order. `layout` says where its weights are, and gets those it lacks."""
    symbols, sources = _input_symbols(graph)
    late = {symbol.name: symbol for symbol in graph.late_symbols}
    slots = _Slots([0] * (len(symbols) + len(late)))
    names = [*symbols, *late]
    sizes = [*map(dims.symbol, symbols), *(symbol.size for symbol in late.values())]
    for number, size in enumerate(sizes):
        slots.bind(size, number)
    builder = _Builder(graph, calls, slots, _Places(graph, resolve, layout), late, {n: i for i, n in enumerate(names)})
    segments = builder.segments()
    overridable = {
        name: offset.index
        for name, value in border.overridable.items()
        if (offset := builder.places.argument(value)).place is Place.WEIGHT
    }
    return Program(
        inputs=tuple(
            Tensor(value.name, str(value.dtype), shape, tuple(map(slots.slot, value.shape)))
            for value, shape in zip(graph.inputs, border.input_shapes, strict=True)
        ),
        outputs=tuple(
            Tensor(name, str(value.dtype), shape, tuple(map(slots.slot, value.shape)))
            for (name, value), shape in zip(graph.outputs, border.output_shapes, strict=True)
        ),
        symbols=tuple(names),
        input_symbols=(*sources, *(None for _ in late)),
        slots=tuple(slots.values),
        segments=segments,
        buffers=builder.buffers(),
        kernels=tuple(builder.kernels),
        weight_bytes=layout.size,
        overridable=overridable,
        in_place=tuple(_in_place(graph)),
        metadata=dict(border.metadata),
        custom_metadata=dict(border.custom_metadata),
    )


def _in_place(graph: Graph) -> Iterable[tuple[int, int]]:
    """The outputs that may be written over an input, with it: nothing but the node that changes it reads it."""
    consumers = graph.consumers()
    outputs = {value: number for number, (_, value) in enumerate(graph.outputs)}
    inputs = {value: number for number, value in enumerate(graph.inputs) if value not in outputs}
    for node in graph.nodes:
        if not node.op.changes_first or node.output not in outputs:
            continue
        changed, *others = node.operands()
        if changed in inputs and changed not in others and consumers[changed] == [node]:
            yield outputs[node.output], inputs[changed]


def _input_symbols(graph: Graph) -> tuple[list[str], list[tuple[int, int]]]:
    """The symbols that input shapes bind, each with the first input and axis that is just this symbol."""
    found: dict[str, tuple[int, int]] = {}
    for number, value in enumerate(graph.inputs):
        for axis, size in enumerate(value.shape):
            if isinstance(size, Poly) and len(size.terms) == 1:
                ((monomial, coefficient),) = size.terms
                if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
                    found.setdefault(monomial[0].name, (number, axis))
    return list(found), list(found.values())


class _Builder:
    def __init__(
        self,
        graph: Graph,
        calls: Sequence[KernelCall],
        slots: _Slots,
        places: _Places,
        late: Mapping[str, LateSymbol],
        symbol_slots: Mapping[str, int],
    ) -> None:
        self.graph = graph
        self.calls = calls
        self.slots = slots
        self.places = places
        self.late = late
        self.symbol_slots = symbol_slots
        self.kernels = {symbol: i for i, symbol in enumerate(dict.fromkeys(call.symbol for call in calls))}
        self.bound: set[str] = set(symbol_slots) - set(late)
        self.lifetimes: list[list[int]] = []
        self.assumptions = list(graph.assumptions)
        self.output_values = graph.output_values()

    def segments(self) -> tuple[Segment, ...]:
        last_use = self._last_uses()
        computed = {*self.graph.inputs}
        segments: list[Segment] = []
        bindings = self._bind_ready(computed)
        steps: list[Step] = []
        for number, call in enumerate(self.calls):
            if self._unbound(call.sizes()):
                segments.append(self._segment(bindings, steps))
                bindings, steps = self._bind_ready(computed), []
                missing = self._unbound(call.sizes())
                if missing:
                    raise ValueError(f"{call.label} needs sizes that no tensor before it gives: {sorted(missing)}")
            for value in map(self.places.resolve, call.writes):
                self._place(value, len(segments), number, last_use.get(value, number))
                computed.add(value)
            steps.append(self._step(call))
        output_sizes = [size for _, value in self.graph.outputs for size in value.shape]
        if self._unbound(output_sizes):
            segments.append(self._segment(bindings, steps))
            bindings, steps = self._bind_ready(computed), []
        for size in (*output_sizes, *(size for value in self.graph.inputs for size in value.shape)):
            self.slots.slot(size)
        segments.append(self._segment(bindings, steps))
        return tuple(segments)

    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(Buffer(*lifetime) for lifetime in self.lifetimes)

    def _segment(self, bindings: list[Binding], steps: list[Step]) -> Segment:
        checks = tuple(self._checks())
        instructions = tuple(self.slots.instructions)
        self.slots.instructions.clear()
        return Segment(tuple(bindings), instructions, tuple(steps), checks)

    def _checks(self) -> Iterable[Check]:
        """The assumptions whose sizes are known by now; one whose sizes never are concerns no tensor of a run."""
        waiting = []
        for assumption in self.assumptions:
            if self._unbound((assumption.left, assumption.right)):
                waiting.append(assumption)
                continue
            left, right = self.slots.slot(assumption.left), self.slots.slot(assumption.right)
            yield Check(left, right, Relation[assumption.relation.name], assumption.origin)
        self.assumptions = waiting

    def _unbound(self, sizes: Iterable[Dim]) -> set[str]:
        return set().union(*(dims.symbols_of(size) for size in sizes)) - self.bound

    def _bind_ready(self, computed: set[Value]) -> list[Binding]:
        """Bindings for every late symbol whose tensor is there by now."""
        bindings = []
        for name, symbol in self.late.items():
            source = self.places.resolve(symbol.source)
            if name not in self.bound and source in computed:
                argument = self.places.argument(source)
                slot = self.symbol_slots[name]
                bindings.append(Binding(slot, argument, symbol.element, str(source.dtype)))
                self.bound.add(name)
        return bindings

    def _last_uses(self) -> dict[Value, int]:
        last: dict[Value, int] = {}
        for number, call in enumerate(self.calls):
            for value in call.reads():
                last[self.places.resolve(value)] = number
        for symbol in self.late.values():
            # read between two steps: kept to the end, since it is only a few bytes
            last[self.places.resolve(symbol.source)] = len(self.calls)
        return last

    def _place(self, value: Value, segment: int, first: int, last: int) -> None:
        if value in self.output_values:  # its array is made before the segment in which it is written
            for extent in value.shape:
                self.slots.slot(extent)
        if self.places.needs_buffer(value) and value not in self.places.buffers:
            self.places.buffers[value] = len(self.lifetimes)
            size = self.slots.slot(value.type.size * value.dtype.itemsize)
            self.lifetimes.append([size, segment, first, last])

    def _step(self, call: KernelCall) -> Step:
        arguments = tuple(
            self.places.argument(argument)
            if isinstance(argument, Value)
            else Argument(Place.SLOT, self.slots.slot(argument))
            for argument in call.arguments
        )
        return Step(
            self.kernels[call.symbol],
            arguments,
            self.slots.slot(call.tiles),
            self.slots.slot(call.cost),
            self.slots.slot(call.scratch),
            self.slots.slot(call.flops),
            self.slots.slot(call.traffic),
            call.label,
            call.origins,
        )
