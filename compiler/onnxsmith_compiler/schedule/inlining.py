"""Which tensors are never stored: pointwise results and views that their one reader computes as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ir.loop import Computation
from onnxsmith_compiler.ops.lowering import Lowering, Pieces
from onnxsmith_compiler.ops.view import Reshape

_LITERAL_DIGITS = 6


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
    if not fuse:
        return frozenset()
    kept = graph.kept_values()
    by_output = {output: item for item in lowered for output in item.node.outputs}
    consumers = graph.consumers()
    roots: dict[Value, frozenset[Node]] = {}
    inlined: set[Value] = set()
    for item in reversed(lowered):
        for value in item.node.outputs:
            readers = consumers.get(value, [])
            found: set[Node] = set()
            for reader in readers:
                output = reader.outputs[0]
                found |= roots[output] if output in inlined else {reader}
            roots[value] = frozenset(found)
            if value in kept or not readers or not item.is_map:
                continue
            if _can_inline(item, readers, roots[value], by_output):
                inlined.add(value)
    return frozenset(inlined)


def _can_inline(item: Lowered, readers: list[Node], roots: frozenset[Node], by_output: Mapping[Value, Lowered]) -> bool:
    if not all(by_output[reader.outputs[0]].computations() for reader in readers):
        return False
    if item.is_view:
        return not (isinstance(item.node.op, Reshape) and _stays_simple(item, readers, by_output))
    if len(roots) != 1:
        return False
    (root,) = roots
    size = item.node.output.type.size
    return any(_iterations(computation) == size for computation in by_output[root.outputs[0]].computations()) or (
        isinstance(by_output[root.outputs[0]].lowering, Pieces)
    )


def _stays_simple(item: Lowered, readers: list[Node], by_output: Mapping[Value, Lowered]) -> bool:
    """A reshape is better left an alias where inlining it would put divisions into a reduction's loads."""
    computation = item.computations()[0]
    body = computation.body
    if not isinstance(body, loop.Load):
        return False
    divided = any(
        isinstance(atom, dims.Quotient | dims.Remainder) for dim in body.index for atom in dims.all_atoms(dim)
    )
    reduces = any(c.reduce for reader in readers for c in by_output[reader.outputs[0]].computations())
    return divided and reduces


def _iterations(computation: Computation) -> Dim:
    return dims.product([axis.extent for axis in (*computation.axes, *computation.reduce)])


def _literal(load: loop.Load) -> loop.Expr | None:
    """A constant of one element that is short enough to write into a kernel that others should share."""
    data = load.value.data
    if data is None or data.size != 1:
        return None
    number = data.reshape(-1)[0].item() if load.value.dtype.storage.kind in "biuf" else float(data.reshape(-1)[0])
    if load.value.dtype.is_float and len(f"{number:.9g}") > _LITERAL_DIGITS and number == number:
        return None
    return loop.const(number, load.value.dtype)


def inline(computation: Computation, definitions: Mapping[Value, Computation]) -> Computation:
    """`computation` with loads of defined values replaced by their bodies at the loaded element."""
    memo: dict[tuple[Value, loop.Index], loop.Expr] = {}

    def visit(expr: loop.Expr) -> loop.Expr | None:
        if not isinstance(expr, loop.Load):
            return None
        if expr.value not in definitions:
            return _literal(expr)
        index = tuple(dim(position) for position in expr.index)
        key = (expr.value, index)
        if key not in memo:
            definition = definitions[expr.value]
            memo[key] = loop.substitute(definition.body, dict(zip(definition.axes, index, strict=True)))
        return memo[key]

    def expression(expr: loop.Expr) -> loop.Expr:
        return loop.rewrite(expr, visit, dim)

    def dim(position: Dim) -> Dim:
        return loop.map_dim(position, {}, expression)

    guard = None if computation.guard is None else expression(computation.guard)
    store = None if computation.store is None else tuple(map(dim, computation.store))
    return replace(computation, body=expression(computation.body), guard=guard, store=store)
