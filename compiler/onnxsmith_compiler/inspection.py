"""What a compilation does, as text: the graph after each pass, the fusion groups and why, the printed kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.errors import CompileError
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ir.printer import graph_text, value_text
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import Lowered, lower_model, passes
from onnxsmith_compiler.schedule.groups import CallGroup, ContractGroup, Group, LoopGroup


class UnknownDump(CompileError):
    """A kind of text that there is none of."""

    code = "InvalidArgument"


def inspect_model(source: Any, options: CompileOptions, what: str) -> str:
    """Text about how `source` is compiled for the best CPU of the options' target.

    `what` is "list" (what there is), "import" or the name of a pass (the graph after it; a number counts
    passes of the same name, as in "merge_common.2"), "groups" or "kernels". Raises subclasses of CompileError.
    """
    target = Target.named(options.target)[0]
    graphs: dict[str, str] = {}

    def keep(name: str, text: Callable[[], str]) -> None:
        count = sum(known.split(".")[0] == name for known in graphs)
        graphs[name if not count else f"{name}.{count + 1}"] = text()

    if what == "list":
        names = ["import", *(name for name, _ in passes(options, target)), "groups", "kernels"]
        return "\n".join(dict.fromkeys(names)) + "\n"
    lowered = lower_model(
        load_model(source), options, target, lambda name, graph: keep(name, lambda: graph_text(graph))
    )
    sections: Mapping[str, Callable[[], str]] = {
        **{name: partial(str, text) for name, text in graphs.items()},
        "groups": lambda: groups_text(lowered),
        "kernels": lambda: kernels_text(lowered),
    }
    if what not in sections:
        raise UnknownDump(f"there is no dump '{what}': it is one of {', '.join(sections)}")
    return sections[what]()


def groups_text(lowered: Lowered) -> str:
    """One paragraph a kernel: which ONNX nodes it computes, what it reads and writes, and what joined them."""
    return (
        "\n".join(
            f"{number}: {_why(group)}\n"
            f"   nodes  {', '.join(group.origins)}\n"
            f"   reads  {', '.join(sorted(value_text(value) for value in group.reads()))}\n"
            f"   writes {', '.join(map(repr, group.outputs))}"
            for number, group in enumerate(lowered.schedule.groups)
        )
        + "\n"
    )


def _why(group: Group) -> str:
    match group:
        case ContractGroup(sums=Value()):
            return f"{_why(replace(group, sums=None))}; it adds up neighbouring pixels too"
        case ContractGroup(product=ContractGroup() as product):
            return f"{group.contract.kernel.name} that computes what it needs of {product.contract.kernel.name}"
        case ContractGroup(epilogue=None):
            return f"{group.contract.kernel.name}"
        case ContractGroup():
            return f"{group.contract.kernel.name} with the map over its result as epilogue"
        case CallGroup(calls=calls):
            return f"library kernel {', '.join(call.function for call in calls)}"
        case LoopGroup(vertical=True):
            return f"reduction along an outer axis, lanes along the contiguous one, {len(group.stages)} stages"
        case LoopGroup(stages=(_,)):
            return "loop nest; what it reads through views and pointwise operators is computed as it goes"
    return f"{len(group.stages)} stages that walk the same rows"


def kernels_text(lowered: Lowered) -> str:
    """Every kernel's source once, and the steps that run it."""
    users: dict[str, list[str]] = {}
    for step in lowered.steps:
        users.setdefault(step.kernel.source.text, []).append(
            f"# {step.label}: tiles {step.kernel.tiles}, writes {', '.join(map(repr, step.writes))}"
        )
    return "\n".join("\n".join([*steps, text]) for text, steps in users.items())
