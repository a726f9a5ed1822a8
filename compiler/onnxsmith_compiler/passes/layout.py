"""Channels-last inside: convolutions and pools take [N, spatial..., C], and what is between them follows.

Every value of a convolutional region has a twin with its channels moved to the end. Operators that treat all axes
alike (`Op.permute_axes`) are computed on twins; a transpose is left only where a region begins or ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.ir.bounds import is_nonnegative
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.view import Reshape, Transpose
from onnxsmith_compiler.ops.windows import ChannelsFirst, TileColumns
from onnxsmith_compiler.passes.rewrite import Rewriter


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation that moves axis 1 to the end."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1))


def channels_last(graph: Graph, tile_columns: TileColumns) -> Graph:
    """`graph` without ChannelsFirst operators; `tile_columns` says how to pack the weights of convolutions."""
    return _Layout(graph, tile_columns).run()


class _Layout:
    def __init__(self, graph: Graph, tile_columns: TileColumns) -> None:
        self.graph = graph
        self.tile_columns = tile_columns
        self.rewriter = Rewriter(graph)
        self.twins: dict[Value, Value] = {}
        self.only_last: dict[Value, Value] = {}
        self.leaving = _leaving(graph)

    def run(self) -> Graph:
        for node in self.graph.nodes:
            self.rewriter.builder.origin = node.origin
            if not (self._window(node) or self._transpose(node) or self._reshape(node) or self._follow(node)):
                self._plain(node)
        for _, value in self.graph.outputs:
            self._first(value)
        for symbol in self.graph.late_symbols:
            self._first(symbol.source)
        return self.rewriter.finish()

    def _emit(self, node: Node, op: object, inputs: Sequence[Value | None]) -> tuple[Value, ...]:
        return self.rewriter.builder.emit_all(op, *inputs, names=[value.name for value in node.outputs])  # type: ignore[arg-type]

    def _last(self, value: Value) -> Value:
        """The channels-last twin, made by a transpose where there is none."""
        if value not in self.twins:
            self.twins[value] = move_axes(self.rewriter, self._first(value), to_last(value.rank))
        return self.twins[value]

    def _first(self, value: Value) -> Value:
        """The value as the original graph has it."""
        if value in self.only_last:
            self.rewriter.replaced[value] = move_axes(self.rewriter, self.only_last.pop(value), to_first(value.rank))
        return self.rewriter.new(value)

    def _record(self, node: Node, outputs: Sequence[Value]) -> None:
        for value, twin in zip(node.outputs, outputs, strict=True):
            self.twins[value] = twin
            self.only_last[value] = twin

    def _window(self, node: Node) -> bool:
        """Convolutions, pools and the like: they have a channels-last form of their own."""
        if not isinstance(node.op, ChannelsFirst):
            return False
        x = node.inputs[0]
        assert x is not None
        rest = [None if value is None else self._first(value) for value in node.inputs[1:]]
        self._record(node, node.op.emit_channels_last(self.rewriter.builder, self.tile_columns, self._last(x), *rest))
        return True

    def _transpose(self, node: Node) -> bool:
        """A transpose of a region's value is one of its twin; one into channels-first begins a region."""
        if not isinstance(node.op, Transpose):
            return False
        (source,) = node.operands()
        permutation = node.op.permutation
        if source.rank < 3:
            return False
        if source in self.only_last:
            order = to_last(source.rank)
            composed = tuple(order.index(axis) for axis in permutation)
            self.rewriter.replaced[node.output] = move_axes(self.rewriter, self.twins[source], composed)
            return True
        if source.rank > 3 and permutation == to_first(source.rank):
            self.twins[node.output] = self._first(source)
            self.only_last[node.output] = self.twins[node.output]
            return True
        return False

    def _reshape(self, node: Node) -> bool:
        """A reshape that leaves batch and channels alone is one of the twin's spatial axes."""
        if not isinstance(node.op, Reshape):
            return False
        (source,) = node.operands()
        shape = node.op.shape
        if source not in self.only_last or len(shape) < 3 or shape[:2] != source.shape[:2]:
            return False
        self._record(node, self._emit(node, Reshape((shape[0], *shape[2:], shape[1])), [self.twins[source]]))
        return True

    def _follow(self, node: Node) -> bool:
        """Computes the node on twins where its larger operands have them."""
        rank = node.output.rank
        if rank < 3 or not any(value in self.only_last and value.rank == rank for value in node.operands()):
            return False
        order = to_last(rank)
        op = node.op.permute_axes(order)
        if op is None or not self._worthwhile(node, rank):
            return False
        inputs = [None if value is None else self._operand(node, value, rank) for value in node.inputs]
        self._record(node, self._emit(node, op, inputs))
        return True

    def _worthwhile(self, node: Node, rank: int) -> bool:
        if node.output in self.leaving and _grows(node):
            return False
        large = [
            v for v in node.operands() if v.rank == rank and not v.is_constant and v.type.size == node.output.type.size
        ]
        ready = sum(value in self.twins for value in large)
        return 2 * ready >= len(large)

    def _operand(self, node: Node, value: Value, rank: int) -> Value:
        if value.rank == rank:
            return self._last(value)
        if value.rank == 0 or not isinstance(node.op, Pointwise):
            return self._first(value)
        wide = self.rewriter.builder.emit(
            Reshape((*(1 for _ in range(rank - value.rank)), *value.shape)), self._first(value)
        )
        return move_axes(self.rewriter, wide, to_last(rank))

    def _plain(self, node: Node) -> None:
        for value in node.operands():
            self._first(value)
        self.rewriter.keep(node)


def _leaving(graph: Graph) -> frozenset[Value]:
    """The values that become outputs of the graph with no more than elementwise operators on the way."""
    leaving = graph.output_values()
    consumers = graph.consumers()
    for node in reversed(graph.nodes):
        readers = consumers.get(node.outputs[0], [])
        if readers and all(isinstance(r.op, Pointwise | Cast) and r.output in leaving for r in readers):
            leaving.add(node.outputs[0])
    return frozenset(leaving)


def _grows(node: Node) -> bool:
    """Whether the result has twice the elements of the operands, so that it is them that should change layout."""
    before: Dim = 0
    for value in node.operands():
        before = before + value.type.size
    return is_nonnegative(node.output.type.size - 2 * before)


def move_axes(rewriter: Rewriter, value: Value, permutation: Sequence[int]) -> Value:
    """`value` transposed; where only axes of size 1 move, that is a reshape."""
    order = tuple(permutation)
    if order == tuple(range(len(order))):
        return value
    shape = tuple(value.shape[axis] for axis in order)
    long = [axis for axis in order if value.shape[axis] != 1]
    if long == sorted(long):
        return rewriter.builder.emit(Reshape(shape), value)
    return rewriter.builder.emit(Transpose(order), value)
