"""`onnxsmith inspect`: what a compiled model consists of."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from onnxsmith.commands import common
from onnxsmith.compile_client import Model, dump
from onnxsmith.options import compile_options, settings
from onnxsmith.program import Program, Tensor
from onnxsmith.sizes import evaluate
from onnxsmith.values import tensor_type


def inspect(
    model: common.ModelArgument,
    dump_what: Annotated[
        str | None,
        typer.Option(
            "--dump",
            metavar="WHAT",
            help="Print the compiler's own text instead: 'list' says what there is (the graph after a pass, "
            "printed kernels, ...).",
        ),
    ] = None,
    dim: common.DimensionOption = None,
    level: common.LevelOption = 99,
    option: common.CompilerOption = None,
    format: common.FormatOption = common.Format.table,
) -> None:
    """Show inputs, outputs, symbols, steps and memory of the compiled MODEL.

    Sizes that depend on a symbol are shown where --dim gives it a size; a --dump fixes the symbol to it.
    """
    options = common.session_options(level, compiler=option)
    if dump_what is not None:
        for name, size in common.dimensions(dim).items():
            options.add_free_dimension_override_by_name(name, size)
        text = dump(Model(os.path.abspath(model), None), compile_options(options), dump_what, settings(options))
        typer.echo(text.rstrip("\n"))
        return
    program = common.open_session(model, options).program
    described = describe(program, common.dimensions(dim))
    if format is common.Format.json:
        common.print_json(described)
        return
    for title, rows in described.items():
        common.show(format, title, rows)


def describe(program: Program, sizes: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """The tables that the command prints; numbers that `sizes` leave open are None."""
    slots = evaluate(program, sizes)
    return {
        "inputs": [_tensor(tensor, slots, program) for tensor in program.inputs],
        "outputs": [_tensor(tensor, slots, program) for tensor in program.outputs],
        "symbols": [
            {"symbol": name, "from": _origin(program, index), "size": slots[index]}
            for index, name in enumerate(program.symbols)
        ],
        "steps": _steps(program, slots),
        "memory": _memory(program, slots),
    }


def _tensor(tensor: Tensor, slots: list[int | None], program: Program) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "type": tensor_type(tensor.dtype),
        "declared shape": None if tensor.shape is None else list(tensor.shape),
        "shape": [slots[slot] for slot in tensor.dims],
        "overridable": tensor.name in program.overridable,
    }


def _origin(program: Program, symbol: int) -> str:
    source = program.input_symbols[symbol]
    if source is None:
        return "bound during the run"
    return f"dimension {source[1]} of input '{program.inputs[source[0]].name}'"


def _steps(program: Program, slots: list[int | None]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, segment in enumerate(program.segments):
        for step in segment.steps:
            rows.append(
                {
                    "step": len(rows),
                    "segment": number,
                    "label": step.label,
                    "kernel": program.kernels[step.kernel],
                    "tiles": slots[step.tiles],
                    "ns a tile": slots[step.cost],
                    "scratch": slots[step.scratch],
                    "nodes": ", ".join(step.nodes),
                }
            )
    return rows


def _memory(program: Program, slots: list[int | None]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"what": "weights", "bytes": program.weight_bytes, "steps": "all"}]
    for number, buffer in enumerate(program.buffers):
        alive = f"{buffer.first} to {buffer.last}"
        rows.append({"what": f"buffer {number}", "bytes": slots[buffer.size], "steps": alive})
    return rows
