"""The whole way from a model to a program, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxsmith import artifact
from onnxsmith.cpu import CodeTarget, host
from onnxsmith.faults import RUN_FAULTS
from onnxsmith_compiler.codegen.contractions import tile_columns
from onnxsmith_compiler.codegen.cpu import print_group
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.expanded_depthwise import expands_in_depthwise
from onnxsmith_compiler.codegen.kernel_key import kernel_key, kernel_symbol
from onnxsmith_compiler.codegen.kernel_text import PrintedStep
from onnxsmith_compiler.codegen.recurrent import recurrence_tiling
from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.winograd_source import winograd_block
from onnxsmith_compiler.codegen.winograd_transforms import WEIGHT_MATRICES
from onnxsmith_compiler.errors import InvalidGraph
from onnxsmith_compiler.ir.graph import Graph, Value
from onnxsmith_compiler.ir.verify import verify
from onnxsmith_compiler.onnx.importer import Imported, import_model
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.onnx.model import ExternalFile, Model
from onnxsmith_compiler.ops.base import ShapeError
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.passes.attention import fuse_attention
from onnxsmith_compiler.passes.cleanup import remove_dead_nodes
from onnxsmith_compiler.passes.common import merge_common
from onnxsmith_compiler.passes.fold_scales import fold_scales
from onnxsmith_compiler.passes.layout import channels_last
from onnxsmith_compiler.passes.outputs import separate_outputs
from onnxsmith_compiler.passes.packing import pack_matmuls
from onnxsmith_compiler.passes.precision import narrow_weights
from onnxsmith_compiler.passes.recurrent import pack_recurrences
from onnxsmith_compiler.passes.rolls import view_rolls
from onnxsmith_compiler.passes.simplify import simplify
from onnxsmith_compiler.passes.transposes import join_views
from onnxsmith_compiler.passes.winograd import use_winograd
from onnxsmith_compiler.schedule.fusion import Schedule, resolve, schedule
from onnxsmith_compiler.schedule.program import Border, KernelCall, Weights, build_program
from onnxsmith_compiler.step_timer import StepTimer, has_fixed_inputs
from onnxsmith_compiler.tuning import Steps, Times, tune
from onnxsmith_compiler.workers import CompilePool, Store

Progress = Callable[[str, int, int], None]
Pass = Callable[[Graph], Graph]


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """A program with its weights, and the files of external data that were read; `link` gives its code.

    `target` is what the code needs of a machine.
    """

    program: artifact.Program
    weights: Weights
    external_files: tuple[ExternalFile, ...]
    target: CodeTarget
    link: Callable[[], bytes]

    @property
    def code(self) -> bytes:
        """The shared library of its kernels. KernelCompileError where one does not compile."""
        return self.link()

    def write(self, directory: Path) -> None:
        """Write the program's files into `directory`, which exists; the weights first, while kernels compile.

        Raises KernelCompileError as `code` does.
        """
        artifact.write(directory, self.program, self.link, self.weights.pieces, self.target)


@dataclass(frozen=True, eq=False)
class Lowered:
    """A model up to its printed kernels."""

    model: Model
    imported: Imported
    graph: Graph
    schedule: Schedule
    steps: Steps


def passes(options: CompileOptions, target: Target) -> tuple[tuple[str, Pass], ...]:
    """The graph passes in the order in which they run."""
    columns = partial(tile_columns, target)
    recurrence = partial(recurrence_tiling, target)
    precision = (("narrow_weights", narrow_weights),) if options.precision == "bf16" else ()
    needed = (
        ("remove_dead_nodes", remove_dead_nodes),
        ("channels_last", lambda graph: channels_last(graph, columns)),
        ("pack_recurrences", lambda graph: pack_recurrences(graph, recurrence)),
        ("pack_matmuls", lambda graph: pack_matmuls(graph, columns)),
        *precision,
        ("separate_outputs", separate_outputs),
        ("remove_dead_nodes", remove_dead_nodes),
    )
    if not options.optimize:
        return needed
    block = partial(winograd_block, target)
    winograd = (
        (("use_winograd", lambda graph: use_winograd(graph, block, WEIGHT_MATRICES)),) if options.winograd else ()
    )
    return (
        ("remove_dead_nodes", remove_dead_nodes),
        ("simplify", simplify),
        ("view_rolls", view_rolls),
        ("merge_common", merge_common),
        ("fold_scales", fold_scales),
        ("channels_last", lambda graph: channels_last(graph, columns)),
        *winograd,
        ("join_views", join_views),
        *((("fuse_attention", fuse_attention), ("join_views", join_views)) if options.fuse else ()),
        ("remove_dead_nodes", remove_dead_nodes),
        ("pack_recurrences", lambda graph: pack_recurrences(graph, recurrence)),
        ("pack_matmuls", lambda graph: pack_matmuls(graph, columns)),
        *precision,
        ("merge_common", merge_common),
        ("separate_outputs", separate_outputs),
        ("remove_dead_nodes", remove_dead_nodes),
    )


def compile_model(
    source: Any,
    options: CompileOptions,
    pool: CompilePool,
    on_progress: Progress | None = None,
    tilings: Store | None = None,
) -> CompiledModel:
    """A model (path, bytes or ModelProto) for the pool's target, whose kernels the pool still compiles.

    `on_progress(stage, done, total)` hears of every step. `tilings` keeps what tuning finds. Raises subclasses of
    CompileError for anything wrong with the model.
    """
    report = on_progress or (lambda stage, done, total: None)
    core = pool.compile_core()
    report("reading the model", 0, 0)
    lowered = lower_model(load_model(source), options, pool.target)
    kernels = pool.submit(step.kernel.source for step in lowered.steps)
    report("writing the weights", 0, 0)

    def objects() -> Mapping[str, bytes]:
        compiled = kernels.result(lambda done, total: report("compiling kernels", done, total))
        return {**compiled, "core": core.result()}

    compiled = link_model(lowered, objects, pool.target)
    return tune_model(lowered, compiled, pool.target, tilings, report) if options.tune else compiled


def link_model(lowered: Lowered, objects: Callable[[], Mapping[str, bytes]], target: Target) -> CompiledModel:
    """The compiled model. `objects` gives its kernels by `kernel_key`, and the native core as "core"."""
    keys = _kernel_keys(lowered, target)
    program, weights = _program(lowered, keys)

    def link() -> bytes:
        given = objects()
        needed = {label: given[label] for label in ("core", *dict.fromkeys(keys.values()))}
        return link_shared_library(needed, None, "program.so")

    return CompiledModel(program, weights, lowered.model.external_files, host(target.needed_features), link)


def tune_model(
    lowered: Lowered, compiled: CompiledModel, target: Target, store: Store | None, report: Progress
) -> CompiledModel:
    """`compiled`, which was linked from `lowered`, with its work cut into tiles as is fastest on this machine.

    A model that cannot be run on made-up inputs stays as it is, and `report` hears why.
    """
    if not has_fixed_inputs(compiled.program):
        report("not tuned, since its inputs have no fixed sizes", 0, 0)
        return compiled

    keys, code = _kernel_keys(lowered, target), compiled.link()

    def program_of(steps: Steps) -> artifact.Program:
        return _program(replace(lowered, steps=steps), keys)[0]

    def measure(versions: Sequence[Steps]) -> Times:
        timer = StepTimer(code, compiled.weights.in_memory(), target.cores, report)
        return timer.measure([program_of(steps) for steps in versions])

    try:
        steps = tune(lowered.steps, target, measure, store)
    except RUN_FAULTS as fault:
        report(f"not tuned, since it does not run on made-up inputs: {fault}", 0, 0)
        return replace(compiled, link=lambda: code)
    return replace(compiled, program=program_of(steps), link=lambda: code)


def lower_model(
    model: Model, options: CompileOptions, target: Target, on_graph: Callable[[str, Graph], None] | None = None
) -> Lowered:
    """Import, optimise, schedule and print `model`; `on_graph(name, graph)` sees the graph after each pass."""
    seen = on_graph or (lambda name, graph: None)
    imported = import_model(
        model, options.dimensions, options.denotations, options.distinct_symbols, fold=options.optimize
    )
    verify(imported.graph, "import")
    seen("import", imported.graph)
    graph = run_passes(imported.graph, options, target, seen)
    scheduled = schedule(graph, options.fuse, partial(expands_in_depthwise, target))
    return Lowered(model, imported, graph, scheduled, tuple(print_steps(graph, scheduled, target)))


def run_passes(
    graph: Graph, options: CompileOptions, target: Target, seen: Callable[[str, Graph], None] = lambda name, graph: None
) -> Graph:
    """`graph` after all passes, each verified; `seen(name, graph)` gets what each leaves."""
    for name, run in passes(options, target):
        try:
            graph = run(graph)
        except ShapeError as error:
            raise InvalidGraph(f"{name}: {error}") from error
        verify(graph, name)
        seen(name, graph)
    return graph


def print_steps(graph: Graph, scheduled: Schedule, target: Target) -> Sequence[PrintedStep]:
    """The kernels of a schedule in order."""
    readers: dict[Value, set[int]] = {}
    for number, group in enumerate(scheduled.groups):
        for value in group.reads():
            readers.setdefault(resolve(value, scheduled.aliases), set()).add(number)
    outputs = {resolve(value, scheduled.aliases) for value in graph.output_values()}
    outputs |= {resolve(symbol.source, scheduled.aliases) for symbol in graph.late_symbols}
    steps: list[PrintedStep] = []
    for number, group in enumerate(scheduled.groups):
        kept = frozenset(v for v in group.outputs if v in outputs or readers.get(v, set()) - {number})
        steps.extend(print_group(group, kept, target))
    return steps


def _kernel_keys(lowered: Lowered, target: Target) -> dict[KernelSource, str]:
    return {step.kernel.source: kernel_key(step.kernel.source, target) for step in lowered.steps}


def _program(lowered: Lowered, keys: Mapping[KernelSource, str]) -> tuple[artifact.Program, Weights]:
    aliases = lowered.schedule.aliases

    def memory(value: Value) -> Value:
        return resolve(value, aliases)

    calls = [
        KernelCall(
            kernel_symbol(keys[step.kernel.source]),
            step.kernel.arguments,
            step.writes,
            step.kernel.tiles,
            step.kernel.cost,
            step.kernel.scratch,
            step.work.flops,
            step.work.traffic(memory),
            step.label,
            step.origins,
        )
        for step in lowered.steps
    ]
    metadata = lowered.model.metadata
    border = Border(
        lowered.imported.input_shapes,
        lowered.imported.output_shapes,
        {
            "producer_name": metadata.producer_name,
            "graph_name": metadata.graph_name,
            "domain": metadata.domain,
            "description": metadata.description,
            "graph_description": metadata.graph_description,
            "version": str(metadata.version),
        },
        metadata.custom_metadata_map,
        lowered.imported.overridable,
    )
    return build_program(lowered.graph, calls, memory, border)
