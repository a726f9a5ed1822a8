"""Einsum, composed of diagonals, sums, products and transposes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.diagonal import Diagonal

_TERM = re.compile(r"([A-Za-z]*)(?:(\.\.\.)([A-Za-z]*))?")


@dataclass(frozen=True)
class _Operand:
    """A tensor with a label for every axis, each label once."""

    value: Value
    labels: tuple[str, ...]

    def size(self, label: str) -> Dim:
        return self.value.shape[self.labels.index(label)] if label in self.labels else 1


def einsum(node: NodeImport) -> Value:
    """The sum over all labels that the output lacks of the product of the operands."""
    equation = _equation(node)
    operands = [_operand(node, number, labels) for number, labels in enumerate(equation.inputs)]
    while len(operands) > 1:
        first, second, *rest = operands
        kept = set(equation.output).union(*(operand.labels for operand in rest))
        operands = [_combine(node, first, second, kept), *rest]
    return _arrange(node, _sum(node, operands[0], set(equation.output)), equation.output)


@dataclass(frozen=True)
class _Equation:
    """Labels of every operand's axes and of the output's; those of an ellipsis are digits, the last axis being "0"."""

    inputs: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]


def _equation(node: NodeImport) -> _Equation:
    text = node.string("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    values = [node.input(number) for number in range(len(node.inputs))]
    if len(terms) != len(values):
        raise node.invalid(f"equation '{text}' has {len(terms)} terms for {len(values)} inputs")
    inputs = tuple(_labels(node, term, value.rank) for term, value in zip(terms, values, strict=True))
    ellipsis = max((sum(label.isdigit() for label in labels) for labels in inputs), default=0)
    everything = [label for labels in inputs for label in labels]
    if arrow:
        output = _labels(node, right, None, ellipsis)
    else:
        once = sorted(label for label in set(everything) if label.isalpha() and everything.count(label) == 1)
        output = (*_ellipsis_labels(ellipsis), *once)
    if len(set(output)) < len(output) or not set(output) <= set(everything):
        raise node.invalid(f"equation '{text}': every label of the output must stand there once, and in an input")
    return _Equation(inputs, output)


def _labels(node: NodeImport, term: str, rank: int | None, ellipsis: int = 0) -> tuple[str, ...]:
    """One label for each of `rank` axes; a rank of None is whatever the term has."""
    match = _TERM.fullmatch(term)
    if match is None:
        raise node.invalid(f"equation has the term '{term}': expected letters with at most one '...'")
    before, dots, after = match.groups(default="")
    if rank is not None:
        ellipsis = rank - len(before) - len(after)
        if ellipsis < 0 or (ellipsis and not dots):
            raise node.invalid(f"the term '{term}' does not label an input of rank {rank}")
    return (*before, *(_ellipsis_labels(ellipsis) if dots else ()), *after)


def _ellipsis_labels(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count - 1, -1, -1))


def _operand(node: NodeImport, number: int, labels: tuple[str, ...]) -> _Operand:
    value = node.input(number)
    own = tuple(dict.fromkeys(labels))
    if len(own) < len(labels):
        value = node.emit(Diagonal(tuple(own.index(label) for label in labels)), value)
    return _Operand(value, own)


def _sum(node: NodeImport, operand: _Operand, kept: set[str]) -> _Operand:
    """The operand summed over the labels that are not kept."""
    gone = [axis for axis, label in enumerate(operand.labels) if label not in kept]
    if not gone:
        return operand
    labels = tuple(label for label in operand.labels if label in kept)
    return _Operand(node.reduce("sum", operand.value, gone, keepdims=False), labels)


def _drop_broadcast(node: NodeImport, operand: _Operand, other: _Operand) -> _Operand:
    """The operand without the axes of size 1 that the other one has too."""
    axes = [
        axis for axis, label in enumerate(operand.labels) if label in other.labels and operand.value.shape[axis] == 1
    ]
    if not axes:
        return operand
    labels = tuple(label for axis, label in enumerate(operand.labels) if axis not in axes)
    return _Operand(node.squeeze(operand.value, axes), labels)


def _combine(node: NodeImport, a: _Operand, b: _Operand, kept: set[str]) -> _Operand:
    """The product of two operands, summed over the labels that are not kept."""
    a = _drop_broadcast(node, a, b)
    b = _drop_broadcast(node, b, a)
    a, b = _sum(node, a, kept | set(b.labels)), _sum(node, b, kept | set(a.labels))
    both = [label for label in a.labels if label in b.labels]
    summed = [label for label in both if label not in kept]
    batch = [label for label in both if label in kept]
    rows = [label for label in a.labels if label not in both]
    columns = [label for label in b.labels if label not in both]
    if not summed or not rows or not columns:
        labels = (*batch, *rows, *columns, *summed)
        product = node.mul(_arrange_all(node, a, labels), _arrange_all(node, b, labels))
        return _sum(node, _Operand(product, labels), kept)
    left, right = _matrix(node, a, batch, rows, summed), _matrix(node, b, batch, summed, columns)
    product = node.emit(MatMul(), left, right)
    shape = (*product.shape[:-2], *(a.size(label) for label in rows), *(b.size(label) for label in columns))
    return _Operand(node.reshape(product, shape), (*batch, *rows, *columns))


def _matrix(node: NodeImport, operand: _Operand, batch: list[str], rows: list[str], columns: list[str]) -> Value:
    """The operand as [batch..., rows, columns], the labels of each joined to one axis."""
    ordered = _arrange(node, operand, (*batch, *rows, *columns))
    sizes = [dims.product(operand.size(label) for label in labels) for labels in (rows, columns)]
    return node.reshape(ordered, (*ordered.shape[: len(batch)], *sizes))


def _arrange(node: NodeImport, operand: _Operand, labels: Sequence[str]) -> Value:
    """The operand's tensor with its axes in the order of `labels`, which are its own."""
    return node.transpose(operand.value, [operand.labels.index(label) for label in labels])


def _arrange_all(node: NodeImport, operand: _Operand, labels: Sequence[str]) -> Value:
    """As `_arrange`, with an axis of size 1 for each label that the operand lacks."""
    own = _arrange(node, operand, [label for label in labels if label in operand.labels])
    return node.unsqueeze(own, [axis for axis, label in enumerate(labels) if label not in operand.labels])
