"""The whole way from a model to a program, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxsmith import artifact
from onnxsmith.cpu import CodeTarget
from onnxsmith.faults import RUN_FAULTS
from onnxsmith_compiler.codegen.contractions import tile_columns
from onnxsmith_compiler.codegen.cpu import print_group
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.expanded_depthwise import expands_in_depthwise
from onnxsmith_compiler.codegen.kernel_key import (
    CORE_PARTS,
    c_functions_key,
    core_key,
    kernel_key,
    kernel_symbol,
    routine_key,
)
from onnxsmith_compiler.codegen.kernel_text import PrintedStep
from onnxsmith_compiler.codegen.pixel_sums import summed_pixels
from onnxsmith_compiler.codegen.recurrent import recurrence_tiling
from onnxsmith_compiler.codegen.routine_names import called_routines
from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.winograd_source import winograd_block
from onnxsmith_compiler.codegen.winograd_transforms import WEIGHT_MATRICES
from onnxsmith_compiler.codegen.zig_linker import link_with_zig, require_linker
from onnxsmith_compiler.errors import InvalidGraph
from onnxsmith_compiler.ir.graph import Graph, Node, Value
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
from onnxsmith_compiler.passes.gates import move_gates
from onnxsmith_compiler.passes.layout import channels_last
from onnxsmith_compiler.passes.outputs import separate_outputs
from onnxsmith_compiler.passes.packing import pack_matmuls
from onnxsmith_compiler.passes.precision import narrow_operands
from onnxsmith_compiler.passes.recurrent import pack_recurrences
from onnxsmith_compiler.passes.rolls import view_rolls
from onnxsmith_compiler.passes.simplify import simplify
from onnxsmith_compiler.passes.transposes import join_views
from onnxsmith_compiler.passes.winograd import use_winograd
from onnxsmith_compiler.schedule.fusion import Schedule, resolve, schedule
from onnxsmith_compiler.schedule.program import Border, KernelCall, WeightLayout, Weights, build_program
from onnxsmith_compiler.step_timer import StepTimer, has_fixed_inputs
from onnxsmith_compiler.tuning import Steps, Times, tune
from onnxsmith_compiler.workers import CompilePool, Store

Progress = Callable[[str, int, int], None]
Pass = Callable[[Graph], Graph]
Objects = Callable[[], Mapping[str, bytes]]


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """A model compiled for one target or several, the best first, which share its weights.

    `external_files` are the files of external data that were read. `interface` is the name of the code's C functions,
    "" for none.
    """

    versions: tuple[artifact.Version, ...]
    weights: Weights
    external_files: tuple[ExternalFile, ...]
    interface: str = ""

    @property
    def program(self) -> artifact.Program:
        """That of the best version."""
        return self.versions[0].program

    @property
    def code(self) -> bytes:
        """The shared library of the best version's kernels. KernelCompileError where one does not compile."""
        return self.versions[0].link()

    def write(self, directory: Path) -> None:
        """Write the program's files into `directory`, which exists; the weights first, while kernels compile.

        Raises KernelCompileError as `code` does.
        """
        header = {f"{self.interface}.h": self._header()} if self.interface else {}
        artifact.write(directory, self.versions, self.weights.pieces, self.interface, header)

    def _header(self) -> bytes:
        from onnxsmith_compiler.codegen.c_header import header_text  # here: it imports numba

        return header_text(self.program, self.interface).encode()


@dataclass(frozen=True, eq=False)
class Lowered:
    """A model up to the kernels that are printed for `target`."""

    model: Model
    imported: Imported
    graph: Graph
    schedule: Schedule
    target: Target
    steps: Steps

    def for_target(self, target: Target) -> Lowered:
        """The same schedule with its kernels printed for another target, which reads the same packed weights."""
        return replace(self, target=target, steps=tuple(print_steps(self.graph, self.schedule, target)))


def passes(options: CompileOptions, target: Target, lesser: Iterable[Target] = ()) -> tuple[tuple[str, Pass], ...]:
    """The graph passes in the order in which they run. They pack weights for `target`, as `lesser` ones read them too.

    The vectors of lesser targets are narrower.
    """
    columns = partial(tile_columns, target)
    others = tuple(lesser)
    recurrence = partial(recurrence_tiling, target, others)
    narrow = partial(narrow_operands, pairs=all(each.bfloat16_pairs for each in (target, *others)))
    precision = (("narrow_operands", narrow),) if options.precision == "bf16" else ()
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
        ("move_gates", move_gates),
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
    lesser: Sequence[Target] = (),
) -> CompiledModel:
    """A model (path, bytes or ModelProto) for the pool's target, whose kernels the pool still compiles.

    `on_progress(stage, done, total)` hears of every step. `tilings` keeps what tuning finds. `lesser` are further
    targets, of narrower vectors, the better ones first. Raises subclasses of CompileError for anything wrong with the
    model.
    """
    require_linker(pool.target)
    report = on_progress or (lambda stage, done, total: None)
    targets = (pool.target, *lesser)
    cores = [pool.compile_core(target) for target in targets]
    c_functions = pool.compile_c_functions() if options.interface else None
    report("reading the model", 0, 0)
    best = lower_model(load_model(source), options, pool.target, lesser=lesser)
    versions = [best, *(best.for_target(target) for target in lesser)]
    kernels = [pool.submit((step.kernel.source for step in each.steps), each.target) for each in versions]
    report("writing the weights", 0, 0)

    def objects(number: int) -> Mapping[str, bytes]:
        stage = "compiling kernels" if len(versions) == 1 else f"compiling kernels for {targets[number].cpu}"
        compiled = kernels[number].result(lambda done, total: report(stage, done, total))
        others = {} if c_functions is None else c_functions.result()
        return {**compiled, **cores[number].result(), **others}

    linked = [(each, partial(objects, number)) for number, each in enumerate(versions)]
    compiled = link_model(linked, options.interface)
    if options.interface and not compiled.interface:
        report(f"no C functions, since {compiled.program.why_no_c_functions}", 0, 0)
    return tune_model(*linked[0], compiled, pool.target, tilings, report) if options.tune else compiled


def link_model(versions: Sequence[tuple[Lowered, Objects]], interface: str = "") -> CompiledModel:
    """The compiled model. Each version's objects are its kernels, the routines and what is the same for every model.

    They are by key (see `kernel_key`). `interface` is the name that its C functions are to have, if it can have some.
    """
    layout = WeightLayout()
    keys = [_kernel_keys(lowered) for lowered, _ in versions]
    programs = [_program(lowered, own, layout) for (lowered, _), own in zip(versions, keys, strict=True)]
    name = interface if all(program.why_no_c_functions is None for program in programs) else ""
    # A later version may have asked for constants that an earlier one does not use.
    linked = tuple(
        _version(lowered.target, own, objects, program._replace(weight_bytes=layout.size), name)
        for (lowered, objects), own, program in zip(versions, keys, programs, strict=True)
    )
    return CompiledModel(linked, layout.weights, versions[0][0].model.external_files, name)


def _version(
    target: Target, keys: Mapping[KernelSource, str], objects: Objects, program: artifact.Program, interface: str
) -> artifact.Version:
    def link() -> bytes:
        given = objects()
        core = [core_key(part, target) for part in CORE_PARTS]
        needed = {key: given[key] for key in (*core, *_object_keys(keys, target))}
        if interface:
            from onnxsmith_compiler.codegen.c_library import compile_own  # here: it imports numba

            needed |= {c_functions_key(target): given[c_functions_key(target)]}
            needed["the model's C functions"] = compile_own(program, interface, target)
        name = artifact.library_name(interface or "program", target.system)
        if target.system == "linux":
            return link_shared_library(needed, None, name)
        return link_with_zig(needed, target, name)

    return artifact.Version(program, link, code_target(target))


def code_target(target: Target) -> CodeTarget:
    """What code for `target` needs of the machine that runs it."""
    return CodeTarget(target.system, target.machine, target.needed_features, target.cpu)


def tune_model(
    lowered: Lowered,
    objects: Objects,
    compiled: CompiledModel,
    target: Target,
    store: Store | None,
    report: Progress,
) -> CompiledModel:
    """`compiled`, linked from `lowered` and `objects`, with its work cut into tiles as is fastest on this machine.

    A model that cannot be run on made-up inputs stays as it is, and `report` hears why.
    """
    if not has_fixed_inputs(compiled.program):
        report("not tuned, since its inputs have no fixed sizes", 0, 0)
        return compiled

    (version,) = compiled.versions
    keys, code = _kernel_keys(lowered), version.link()

    def program_of(steps: Steps) -> artifact.Program:
        return _program(replace(lowered, steps=steps), keys, WeightLayout())

    def measure(versions: Sequence[Steps]) -> Times:
        timer = StepTimer(code, compiled.weights.in_memory(), target.cores, report)
        return timer.measure([program_of(steps) for steps in versions])

    try:
        steps = tune(lowered.steps, target, measure, store)
    except RUN_FAULTS as fault:
        report(f"not tuned, since it does not run on made-up inputs: {fault}", 0, 0)
        return compiled
    return replace(compiled, versions=(_version(target, keys, objects, program_of(steps), compiled.interface),))


def lower_model(
    model: Model,
    options: CompileOptions,
    target: Target,
    on_graph: Callable[[str, Graph], None] | None = None,
    lesser: Iterable[Target] = (),
) -> Lowered:
    """Import, optimise, schedule and print `model` for `target`; weights are packed as `lesser` ones read them too.

    `on_graph(name, graph)` sees the graph after each pass.
    """
    seen = on_graph or (lambda name, graph: None)
    imported = import_model(
        model, options.dimensions, options.denotations, options.distinct_symbols, fold=options.optimize
    )
    verify(imported.graph, "import")
    seen("import", imported.graph)
    graph = run_passes(imported.graph, options, target, seen, lesser)
    targets = (target, tuple(lesser))
    scheduled = schedule(graph, options.fuse, partial(expands_in_depthwise, *targets), partial(summed_pixels, *targets))
    return Lowered(model, imported, graph, scheduled, target, tuple(print_steps(graph, scheduled, target)))


def run_passes(
    graph: Graph,
    options: CompileOptions,
    target: Target,
    seen: Callable[[str, Graph], None] = lambda name, graph: None,
    lesser: Iterable[Target] = (),
) -> Graph:
    """`graph` after all passes, each verified; `seen(name, graph)` gets what each leaves."""
    typed: set[Node] = set()
    for name, run in passes(options, target, lesser):
        try:
            graph = run(graph)
        except ShapeError as error:
            raise InvalidGraph(f"{name}: {error}") from error
        verify(graph, name, typed)
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


def _kernel_keys(lowered: Lowered) -> dict[KernelSource, str]:
    return {step.kernel.source: kernel_key(step.kernel.source, lowered.target) for step in lowered.steps}


def _object_keys(keys: Mapping[KernelSource, str], target: Target) -> list[str]:
    """The keys of the objects of kernels, given with theirs, and of the routines that they call."""
    routines = sorted({name for source in keys for name in called_routines(source.text)})
    return [*dict.fromkeys(keys.values()), *(routine_key(name, target) for name in routines)]


def _program(lowered: Lowered, keys: Mapping[KernelSource, str], layout: WeightLayout) -> artifact.Program:
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
    return build_program(lowered.graph, calls, memory, border, layout)
