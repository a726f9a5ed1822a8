"""The loop IR: scalar expressions over loop indices, and the loop nests that compute a tensor with them.

Expressions form a DAG of frozen nodes. Index arithmetic is not in them: a load names its element by
Dims over the loop indices (`atom.LoopIndex`), so that index maps compose by substitution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import TypeAlias

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.atom import Atom, Computed, LoopIndex
from onnxsmith_compiler.ir.bounds import bounds_of, is_nonnegative, is_within
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ir.polynomial import all_atoms

Index: TypeAlias = tuple[Dim, ...]


@dataclass(frozen=True, eq=False)
class Expr:
    """A scalar. `dtype` is a compute type: float16 and bfloat16 values are float32 here."""

    dtype: DType

    @property
    def children(self) -> tuple[Expr, ...]:
        return ()

    @property
    def index_dims(self) -> Index:
        """The Dims this node itself mentions."""
        return ()

    @cached_property
    def indices(self) -> frozenset[LoopIndex]:
        """The loop indices on which the expression depends."""
        found: set[LoopIndex] = set()
        for child in self.children:
            found |= child.indices
        for dim in self.index_dims:
            found |= loop_indices(dim)
        return frozenset(found)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What makes two nodes equal: the class and the fields, children by their own keys."""
        return (type(self).__name__, *vars_of(self))

    @cached_property
    def _hash(self) -> int:
        return hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Expr) and self._hash == other._hash and self.key == other.key

    @property
    def text(self) -> str:
        """What it computes, in terms of its children's labels."""
        raise NotImplementedError(f"{type(self).__name__}.text")

    @cached_property
    def label(self) -> str:
        """`text`, or where that is long a digest of it: a DAG's full text can be exponentially longer than the DAG."""
        text = self.text
        return text if len(text) <= _LONGEST_LABEL else f"#{blake2b(text.encode(), digest_size=12).hexdigest()}"

    def __str__(self) -> str:
        return self.label


_LONGEST_LABEL = 120


def vars_of(expr: Expr) -> Iterator[object]:
    for name in expr.__dataclass_fields__:
        yield getattr(expr, name)


@dataclass(frozen=True, eq=False)
class Const(Expr):
    """A literal: bool, int or float (float literals are exact in `dtype`)."""

    value: bool | int | float

    @cached_property
    def key(self) -> tuple[object, ...]:
        return ("Const", self.dtype, repr(self.value))

    @property
    def text(self) -> str:
        return f"{self.dtype}({self.value!r})"


@dataclass(frozen=True, eq=False)
class IndexValue(Expr):
    """A Dim used as an int64 value."""

    dim: Dim

    @property
    def index_dims(self) -> Index:
        return (self.dim,)

    @property
    def text(self) -> str:
        return f"({self.dim})"


@dataclass(frozen=True, eq=False)
class Load(Expr):
    """One element of a tensor."""

    value: Value
    index: Index

    @property
    def index_dims(self) -> Index:
        return self.index

    @property
    def text(self) -> str:
        return f"{self.value}[{', '.join(map(str, self.index))}]"


@dataclass(frozen=True, eq=False)
class Apply(Expr):
    """A scalar function by name (`ops.scalar` lists them) on its arguments."""

    function: str
    arguments: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.arguments

    @property
    def text(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, eq=False)
class Guarded(Expr):
    """`inside` where `condition` holds, else `outside`; `inside` is not evaluated elsewhere."""

    condition: Expr
    inside: Expr
    outside: Expr

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.condition, self.inside, self.outside)

    @property
    def text(self) -> str:
        return f"({self.inside} if {self.condition} else {self.outside})"


@dataclass(frozen=True, eq=False)
class Checked(Expr):
    """An int64 that must lie in [-limit, limit): negative ones count from the end; a fault otherwise."""

    index: Expr
    limit: Dim

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.index,)

    @property
    def index_dims(self) -> Index:
        return (self.limit,)

    @property
    def text(self) -> str:
        return f"checked({self.index}, {self.limit})"


@dataclass(frozen=True, eq=False)
class Accumulated(Expr):
    """The result of the reduction or contraction that this expression is the epilogue of."""

    @property
    def text(self) -> str:
        return "acc"


def loop_indices(dim: Dim) -> frozenset[LoopIndex]:
    found: set[LoopIndex] = set()
    for atom in all_atoms(dim):
        if isinstance(atom, LoopIndex):
            found.add(atom)
        elif isinstance(atom, Computed):
            found |= atom.expression.indices  # type: ignore[attr-defined]
    return frozenset(found)


def computed(expr: Expr) -> Dim:
    """An int64 expression as an index."""
    if isinstance(expr, IndexValue):
        return expr.dim
    if isinstance(expr, Const):
        return int(expr.value)
    return dims.from_atom(Computed(expr))


@dataclass(frozen=True)
class Computation:
    """A tensor by its elements: out[axes] = combine over `reduce` of body.

    Without `reduce` it is a map. `combine` is "sum", "prod", "max", "min", "and", "or", or "argmax_first",
    "argmax_last", "argmin_first", "argmin_last" (the position, counted over `reduce`). Positions where `guard` is
    false take no part in a reduction. `store` says which element of the output is written where that is not (axes...).
    """

    axes: tuple[LoopIndex, ...]
    body: Expr
    reduce: tuple[LoopIndex, ...] = ()
    combine: str = ""
    guard: Expr | None = None
    store: Index | None = None

    def expressions(self) -> Iterator[Expr]:
        yield self.body
        if self.guard is not None:
            yield self.guard

    def __str__(self) -> str:
        head = ", ".join(f"{axis.name}<{axis.extent}" for axis in self.axes)
        if not self.reduce:
            return f"map [{head}] {self.body}"
        inner = ", ".join(f"{axis.name}<{axis.extent}" for axis in self.reduce)
        guard = f" where {self.guard}" if self.guard is not None else ""
        return f"{self.combine} [{head}] over [{inner}] {self.body}{guard}"


def axes_for(shape: tuple[Dim, ...], prefix: str = "i") -> tuple[LoopIndex, ...]:
    return tuple(LoopIndex(f"{prefix}{number}", extent) for number, extent in enumerate(shape))


def index_of(axes: tuple[LoopIndex, ...]) -> Index:
    return tuple(0 if axis.extent == 1 else dims.from_atom(axis) for axis in axes)


def broadcast_index(shape: tuple[Dim, ...], index: Index, target: tuple[Dim, ...]) -> Index:
    """The element of a tensor of `shape` that stands at `index` of the `target` shape it is broadcast to."""
    start = len(index) - len(shape)
    return tuple(
        _broadcast_position(extent, position, wide)
        for extent, position, wide in zip(shape, index[start:], target[start:], strict=True)
    )


def _broadcast_position(extent: Dim, position: Dim, target: Dim) -> Dim:
    if extent == 1:
        return 0
    if extent == target or dims.is_cut(extent, target) or dims.is_cut(target, extent):
        return position
    return position * dims.minimum(1, extent - 1)  # whether it is 1 shows when it runs


def linear_offset(shape: tuple[Dim, ...], index: Index) -> Dim:
    """The row-major element offset of `index`."""
    offset: Dim = 0
    for extent, position in zip(shape, index, strict=True):
        offset = offset * extent + position
    return offset


def rewrite(
    expr: Expr,
    visit: Callable[[Expr], Expr | None],
    dim: Callable[[Dim], Dim],
    memo: dict[int, Expr] | None = None,
) -> Expr:
    """`expr` with each node for which `visit` returns something replaced, and `dim` applied to all Dims.

    A `memo` that is kept between calls, with what it was filled for, lets what they have in common stay one node.
    """
    memo = {} if memo is None else memo

    def walk(node: Expr) -> Expr:
        known = memo.get(id(node))
        if known is not None:
            return known
        new = visit(node)
        if new is None:
            new = _rebuild(node, walk, dim)
        memo[id(node)] = new
        return new

    return walk(expr)


def _rebuild(node: Expr, walk: Callable[[Expr], Expr], dim: Callable[[Dim], Dim]) -> Expr:
    match node:
        case IndexValue():
            return replace(node, dim=dim(node.dim))
        case Load():
            return replace(node, index=tuple(map(dim, node.index)))
        case Apply():
            return replace(node, arguments=tuple(map(walk, node.arguments)))
        case Guarded():
            return Guarded(node.dtype, walk(node.condition), walk(node.inside), walk(node.outside))
        case Checked():
            return Checked(node.dtype, walk(node.index), dim(node.limit))
    return node


def substitute(expr: Expr, indices: Mapping[LoopIndex, Dim], memo: dict[int, Expr] | None = None) -> Expr:
    """`expr` with loop indices replaced by Dims, inside computed indices too. `memo` is as of `rewrite`."""
    memo = {} if memo is None else memo

    def expression(inner: Expr) -> Expr:
        return rewrite(inner, lambda _: None, dim, memo)

    def dim(position: Dim) -> Dim:
        return map_dim(position, indices, expression)

    return expression(expr)


def substitute_dim(dim: Dim, indices: Mapping[LoopIndex, Dim]) -> Dim:
    return map_dim(dim, indices, lambda inner: substitute(inner, indices))


def map_dim(dim: Dim, indices: Mapping[LoopIndex, Dim], expression: Callable[[Expr], Expr]) -> Dim:
    """`dim` with loop indices replaced and `expression` applied to what is computed in it."""

    def place(atom: Atom) -> Dim | None:
        if isinstance(atom, LoopIndex):
            return indices.get(atom)
        if isinstance(atom, Computed):
            return computed(expression(atom.expression))  # type: ignore[arg-type]
        return None

    return dims.substitute(dim, place)


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node of the DAG once, children before parents, those inside computed indices too."""
    seen: set[int] = set()

    def visit(node: Expr) -> Iterator[Expr]:
        if id(node) in seen:
            return
        seen.add(id(node))
        for dim in node.index_dims:
            for atom in all_atoms(dim):
                if isinstance(atom, Computed):
                    yield from visit(atom.expression)  # type: ignore[arg-type]
        for child in node.children:
            yield from visit(child)
        yield node

    yield from visit(expr)


def loads(expr: Expr) -> Iterator[Load]:
    return (node for node in walk(expr) if isinstance(node, Load))


def const(value: bool | int | float, dtype: DType) -> Const:
    return Const(dtype.compute, value)


def apply(function: str, *arguments: Expr, dtype: DType | None = None) -> Expr:
    return Apply((dtype or arguments[0].dtype).compute, function, arguments)


def load(value: Value, index: Index) -> Expr:
    return Load(value.dtype.compute, value, index)


def in_range(position: Dim, extent: Dim) -> Expr | None:
    """`0 <= position < extent`, or None where that is certain."""
    if is_within(position, extent):
        return None
    low, high = bounds_of(position)
    value = IndexValue(dtypes.INT64, position)
    checks = []
    if low is None or not is_nonnegative(low):
        checks.append(apply("ge", value, IndexValue(dtypes.INT64, 0), dtype=dtypes.BOOL))
    if high is None or not is_nonnegative(extent - 1 - high):
        checks.append(apply("lt", value, IndexValue(dtypes.INT64, extent), dtype=dtypes.BOOL))
    return conjunction(checks)


def all_in_range(positions: Index, extents: Index) -> Expr | None:
    """Whether every position lies within its extent, or None where that is certain."""
    checks = [in_range(position, extent) for position, extent in zip(positions, extents, strict=True)]
    return conjunction([check for check in checks if check is not None])


def conjunction(conditions: list[Expr]) -> Expr | None:
    """All of the conditions, or None where there are none."""
    result: Expr | None = None
    for condition in conditions:
        result = condition if result is None else apply("and", result, condition, dtype=dtypes.BOOL)
    return result
