"""The units that scheduling makes of a graph: each becomes one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from onnxsmith_compiler.ir.graph import Node, Value
from onnxsmith_compiler.ir.loop import Computation, loads
from onnxsmith_compiler.ops.lowering import Calls, Contract, LibraryCall


@dataclass(frozen=True, eq=False)
class Stage:
    """One computation and the tensor (or the part of it) that it writes."""

    output: Value
    computation: Computation
    origins: tuple[str, ...]

    def reads(self) -> frozenset[Value]:
        return frozenset(load.value for expression in self.computation.expressions() for load in loads(expression))


@dataclass(frozen=True, eq=False)
class LoopGroup:
    """Computations in one loop nest: they share the `rows` outermost (non-unit) axes of each.

    A stage may read an earlier one only at the same row. `vertical`: the first stage is a reduction whose innermost
    contiguous axis is not reduced, so accumulators run along that axis.
    """

    stages: tuple[Stage, ...]
    rows: int = 0
    vertical: bool = False

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(stage.output for stage in self.stages))

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(origin for stage in self.stages for origin in stage.origins))

    def reads(self) -> frozenset[Value]:
        return frozenset().union(*(stage.reads() for stage in self.stages)) - frozenset(self.outputs)


@dataclass(frozen=True, eq=False)
class CallGroup:
    """Library calls."""

    node: Node
    calls: tuple[LibraryCall, ...]
    temporaries: tuple[Value, ...] = ()

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self.node.outputs

    @property
    def origins(self) -> tuple[str, ...]:
        return (self.node.origin,)

    def reads(self) -> frozenset[Value]:
        return frozenset(self.node.operands())


@dataclass(frozen=True, eq=False)
class ContractGroup:
    """A contraction; `epilogue`, if any, is a map over its result that reads it as `loop.Accumulated`.

    `operands` are the tensors that its kernel reads (the epilogue's own are not among them). `product`, if any, makes
    the first of them, which is never stored: the kernel computes what it needs of it. `sums`, if any, are those of
    neighbouring pixels of each line of the result, [N, spatial..., C] with a shorter last spatial axis.
    """

    node: Node
    contract: Contract
    operands: tuple[Value, ...]
    epilogue: Stage | None = None
    product: ContractGroup | None = None
    sums: Value | None = None

    @property
    def outputs(self) -> tuple[Value, ...]:
        own = (self.epilogue.output,) if self.epilogue is not None else self.node.outputs
        return own if self.sums is None else (*own, self.sums)

    @property
    def origins(self) -> tuple[str, ...]:
        own = (self.node.origin, *(self.epilogue.origins if self.epilogue is not None else ()))
        return own if self.product is None else (*self.product.origins, *own)

    def reads(self) -> frozenset[Value]:
        own = frozenset(self.operands) | (self.epilogue.reads() if self.epilogue is not None else frozenset())
        return own if self.product is None else own - {self.operands[0]} | self.product.reads()


Group: TypeAlias = LoopGroup | CallGroup | ContractGroup


def as_calls(lowering: LibraryCall | Calls) -> Calls:
    return lowering if isinstance(lowering, Calls) else Calls((lowering,))
