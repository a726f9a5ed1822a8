"""Graphs and groups as text, for people."""

from __future__ import annotations

from onnxsmith_compiler.ir.graph import Graph, Node, Value

_SHOWN = 8


def graph_text(graph: Graph) -> str:
    """One line an operation: results and their types, operator with attributes, operands, and where it comes from."""
    lines = [f"input {value!r}" for value in graph.inputs]
    lines += [_node_text(node) for node in graph.nodes]
    lines += [f"symbol {symbol.name} = element {symbol.element} of {symbol.source}" for symbol in graph.late_symbols]
    lines += [f"output {name} = {value}" for name, value in graph.outputs]
    return "\n".join(lines) + "\n"


def _node_text(node: Node) -> str:
    results = ", ".join(map(repr, node.outputs))
    operands = ", ".join("-" if value is None else value_text(value) for value in node.inputs)
    return f"{results} = {node.op}({operands})" + (f"  # {node.origin}" if node.origin else "")


def value_text(value: Value) -> str:
    """A value's name, or a constant's type and first elements."""
    data = value.data
    if data is None:
        return str(value)
    first = data.reshape(-1)[:_SHOWN].tolist()
    elements = ", ".join(f"{element:.6g}" if _is_number(element) else str(element) for element in first)
    more = ", ..." if data.size > _SHOWN else ""
    return f"{value.type}{{{elements}{more}}}"


def _is_number(element: object) -> bool:
    return isinstance(element, int | float) and not isinstance(element, bool)
