"""Which tensors are never stored: pointwise results and views that their one reader computes as it goes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex, Quotient, Remainder
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ir.loop import Computation
from onnxsmith_compiler.ir.polynomial import all_atoms
from onnxsmith_compiler.ops.lowering import Lowering, Pieces
from onnxsmith_compiler.ops.view import Reshape, Transpose

MOST_NESTED = 64
"""Values inlined one in the other: expressions are walked by recursion."""
MOST_INLINED = 256
"""Values inlined in one kernel, which takes longer to compile the more they are."""
MOST_EVALUATIONS = 2
"""How often a kernel computes an inlined value for one element of its own, at different places of it."""
MOST_COPIES = 16
"""How many elements of an inlined view a kernel reads for one element of its own."""
_LITERAL_DIGITS = 6
_LARGEST_LITERAL = 8
_EXACT_INTEGERS = (dtypes.FLOAT32, dtypes.FLOAT64)


@dataclass(frozen=True)
class Lowered:
    """A node with its lowering before anything is inlined."""

    node: Node
    lowering: Lowering

    def computations(self) -> tuple[Computation, ...]:
        match self.lowering:
            case Computation():
                return (self.lowering,)
            case Pieces(pieces=pieces):
                return pieces
        return ()

    @property
    def is_map(self) -> bool:
        return isinstance(self.lowering, Computation) and not self.lowering.reduce

    @property
    def is_view(self) -> bool:
        """Whether every output element is one input element, moved, or follows from its position alone."""
        return self.is_map and isinstance(self.lowering.body, loop.Load | loop.IndexValue)  # type: ignore[union-attr]


def lower_nodes(graph: Graph) -> tuple[Lowered, ...]:
    return tuple(Lowered(node, node.op.lower(node)) for node in graph.nodes)


def choose_inlined(graph: Graph, lowered: tuple[Lowered, ...], fuse: bool) -> frozenset[Value]:
    """The values whose readers compute them.

    A view of a tensor in memory is computed by all its readers; a value that costs arithmetic only where all its
    uses end in one kernel that visits each element once. Reshapes of stored tensors are left alone: they are
    aliases.
    """
    return _Choice(graph, lowered).run() if fuse else frozenset()


Place: TypeAlias = tuple[Node, int]
"""One of the computations of a kernel, which the node is the last of."""


@dataclass(frozen=True)
class _Uses:
    """Where a value is read once what is inlined has been.

    For every computation the elements that one element of its result needs. `depth` is how many inlined values lie
    one in the other from there to here.
    """

    elements: Mapping[Place, frozenset[loop.Index]]
    depth: int

    @property
    def kernels(self) -> set[Node]:
        return {node for node, _ in self.elements}

    @property
    def copies(self) -> int:
        return max(map(len, self.elements.values()), default=0)

    @property
    def evaluations(self) -> int:
        return sum(map(len, self.elements.values()))


class _Choice:
    def __init__(self, graph: Graph, lowered: tuple[Lowered, ...]) -> None:
        self.lowered = lowered
        self.kept = graph.kept_values()
        self.consumers = graph.consumers()
        self.by_output = {output: item for item in lowered for output in item.node.outputs}
        self.inlined: dict[Value, _Uses] = {}
        self.sizes: Counter[Node] = Counter()

    def run(self) -> frozenset[Value]:
        for item in reversed(self.lowered):
            value = item.node.output
            readers = [self.by_output[node.output] for node in dict.fromkeys(self.consumers.get(value, []))]
            if not item.is_map or value in self.kept or not all(reader.computations() for reader in readers):
                continue
            uses = self._uses(value, readers)
            if readers and self._fits(uses) and self._is_worthwhile(item, readers, uses):
                self.inlined[value] = uses
                self.sizes.update(uses.kernels)
        return frozenset(self.inlined)

    def _uses(self, value: Value, readers: Sequence[Lowered]) -> _Uses:
        elements: dict[Place, set[loop.Index]] = {}
        depth = 1
        for reader in readers:
            beyond = self.inlined.get(reader.node.output)
            for number, computation in enumerate(reader.computations()):
                loads = [load for expression in computation.expressions() for load in loop.loads(expression)]
                read = {load.index for load in loads if load.value is value}
                if beyond is None:
                    elements.setdefault((reader.node, number), set()).update(read)
                    continue
                depth = max(depth, beyond.depth + 1)
                for place, needed in beyond.elements.items():
                    found = elements.setdefault(place, set())
                    for element in needed:
                        axes = dict(zip(computation.axes, element, strict=True))
                        found.update(tuple(loop.substitute_dim(p, axes) for p in index) for index in read)
        return _Uses({place: frozenset(found) for place, found in elements.items() if found}, depth)

    def _fits(self, uses: _Uses) -> bool:
        return uses.depth <= MOST_NESTED and all(self.sizes[node] < MOST_INLINED for node in uses.kernels)

    def _is_worthwhile(self, item: Lowered, readers: Sequence[Lowered], uses: _Uses) -> bool:
        if item.is_view:
            alias = isinstance(item.node.op, Reshape) and _stays_simple(item, readers)
            crosses = isinstance(item.node.op, Transpose) and any(_slides_over(item.node.output, r) for r in readers)
            return not alias and not crosses and uses.copies <= MOST_COPIES
        if len(uses.kernels) != 1 or uses.evaluations > MOST_EVALUATIONS:
            return False
        (kernel,) = (self.by_output[node.output] for node in uses.kernels)
        size = item.node.output.type.size
        return isinstance(kernel.lowering, Pieces) or any(_iterations(c) == size for c in kernel.computations())


def _stays_simple(item: Lowered, readers: Sequence[Lowered]) -> bool:
    """A reshape is better left an alias where inlining it would put divisions into a reduction's loads."""
    computation = item.computations()[0]
    body = computation.body
    if not isinstance(body, loop.Load):
        return False
    divided = any(isinstance(atom, Quotient | Remainder) for dim in body.index for atom in all_atoms(dim))
    reduces = any(c.reduce for reader in readers for c in reader.computations())
    return divided and reduces


def _slides_over(value: Value, reader: Lowered) -> bool:
    """Whether a window moves over `value`: a position in it depends on the element that is computed and on the tap.

    Such a reduction reads elements often, and along the axis that it writes.
    """
    for computation in reader.computations():
        own, taps = set(computation.axes), set(computation.reduce)
        for load in loop.loads(computation.body):
            places = [loop.loop_indices(position) for position in load.index] if load.value is value else []
            if any(place & own and place & taps for place in places):
                return True
    return False


def _iterations(computation: Computation) -> Dim:
    return dims.product([axis.extent for axis in (*computation.axes, *computation.reduce)])


def _literal(load: loop.Load) -> loop.Expr | None:
    """A constant of one element that is short enough to write into a kernel that others should share."""
    data = load.value.data if load.value.type.size == 1 else None
    if data is None:
        return None
    number = data.reshape(-1)[0].item() if load.value.dtype.storage.kind in "biuf" else float(data.reshape(-1)[0])
    if load.value.dtype.is_float and len(f"{number:.9g}") > _LITERAL_DIGITS and number == number:
        return None
    if (
        load.value.dtype in _EXACT_INTEGERS
        and math.isfinite(number)
        and _LARGEST_LITERAL < abs(number) == int(abs(number))
    ):
        # most often a count, in which layers differ that should share a kernel: printed as a parameter
        return loop.apply("cast", loop.IndexValue(dtypes.INT64, int(number)), dtype=load.value.dtype)
    return loop.const(number, load.value.dtype)


class Inliner:
    """Puts the definitions of inlined values in place of what reads them.

    What definitions have in common stays one expression, however many ways lead to it.
    """

    def __init__(self) -> None:
        self._definitions: dict[Value, Computation] = {}
        self._elements: dict[tuple[Value, loop.Index], loop.Expr] = {}
        self._moves: dict[frozenset[tuple[LoopIndex, Dim]], dict[int, loop.Expr]] = {}

    def define(self, value: Value, computation: Computation) -> None:
        """From here on loads of `value` become its element as `computation`, a map, gives it."""
        self._definitions[value] = self.inline(computation)

    def inline(self, computation: Computation) -> Computation:
        """`computation` with loads of defined values replaced by their bodies at the loaded element."""
        memo: dict[int, loop.Expr] = {}

        def visit(expr: loop.Expr) -> loop.Expr | None:
            if not isinstance(expr, loop.Load):
                return None
            if expr.value not in self._definitions:
                return _literal(expr)
            return self._element(expr.value, tuple(dim(position) for position in expr.index))

        def expression(expr: loop.Expr) -> loop.Expr:
            return loop.rewrite(expr, visit, dim, memo)

        def dim(position: Dim) -> Dim:
            return loop.map_dim(position, {}, expression)

        guard = None if computation.guard is None else expression(computation.guard)
        store = None if computation.store is None else tuple(map(dim, computation.store))
        return replace(computation, body=expression(computation.body), guard=guard, store=store)

    def _element(self, value: Value, index: loop.Index) -> loop.Expr:
        key = (value, index)
        if key not in self._elements:
            definition = self._definitions[value]
            indices = dict(zip(definition.axes, index, strict=True))
            moved = {axis: position for axis, position in indices.items() if position != dims.from_atom(axis)}
            if moved:
                memo = self._moves.setdefault(frozenset(moved.items()), {})
                self._elements[key] = loop.substitute(definition.body, moved, memo)
            else:
                self._elements[key] = definition.body
        return self._elements[key]
