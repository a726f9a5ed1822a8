"""From numba's typed IR to LLVM IR, for functions of scalars and pointers.

numba's own lowering serves any Python: it counts references, keeps most variables in memory and walks `range` through a
structure of four words. Here a variable that is assigned once is an LLVM value, others are plain stack slots, and a
loop over a range is a counter and a comparison. LLVM would come to the same, but takes most of its time to.
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from llvmlite import ir as llvm_ir
from numba.core import analysis, errors, ir, lowering, typed_passes, types
from numba.core.compiler_machinery import register_pass

from onnxsmith_compiler.codegen.kernel_function import Intrinsic

_I64 = llvm_ir.IntType(64)


_Pair = tuple[llvm_ir.Value, llvm_ir.Value]


class _Range(types.IterableType):  # type: ignore[misc]
    """The numba type of `range(...)` of int64 with the literal `step`."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"range by {step}")

    @property
    def iterator_type(self) -> _RangeIterator:
        return _RangeIterator(self.step)


class _RangeIterator(types.SimpleIteratorType):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"iterator of range by {step}", types.int64)


def _range(context: Any, *kinds: Any) -> Any:
    """range(stop), range(start, stop), range(start, stop, step) of integers, `step` a literal other than 0."""
    step = 1
    if len(kinds) == 3:
        if not isinstance(kinds[2], types.IntegerLiteral) or kinds[2].literal_value == 0:
            return None
        step = kinds[2].literal_value
    if not 1 <= len(kinds) <= 3 or not all(isinstance(kind, types.Integer) for kind in map(types.unliteral, kinds)):
        return None

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return (_I64(0), arguments[0]) if len(arguments) == 1 else tuple(arguments[:2])

    return _Range(step)(*[types.int64] * len(kinds[:2]), *kinds[2:]), emit


RANGE = Intrinsic("range", _range, range, literals=True)


class KernelLower(lowering.Lower):  # type: ignore[misc]
    """numba's lowering without reference counts and debugging information.

    The value of a range is (start, stop), that of its iterator (address of the next number, stop), and that of a step
    (number, whether there is one): pairs of LLVM values, since such variables are assigned once.
    """

    def incref(self, typ: Any, val: Any) -> None:
        pass

    def decref(self, typ: Any, val: Any) -> None:
        pass

    def _find_singly_assigned_variable(self) -> None:
        assigns = (assign for block in self.blocks.values() for assign in block.find_insts(ir.Assign))
        counts = Counter(assign.target.name for assign in assigns)
        self._several = {name for name, count in counts.items() if count > 1}
        self._singly_assigned_vars = set(counts) - self._several - _used_elsewhere(self.blocks)
        self._blk_local_varmap: dict[str, llvm_ir.Value] = {}

    def pre_block(self, block: Any) -> None:
        self._cur_ir_block = block

    def lower_block(self, block: Any) -> None:
        self.pre_block(block)
        for instruction in block.body:
            self.loc = instruction.loc
            try:
                self.lower_inst(instruction)
            except errors.NumbaError:
                raise
            except Exception as error:
                raise errors.LoweringError(f"{type(error).__name__}: {error}\n{instruction}", self.loc) from error

    def lower_inst(self, inst: Any) -> None:
        if not isinstance(inst, ir.Assign):
            super().lower_inst(inst)
            return
        name = inst.target.name
        kind = self.typeof(name)
        if name in self._several:
            self._check_type(inst, kind)
        self.storevar(self.lower_assign(kind, inst), name)

    def _check_type(self, assign: Any, kind: Any) -> None:
        """A variable is of one type: nothing is converted silently, other than integers to longer ones."""
        if isinstance(assign.value, ir.Var):
            given = self.typeof(assign.value.name)
        elif assign.value in self.fndesc.calltypes:
            given = self.fndesc.calltypes[assign.value].return_type
        else:
            return
        if given != kind and types.unliteral(given) != kind and not _widens(given, kind):
            raise errors.LoweringError(f"{assign.target.name} is {kind} and is assigned {given}", assign.loc)

    def storevar(self, value: Any, name: str, argidx: object = None) -> None:
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self._slot(name))

    def loadvar(self, name: str) -> Any:
        if name in self._blk_local_varmap:
            return self._blk_local_varmap[name]
        return self.builder.load(self._slot(name))

    def _slot(self, name: str) -> Any:
        if name not in self.varmap:
            self.varmap[name] = self._allocate(self.context.get_value_type(self.typeof(name)), name)
        return self.varmap[name]

    def _allocate(self, kind: Any, name: str) -> Any:
        with self.builder.goto_entry_block():
            return self.builder.alloca(kind, name=name)

    def lower_expr(self, resty: Any, expr: Any) -> Any:
        match expr.op:
            case "getiter" if isinstance(resty, _RangeIterator):
                return self._begin(self.loadvar(expr.value.name))
            case "iternext" if isinstance(self.typeof(expr.value.name), _RangeIterator):
                return self._advance(self.loadvar(expr.value.name), self.typeof(expr.value.name).step)
            case "pair_first":
                return self.loadvar(expr.value.name)[0]
            case "pair_second":
                return self.loadvar(expr.value.name)[1]
        return super().lower_expr(resty, expr)

    def lower_binop(self, resty: Any, expr: Any, op: Any) -> Any:
        """numba's, without its search for forms of the operator with a constant operand: only `**` has such."""
        if op is operator.pow:
            return super().lower_binop(resty, expr, op)
        typing, signature = self.context.typing_context, self.fndesc.calltypes[expr]
        operands = [
            self.context.cast(self.builder, self.loadvar(side.name), self.typeof(side.name), wanted)
            for side, wanted in zip((expr.lhs, expr.rhs), signature.args, strict=True)
        ]
        function = typing.resolve_value_type(op)
        emit = self.context.get_function(function, typing.resolve_function_type(function, signature.args, {}))
        return self.context.cast(self.builder, emit(self.builder, operands), signature.return_type, resty)

    def _begin(self, bounds: _Pair) -> _Pair:
        start, stop = bounds
        place = self._allocate(_I64, "next")
        self.builder.store(start, place)
        return place, stop

    def _advance(self, iterator: _Pair, step: int) -> _Pair:
        place, stop = iterator
        number = self.builder.load(place)
        self.builder.store(self.builder.add(number, _I64(step), flags=("nsw",)), place)
        return number, self.builder.icmp_signed("<" if step > 0 else ">", number, stop)


@register_pass(mutates_CFG=True, analysis_only=False)
class KernelLowering(typed_passes.BaseNativeLowering):  # type: ignore[misc]
    """The pass that runs KernelLower."""

    _name = "kernel_lowering"

    @property
    def lowering_class(self) -> type[KernelLower]:
        return KernelLower


def _widens(given: Any, kind: Any) -> bool:
    return (
        isinstance(given, types.Integer)
        and isinstance(kind, types.Integer)
        and given.signed == kind.signed
        and given.bitwidth <= kind.bitwidth
    )


def _used_elsewhere(blocks: Mapping[int, Any]) -> set[str]:
    """The variables that are used in a block which the one that assigns them does not dominate, or comes after."""
    assigned = {assign.target.name: label for label, block in blocks.items() for assign in block.find_insts(ir.Assign)}
    used: dict[str, set[int]] = defaultdict(set)
    for label, block in blocks.items():
        own = set()
        for statement in block.body:
            for name in _read_by(statement):
                if name not in own:
                    used[name].add(label)
            if isinstance(statement, ir.Assign):
                own.add(statement.target.name)
    dominators = analysis.compute_cfg_from_blocks(blocks).dominators()

    def reaches(name: str, label: int) -> bool:
        return name in assigned and assigned[name] < label and assigned[name] in dominators[label]

    return {name for name, labels in used.items() if not all(reaches(name, label) for label in labels)}


def _read_by(statement: Any) -> list[str]:
    """The names of the variables that a statement reads."""
    if not isinstance(statement, ir.Assign):
        return [variable.name for variable in statement.list_vars()]
    if isinstance(statement.value, ir.Var):
        return [statement.value.name]
    return [variable.name for variable in statement.value.list_vars()] if isinstance(statement.value, ir.Expr) else []
