"""What went wrong in a run, in the user's words: the executor's faults as onnxruntime's exceptions."""

from __future__ import annotations

from onnxsmith.errors import Fail, InvalidArgument, error
from onnxsmith.faults import (
    ExecutionFault,
    InputMismatch,
    OutputMismatch,
    OutputSizeFault,
    PlanFault,
    RunFault,
    SizeFault,
)
from onnxsmith.program import Program, Relation, Step

_RELATIONS = {
    Relation.EQUAL: "they must be equal",
    Relation.BROADCAST: "to broadcast, they must be equal or one of them 1",
    Relation.AT_MOST: "the first must not be larger than the second",
}


def explain(program: Program, fault: RunFault) -> Exception:
    """The exception to raise for `fault`: of the class that onnxruntime raises, naming nodes and tensors."""
    match fault:
        case ExecutionFault():
            return _node_error(program, fault)
        case InputMismatch():
            name = program.inputs[fault.index].name if fault.index < len(program.inputs) else "?"
            axis = "" if fault.axis is None else f" of dimension {fault.axis}"
            return error(
                InvalidArgument,
                f"Invalid {fault.reason}{axis} for input: {name} Got: {fault.actual} Expected: {fault.expected}.",
            )
        case OutputMismatch():
            name = program.outputs[fault.index].name
            return error(
                InvalidArgument,
                f"The memory given for output '{name}' is {fault.actual}, the result is {fault.expected}.",
            )
        case OutputSizeFault():
            name = program.outputs[fault.index].name
            return error(Fail, f"Output '{name}' would have the impossible shape {list(fault.shape)}.")
        case PlanFault():
            return error(
                Fail,
                f"The shapes of the inputs do not go together: {fault}. {_nodes_of_segment(program, fault)}",
            )
        case SizeFault():
            check = program.segments[fault.segment].checks[fault.number]
            return error(
                Fail,
                f"Sizes do not fit while running node '{check.origin}': {fault.left} and {fault.right}, "
                f"{_RELATIONS[check.relation]}.",
            )
        case MemoryError():
            return error(Fail, f"The run does not fit into memory: {fault}")


def _node_error(program: Program, fault: ExecutionFault) -> Exception:
    step = [step for segment in program.segments for step in segment.steps][fault.step]
    where = f"while running {_nodes(step)}"
    value, limit = fault.value, fault.limit
    match fault.code:
        case 1:
            return error(
                InvalidArgument,
                f"Index out of bounds {where}: idx={value} must be within the inclusive range [{-limit},{limit - 1}]",
            )
        case 2:
            return error(Fail, f"Integer division by zero {where}")
        case 3:
            return error(Fail, f"Invalid value {where}: got {value}, the limit is {limit}")
        case _:
            return error(Fail, f"Fault {fault.code} (value {value}, limit {limit}) {where}")


def _nodes(step: Step) -> str:
    if not step.nodes:
        return f"step '{step.label}'"
    names = ", ".join(f"'{name}'" for name in step.nodes)
    return f"node {names}" if len(step.nodes) == 1 else f"the nodes {names}, which are one kernel"


def _nodes_of_segment(program: Program, fault: PlanFault) -> str:
    steps = program.segments[fault.segment].steps
    names = list(dict.fromkeys(name for step in steps for name in step.nodes))
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"The sizes belong to nodes {shown}." if names else ""
