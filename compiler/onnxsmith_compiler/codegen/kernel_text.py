"""Writing one kernel: its parameters, its indented lines, and expressions as statements of it.

This is the only place that turns loop-IR expressions into Python. Sizes and strides are parameters of the kernel, so
that its text says what is computed, not for which model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from onnxsmith_compiler.codegen.scalar_text import literal, scalar_text
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import Atom, Computed, Extreme, LoopIndex, Monomial, Quotient, Remainder
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ir.polynomial import Poly, all_atoms, from_terms
from onnxsmith_compiler.schedule.work import Work

BAKED_LIMIT = 4
"""Integers up to this size are written into the text; larger ones are parameters."""

_PRECEDENCE_ATOM = 2


@dataclass(frozen=True)
class PrintedKernel:
    """A kernel with what its step passes: one Value (an address) or Dim a parameter, the number of tiles,
    about how many nanoseconds one takes, and the bytes of scratch a thread needs."""

    source: KernelSource
    arguments: tuple[Value | Dim, ...]
    tiles: Dim
    cost: Dim
    scratch: Dim = 0


@dataclass(frozen=True, eq=False)
class PrintedStep:
    """A printed kernel, the tensors that it writes, where it comes from, and what it does.

    `alternatives` makes kernels of the same source and results that could stand in for it: other arguments cut its
    work into other tiles.
    """

    kernel: PrintedKernel
    writes: tuple[Value, ...]
    label: str
    origins: tuple[str, ...]
    work: Work
    alternatives: Callable[[], tuple[PrintedKernel, ...]] = tuple


@dataclass
class KernelText:
    """The text of a kernel under construction. `prefix` begins every name that it makes up."""

    lines: list[str] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    arguments: list[Value | Dim] = field(default_factory=list)
    accumulated: str = ""
    prefix: str = ""
    _pointers: dict[tuple[Value, bool], str] = field(default_factory=dict)
    _sizes: dict[Dim, str] = field(default_factory=dict)
    _indices: dict[LoopIndex, str] = field(default_factory=dict)
    _scopes: list[dict[loop.Expr, str]] = field(default_factory=lambda: [{}])
    _replaced: dict[Value, str] = field(default_factory=dict)
    _rows: dict[Value, tuple[str, Dim]] = field(default_factory=dict)
    _indent: int = 1
    _counts: dict[str, int] = field(default_factory=dict)

    def fresh(self, stem: str) -> str:
        count = self._counts.get(stem, 0)
        self._counts[stem] = count + 1
        return f"{self.prefix}{stem}{count}"

    def line(self, text: str) -> None:
        self.lines.append("    " * self._indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """An indented block under `head`; expressions computed in it are forgotten after it."""
        self.line(head)
        self._indent += 1
        self._scopes.append({})
        yield
        self._scopes.pop()
        self._indent -= 1

    def read(self, value: Value) -> str:
        """The name of the pointer to a tensor that the kernel reads."""
        return self._pointer(value, False, "x")

    def written(self, value: Value) -> str:
        """The name of the pointer to a tensor that the kernel writes (and may read back)."""
        return self._pointer(value, True, "y")

    def _pointer(self, value: Value, write: bool, stem: str) -> str:
        key = (value, write)
        if key not in self._pointers:
            name = self.fresh(stem)
            self._pointers[key] = name
            self.parameters.append(Parameter(name, f"{value.dtype}*", noalias=True))
            self.arguments.append(value)
        return self._pointers[key]

    def name_index(self, axis: LoopIndex, name: str) -> None:
        """Says that the loop variable `name` is `axis`."""
        self._indices[axis] = name

    def size(self, size: Dim) -> str:
        """A Dim without loop indices: a literal where it is small, else a parameter."""
        if isinstance(size, int) and -BAKED_LIMIT <= size <= BAKED_LIMIT:
            return str(size)
        return self.parameter(size)

    def parameter(self, size: Dim) -> str:
        """A Dim without loop indices, as a parameter however small it is."""
        if size not in self._sizes:
            name = self.fresh("n")
            self._sizes[size] = name
            self.parameters.append(Parameter(name, "int64"))
            self.arguments.append(size)
        return self._sizes[size]

    def dim(self, position: Dim) -> str:
        """An index expression over loop variables and parameters."""
        if not self._varies(position):
            return self.size(position)
        groups: dict[Monomial, Dim] = {}
        fixed: Dim = 0
        assert isinstance(position, Poly)
        for monomial, coefficient in position.terms:
            varying = tuple(atom for atom in monomial if self._varies(dims.from_atom(atom)))
            rest = from_terms({tuple(atom for atom in monomial if atom not in varying): coefficient})
            if varying:
                groups[varying] = groups.get(varying, 0) + rest
            else:
                fixed = fixed + rest
        parts = []
        for varying, factor in groups.items():
            factors = [self._atom(atom) for atom in varying]
            if factor != 1:
                factors.append(self.size(factor))
            parts.append(" * ".join(factors))
        if fixed != 0:
            parts.append(self.size(fixed))
        return " + ".join(parts)

    def _varies(self, position: Dim) -> bool:
        return any(isinstance(atom, LoopIndex | Computed) for atom in all_atoms(position))

    def _factor(self, position: Dim) -> str:
        text = self.dim(position)
        return f"({text})" if " " in text else text

    def _atom(self, atom: Atom) -> str:
        match atom:
            case LoopIndex():
                return self._indices[atom]
            case Computed(expression=expression):
                return self.expr(expression)  # type: ignore[arg-type]
            case Quotient(numerator=a, denominator=b):
                return f"int_floordiv({self.dim(a)}, {self.dim(b)})"
            case Remainder(numerator=a, denominator=b):
                return f"int_mod({self.dim(a)}, {self.dim(b)})"
            case Extreme(kind=kind, left=a, right=b):
                return f"{kind}imum({self.dim(a)}, {self.dim(b)})"
        raise TypeError(f"{atom} does not vary")

    def replace_loads(self, value: Value, name: str) -> None:
        """Loads of `value` print as the variable `name` from here on."""
        self._replaced[value] = name

    def restore_loads(self, value: Value) -> None:
        self._replaced.pop(value, None)

    def remember(self, expr: loop.Expr, name: str) -> None:
        """`expr` is in the variable `name` until the present block ends."""
        self._scopes[-1][expr] = name

    def read_from_row(self, value: Value, pointer: str, start: Dim) -> None:
        """Loads of `value` read `pointer` from here on, at their offset less `start`."""
        self._rows[value] = (pointer, start)

    def expr(self, expr: loop.Expr) -> str:
        """The name or literal that holds the value of `expr`, after writing the statements that compute it."""
        if isinstance(expr, loop.Const):
            return literal(expr.value, expr.dtype)
        if isinstance(expr, loop.Accumulated):
            return self.accumulated
        if isinstance(expr, loop.Load) and expr.value in self._replaced:
            return self._replaced[expr.value]
        for scope in self._scopes:
            if expr in scope:
                return scope[expr]
        name = self._compute(expr)
        self._scopes[-1][expr] = name
        return name

    def _compute(self, expr: loop.Expr) -> str:
        match expr:
            case loop.IndexValue(dim=dim):
                return self._assign("v", f"int64({self.dim(dim)})")
            case loop.Load(value=value, index=index):
                offset = loop.linear_offset(value.shape, index) if len(index) != 1 else index[0]
                if value in self._rows:
                    pointer, start = self._rows[value]
                    return self._assign("v", f"load({pointer}, {self.dim(offset - start)})")
                return self._assign("v", f"load({self.read(value)}, {self.dim(offset)})")
            case loop.Apply(function=function, arguments=arguments):
                operand = arguments[1 if function == "select" else 0].dtype
                texts = [self.expr(argument) for argument in arguments]
                return self._assign("v", scalar_text(function, expr.dtype, operand, texts))
            case loop.Guarded(condition=condition, inside=inside, outside=outside):
                return self._guarded(condition, inside, outside)
            case loop.Checked(index=index_expr, limit=limit):
                return self._checked(index_expr, limit)
        raise TypeError(f"cannot print {type(expr).__name__}")

    def _assign(self, stem: str, text: str) -> str:
        name = self.fresh(stem)
        self.line(f"{name} = {text}")
        return name

    def _guarded(self, condition: loop.Expr, inside: loop.Expr, outside: loop.Expr) -> str:
        test, other = self.expr(condition), self.expr(outside)
        name = self._assign("v", other)
        with self.block(f"if {test}:"):
            self.line(f"{name} = {self.expr(inside)}")
        return name

    def _checked(self, index: loop.Expr, limit: Dim) -> str:
        position, extent = self.expr(index), self.dim(limit)
        name = self._assign("p", f"{position} + select({position} < 0, int64({extent}), int64(0))")
        with self.block(f"if {name} < 0 or {name} >= {extent}:"):
            self.line(f"store(ctx, 3, {position})")
            self.line(f"store(ctx, 4, {extent})")
            self.line("return 1")
        return name

    def finish(self, label: str) -> KernelSource:
        """The kernel; every written pointer is the only way to its tensor unless it is also read."""
        names = "".join(f", {parameter.name}" for parameter in self.parameters)
        text = "\n".join([f"def kernel(ctx{names}, begin, end):", *self.lines, "    return 0", ""])
        return KernelSource(label, text, tuple(self.parameters))
