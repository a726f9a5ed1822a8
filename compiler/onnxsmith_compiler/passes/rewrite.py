"""What most passes are: a walk over the nodes in order that rebuilds the graph, with values replaced on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from onnxsmith_compiler.ir.graph import Assumption, Graph, Node, Value
from onnxsmith_compiler.ops.builder import GraphBuilder


@dataclass
class Rewriter:
    """Rebuilds a graph node by node. `builder` appends new nodes, `replaced` maps old values to new ones."""

    graph: Graph
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    replaced: dict[Value, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.graph.nodes:
            self.builder.reserve(value.name for value in node.outputs)

    def new(self, value: Value) -> Value:
        return self.replaced.get(value, value)

    def keep(self, node: Node) -> Node:
        """Appends `node` with its inputs replaced."""
        inputs = tuple(None if value is None else self.new(value) for value in node.inputs)
        kept = node if inputs == node.inputs else replace(node, inputs=inputs)
        self.builder.nodes.append(kept)
        return kept

    def finish(self) -> Graph:
        outputs = tuple((name, self.new(value)) for name, value in self.graph.outputs)
        late = tuple(replace(s, source=self.new(s.source)) for s in self.graph.late_symbols)
        return Graph(self.graph.inputs, outputs, tuple(self.builder.nodes), late, self._assumptions())

    def _assumptions(self) -> tuple[Assumption, ...]:
        """Those of the graph, and what the new nodes rely on."""
        found = {(a.left, a.right, a.relation): a for a in self.graph.assumptions}
        return tuple((self.builder.assumptions | found).values())


def rewrite_nodes(graph: Graph, rewrite: Callable[[Rewriter, Node], Value | None]) -> Graph:
    """`graph` with each node for which `rewrite` returns a value computed by that instead.

    `rewrite` sees nodes with their inputs already replaced, and emits what it needs to the rewriter's builder.
    """
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        inputs = tuple(None if value is None else rewriter.new(value) for value in node.inputs)
        current = node if inputs == node.inputs else replace(node, inputs=inputs)
        rewriter.builder.origin = node.origin
        new = rewrite(rewriter, current)
        if new is None:
            rewriter.builder.nodes.append(current)
        else:
            rewriter.replaced[node.output] = new
    return rewriter.finish()
