"""Replaces calls of a model's own functions by their bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from onnxsmith_compiler.errors import InvalidGraph, UndefinedOutput, quoted
from onnxsmith_compiler.onnx.convert import FunctionBody, FunctionKey
from onnxsmith_compiler.onnx.limits import Budget
from onnxsmith_compiler.onnx.model import AttributeValue, OnnxGraph, OnnxNode
from onnxsmith_compiler.onnx.names import NamePool
from onnxsmith_compiler.onnx.rename import Instance, map_subgraphs, outputs_of


class Inliner:
    """Inlines calls in one model, in subgraphs and in other functions too.

    A function wins over an operator of the same name. Each call gets names of its own from the pools.
    """

    def __init__(
        self,
        functions: Mapping[FunctionKey, FunctionBody],
        value_names: NamePool,
        node_names: NamePool,
        budget: Budget,
    ) -> None:
        self._functions = functions
        self._value_names = value_names
        self._node_names = node_names
        self._budget = budget

    def graph(self, graph: OnnxGraph, calls: tuple[FunctionKey, ...] = ()) -> OnnxGraph:
        """The graph without calls. `calls` are the functions being inlined around it."""
        return replace(graph, nodes=tuple(self._nodes(graph.nodes, calls)))

    def _nodes(self, nodes: Iterable[OnnxNode], calls: tuple[FunctionKey, ...]) -> list[OnnxNode]:
        out: list[OnnxNode] = []
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            function = self._functions.get(key)
            if function is None:
                out.append(map_subgraphs(node, lambda graph: self.graph(graph, calls)))
                continue
            if key in calls:
                path = " -> ".join(quoted(name) for _, name, _ in (*calls, key))
                raise InvalidGraph(f"{node}: functions call themselves: {path}")
            self._budget.check_depth(len(calls) + 1, str(node))
            out += self._nodes(self._body(node, function), (*calls, key))
        return out

    def _body(self, call: OnnxNode, function: FunctionBody) -> list[OnnxNode]:
        instance = Instance(
            owner=f"function {quoted(function.name)} called by {call}",
            prefix=call.name,
            attributes=_bound_attributes(call, function),
            value_names=self._value_names,
            node_names=self._node_names,
            budget=self._budget,
        )
        return inline_call(call, function, instance, self._node_names)


def inline_call(call: OnnxNode, function: FunctionBody, instance: Instance, node_names: NamePool) -> list[OnnxNode]:
    """The function's nodes, reading the call's inputs and defining its outputs.

    Raises InvalidGraph where their numbers disagree, UndefinedOutput where the body defines no such output.
    """
    if len(call.inputs) > len(function.inputs) or len(call.outputs) > len(function.outputs):
        raise InvalidGraph(
            f"{call} has {len(call.inputs)} inputs and {len(call.outputs)} outputs, function "
            f"{quoted(function.name)} has {len(function.inputs)} and {len(function.outputs)}"
        )
    environment: dict[str, str | None] = {}
    for index, name in enumerate(function.inputs):
        environment[name] = call.input(index)
    produced = set(outputs_of(function.nodes))
    copies: list[tuple[str, str]] = []
    for name, target in zip(function.outputs, call.outputs, strict=False):
        if target is None:
            continue
        if name in environment:  # an input that is returned as it is, or the same value returned twice
            copies.append((name, target))
        elif name in produced:
            environment[name] = target
        else:
            raise UndefinedOutput(f"{call}: function {quoted(function.name)} does not define {quoted(name)}")
    nodes = instance.nodes(function.nodes, environment)
    for name, target in copies:
        nodes.append(_identity(call, environment[name], target, function.opsets.get("", 1), node_names))
    return nodes


def _identity(call: OnnxNode, source: str | None, target: str, version: int, node_names: NamePool) -> OnnxNode:
    if source is None:
        raise UndefinedOutput(f"{call}: output {quoted(target)} is an input that the call omits")
    name = node_names.fresh(f"{call.name}/Identity")
    return OnnxNode(name, "Identity", "", version, (source,), (target,))


def _bound_attributes(call: OnnxNode, function: FunctionBody) -> dict[str, AttributeValue]:
    """What references in the body stand for. An attribute that the function does not declare is ignored."""
    declared = {*function.required, *function.defaults}
    given = {name: value for name, value in call.attributes.items() if name in declared}
    return {**function.defaults, **given}
