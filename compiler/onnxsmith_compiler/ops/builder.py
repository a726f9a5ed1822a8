"""Building graphs: nodes are appended with their types inferred, and what is known at compile time is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.bounds import is_nonnegative
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Assumption, LateSymbol, Node, Relation, TensorType, Value
from onnxsmith_compiler.ir.polynomial import Poly
from onnxsmith_compiler.ops.base import Op, ShapeError
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.sizes import Sizes


@dataclass
class GraphBuilder:
    """Appends nodes in order, inferring types, and computes at once what is known at compile time."""

    nodes: list[Node] = field(default_factory=list)
    late_symbols: list[LateSymbol] = field(default_factory=list)
    assumptions: dict[tuple[Dim, Dim, Relation], Assumption] = field(default_factory=dict)
    origin: str = ""
    fold: bool = True
    _names: dict[str, int] = field(default_factory=dict)

    def unique(self, stem: str) -> str:
        """A name that no other value or symbol has."""
        if stem not in self._names:
            self._names[stem] = 1
            return stem
        while (name := f"{stem}_{self._names[stem]}") in self._names:
            self._names[stem] += 1
        self._names[name] = 1
        return name

    def reserve(self, names: Iterable[str]) -> None:
        """Have `unique` give none of these names."""
        for name in names:
            self._names.setdefault(name, 1)

    def constant(self, data: np.ndarray | np.generic, dtype: DType | None = None, name: str = "const") -> Value:
        array = np.asarray(data)
        type_ = TensorType(dtype or dtypes.from_numpy(array.dtype), array.shape)
        return Value(self.unique(name), type_, array, _known_integers(array))

    def computed_constant(self, type_: TensorType, compute: Callable[[], np.ndarray], name: str = "const") -> Value:
        """A constant whose elements `compute` gives: at once where they are few, else whenever they are read."""
        if isinstance(type_.size, int) and type_.size <= HELD_LIMIT:
            return self.constant(compute(), type_.dtype, name)
        return Value(self.unique(name), type_, compute)

    def dims_constant(self, values: Sequence[Dim] | np.ndarray, shape: tuple[int, ...] | None = None) -> Value:
        """An int64 tensor of Dims (1-D unless `shape` says otherwise)."""
        known = np.empty(len(values), dtype=object)
        known[:] = list(values)
        return self._from_known(known if shape is None else known.reshape(shape))

    def _from_known(self, known: np.ndarray, name: str = "dims") -> Value:
        if all(isinstance(element, int) for element in known.flat):
            return self.constant(known.astype(np.int64), name=name)
        type_ = TensorType(dtypes.INT64, known.shape)
        value = Value(self.unique(name), type_, None, known)
        self.nodes.append(Node(Sizes(tuple(known.flat), known.shape), (), (value,), self.origin))
        return value

    def late_symbol(self, source: Value, element: int = 0, signed: bool = True) -> Dim:
        """The symbol that a run binds to an element of `source`, which may be negative only where it is `signed`."""
        for known in self.late_symbols:
            if known.source is source and known.element == element and known.signed == signed:
                return known.size
        late = LateSymbol(self.unique("?late" if signed else "?size"), source, element, signed)
        self.late_symbols.append(late)
        return late.size

    def assume(self, left: Dim, right: Dim, relation: Relation = Relation.EQUAL) -> None:
        """Has every run check the relation of two sizes. ShapeError where it is certain that it does not hold."""
        if isinstance(left, int) and isinstance(right, int):
            if not _holds(left, right, relation):
                raise ShapeError(f"sizes {left} and {right} do not fit: {_EXPECTED[relation]}")
        elif left != right and not (relation is Relation.AT_MOST and is_nonnegative(right - left)):
            assumption = Assumption(left, right, relation, self.origin)
            self.assumptions.setdefault((left, right, relation), assumption)

    def emit(self, op: Op, *inputs: Value | None, name: str = "") -> Value:
        """The only output of `op`, which must have one."""
        outputs = self.emit_all(op, *inputs, names=(name,))
        if len(outputs) != 1:
            raise ValueError(f"{op} has {len(outputs)} outputs")
        return outputs[0]

    def emit_all(self, op: Op, *inputs: Value | None, names: Sequence[str] = ()) -> tuple[Value, ...]:
        given = tuple(None if value is None else value.type for value in inputs)
        types = op.infer(given)
        for left, right, relation in op.assumes(given):
            self.assume(left, right, relation)
        known = self._evaluate(op, inputs, types)
        if known is not None:
            return known
        stems = list(names) + [""] * (len(types) - len(names))
        outputs = tuple(Value(self.unique(stem or op.name), type_) for stem, type_ in zip(stems, types, strict=True))
        self.nodes.append(Node(op, inputs, outputs, self.origin))
        return outputs

    def _evaluate(
        self, op: Op, inputs: Sequence[Value | None], types: Sequence[TensorType]
    ) -> tuple[Value, ...] | None:
        if not op.folds_to_known or any(value is None or value.known is None for value in inputs):
            return self._fold_constants(op, inputs, types)
        arrays = [value.known for value in inputs if value is not None]
        if types[0].dtype.kind not in ("int", "uint", "bool"):
            return self._fold_constants(op, inputs, types)
        try:
            results = op.evaluate(arrays, types)
        except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
            return self._fold_constants(op, inputs, types)
        if results is None or any(_has_unknown(result) for result in results):
            return self._fold_constants(op, inputs, types)
        return tuple(
            self._known_value(np.asarray(result, dtype=object).reshape(type_.shape), type_)  # type: ignore[arg-type]
            for result, type_ in zip(results, types, strict=True)
        )

    def _known_value(self, known: np.ndarray, type_: TensorType) -> Value:
        known = _wrapped(known, type_.dtype)
        if all(isinstance(element, int) for element in known.flat):
            return self.constant(known.astype(type_.dtype.storage), type_.dtype)
        value = self._from_known(known)
        if value.dtype is type_.dtype:
            return value
        (cast,) = (Value(self.unique("cast"), type_, None, known),)
        self.nodes.append(Node(Cast(type_.dtype), (value,), (cast,), self.origin))
        return cast

    def _fold_constants(
        self, op: Op, inputs: Sequence[Value | None], types: Sequence[TensorType]
    ) -> tuple[Value, ...] | None:
        if not self.fold or not inputs or any(value is not None and not value.is_constant for value in inputs):
            return None
        sizes = [type_.size for type_ in types]
        given = sum(value.type.size for value in inputs if value is not None and isinstance(value.type.size, int))
        if not all(isinstance(size, int) and size <= given + FOLD_LIMIT for size in sizes):
            return None
        if op.only_moves:
            return (self.computed_constant(types[0], lambda: _moved(op, inputs, types)),)
        with np.errstate(all="ignore"):
            results = op.evaluate([None if value is None else value.data for value in inputs], types)
        if results is None:
            return None
        return tuple(
            self.constant(np.asarray(result).astype(type_.dtype.storage, copy=False).reshape(type_.shape), type_.dtype)  # type: ignore[arg-type]
            for result, type_ in zip(results, types, strict=True)
        )


def _moved(op: Op, inputs: Sequence[Value | None], types: Sequence[TensorType]) -> np.ndarray:
    results = op.evaluate([None if value is None else value.data for value in inputs], types)
    assert results is not None
    return results[0]


_EXPECTED = {
    Relation.EQUAL: "expected equal ones",
    Relation.BROADCAST: "expected equal ones, or one of them to be 1",
    Relation.AT_MOST: "expected the first not to be larger",
}


def _holds(left: int, right: int, relation: Relation) -> bool:
    if relation is Relation.AT_MOST:
        return left <= right
    return left == right or (relation is Relation.BROADCAST and 1 in (left, right))


FOLD_LIMIT = 1 << 20
"""How many more elements than its operands a constant may have that is computed at compile time."""
HELD_LIMIT = 1 << 14
"""Elements of the largest constant that is computed before it is read, where that only moves elements."""
KNOWN_LIMIT = 1024
"""Elements of the largest integer constant whose elements are also followed as Dims."""


def _known_integers(array: np.ndarray) -> np.ndarray | None:
    if array.dtype.kind not in "iub" or array.size > KNOWN_LIMIT:
        return None
    known = np.empty(array.shape, dtype=object)
    if array.size:
        known[...] = array.tolist() if array.ndim else array.item()
    return known


def _has_unknown(result: np.ndarray) -> bool:
    array = np.asarray(result, dtype=object)
    return any(not isinstance(element, int | Poly | np.integer | np.bool_) for element in array.flat)


def _wrapped(known: np.ndarray, dtype: DType) -> np.ndarray:
    """The integers among `known` as elements of `dtype` hold them: modulo 2^bits."""
    result = np.empty(known.shape, dtype=object)
    result[...] = known
    for position, element in enumerate(result.flat):
        if not isinstance(element, Poly):
            result.flat[position] = _wrap(int(element), dtype)
    return result


def _wrap(number: int, dtype: DType) -> int:
    if not dtype.is_integer:
        return int(bool(number))
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "int" else 0
    return (number - low) % (1 << dtype.bits) + low
