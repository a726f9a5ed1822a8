"""Which computations share a kernel: epilogues join their contraction, rows of one shape join each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, Value
from onnxsmith_compiler.ir.loop import Computation
from onnxsmith_compiler.ops.base import sizes_in
from onnxsmith_compiler.ops.lowering import Contract, LibraryCall
from onnxsmith_compiler.ops.view import Reshape
from onnxsmith_compiler.schedule.groups import CallGroup, ContractGroup, Group, LoopGroup, Stage, as_calls
from onnxsmith_compiler.schedule.inlining import Inliner, Lowered, choose_inlined, lower_nodes
from onnxsmith_compiler.schedule.piecewise import map_pieces
from onnxsmith_compiler.schedule.splitting import split_reduction

MOST_STAGES = 24
"""Stages of one kernel: its compilation takes longer the more there are."""


Absorbs: TypeAlias = Callable[[ContractGroup, ContractGroup], bool]


@dataclass(frozen=True)
class Schedule:
    """Groups in execution order. `aliases` maps a reshaped value to the one whose memory it is."""

    groups: tuple[Group, ...]
    aliases: dict[Value, Value]


def schedule(graph: Graph, fuse: bool = True, absorbs: Absorbs = lambda product, group: False) -> Schedule:
    """The kernels that compute `graph`; with `fuse` off, one for every node.

    `absorbs(product, group)` says whether a contraction should compute the product that it alone reads.
    """
    lowered = lower_nodes(graph)
    inlined = choose_inlined(graph, lowered, fuse)
    aliases: dict[Value, Value] = {}
    groups = list(_initial_groups(graph, lowered, inlined, aliases))
    if fuse:
        groups = join_epilogues(graph, groups, aliases)
        groups = join_products(groups, _stored(graph, aliases), aliases, absorbs)
        groups = map_pieces(groups, _stored(graph, aliases), partial(resolve, aliases=aliases))
        groups = [part for group in groups for part in _split(group)]
        late = {symbol.name: symbol.source for symbol in graph.late_symbols}
        groups = join_rows(groups, aliases, late)
    return Schedule(tuple(_live(groups, _stored(graph, aliases), aliases)), aliases)


def _stored(graph: Graph, aliases: dict[Value, Value]) -> set[Value]:
    """The values that must be in memory whoever reads them."""
    return {resolve(value, aliases) for value in graph.kept_values()}


def resolve(value: Value, aliases: dict[Value, Value]) -> Value:
    while value in aliases:
        value = aliases[value]
    return value


def _initial_groups(
    graph: Graph, lowered: Sequence[Lowered], inlined: frozenset[Value], aliases: dict[Value, Value]
) -> Iterable[Group]:
    inliner = Inliner()
    origins: dict[Value, tuple[str, ...]] = {}
    outputs = graph.output_values()
    for item in lowered:
        node = item.node
        sources = [origin for value in node.operands() for origin in origins.get(value, ())]
        own = tuple(dict.fromkeys((*sources, node.origin)))
        if node.outputs[0] in inlined:
            inliner.define(node.output, item.computations()[0])
            origins[node.output] = own
            continue
        match item.lowering:
            case Contract():
                yield ContractGroup(node, item.lowering, tuple(node.operands()))
            case LibraryCall():
                yield CallGroup(node, (item.lowering,))
            case _ if calls := item.computations():
                source = next(node.operands(), None)
                # an output needs memory of its own
                alias = isinstance(node.op, Reshape) and node.output not in outputs
                if alias and source is not None and source not in inlined:
                    aliases[node.output] = source
                    continue
                for computation in calls:
                    yield single(Stage(node.output, inliner.inline(computation), own))
            case _:
                calls_ = as_calls(item.lowering)  # type: ignore[arg-type]
                yield CallGroup(node, calls_.calls, calls_.temporaries)


def single(stage: Stage) -> LoopGroup:
    """A group of one computation."""
    if not stage.computation.reduce:
        return LoopGroup((stage,))
    return LoopGroup((stage,), len(row_axes(stage.computation)), is_vertical(stage))


def _split(group: Group) -> tuple[Group, ...]:
    """A long reduction with few results as two groups; any other group as it is."""
    if not isinstance(group, LoopGroup) or len(group.stages) != 1:
        return (group,)
    stages = split_reduction(group.stages[0], group.vertical)
    return (group,) if stages is None else tuple(map(single, stages))


def _live(groups: Sequence[Group], outputs: set[Value], aliases: dict[Value, Value]) -> list[Group]:
    needed = set(outputs)
    kept: list[Group] = []
    for group in reversed(groups):
        if any(value in needed for value in group.outputs):
            kept.append(group)
            needed |= {resolve(value, aliases) for value in group.reads()}
    return kept[::-1]


def join_epilogues(graph: Graph, groups: list[Group], aliases: dict[Value, Value]) -> list[Group]:
    """Merges each contraction with the one map that reads its result, element by element."""
    outputs = {resolve(value, aliases) for value in graph.kept_values()}
    readers: dict[Value, list[Group]] = {}
    for group in groups:
        for value in group.reads():
            readers.setdefault(resolve(value, aliases), []).append(group)
    merged: dict[Group, Group] = {}
    absorbed: set[Group] = set()
    for group in groups:
        if not isinstance(group, ContractGroup) or group.outputs[0] in outputs:
            continue
        uses = readers.get(group.outputs[0], [])
        if len(uses) != 1 or uses[0] in merged or not isinstance(uses[0], LoopGroup):
            continue
        epilogue = _as_epilogue(uses[0].stages[0], group.outputs[0], aliases)
        if epilogue is not None and group.contract.takes_epilogue:
            merged[uses[0]] = replace(group, epilogue=epilogue)
            absorbed.add(group)
    return [merged.get(group, group) for group in groups if group not in absorbed]


def join_products(
    groups: list[Group], stored: set[Value], aliases: dict[Value, Value], absorbs: Absorbs
) -> list[Group]:
    """Puts each contraction whose result only another one reads into that one where it `absorbs` it."""
    readers = Counter(resolve(value, aliases) for group in groups for value in group.reads())
    products = {
        group.outputs[0]: group
        for group in groups
        if isinstance(group, ContractGroup) and readers[group.outputs[0]] == 1 and group.outputs[0] not in stored
    }
    absorbed: set[Group] = set()
    joined: list[Group] = []
    for group in groups:
        product = products.get(group.operands[0]) if isinstance(group, ContractGroup) and group.operands else None
        if product is not None and isinstance(group, ContractGroup) and absorbs(product, group):
            absorbed.add(product)
            group = replace(group, product=product)
        joined.append(group)
    return [group for group in joined if group not in absorbed]


def _as_epilogue(stage: Stage, result: Value, aliases: dict[Value, Value]) -> Stage | None:
    """`stage` with `result` read as the accumulator, where it is a map that reads element i of it for its element i."""
    computation = stage.computation
    if computation.reduce or computation.store is not None or stage.output.type.size != result.type.size:
        return None
    here = loop.linear_offset(stage.output.shape, loop.index_of(computation.axes))
    for load in loop.loads(computation.body):
        if resolve(load.value, aliases) is result and loop.linear_offset(load.value.shape, load.index) != here:
            return None

    def visit(expr: loop.Expr) -> loop.Expr | None:
        if isinstance(expr, loop.Load) and resolve(expr.value, aliases) is result:
            return loop.Accumulated(expr.dtype)
        return None

    return replace(stage, computation=replace(computation, body=loop.rewrite(computation.body, visit, lambda dim: dim)))


def row_axes(computation: Computation) -> tuple[LoopIndex, ...]:
    """The output axes that are loops (size 1 needs none)."""
    return tuple(axis for axis in computation.axes if axis.extent != 1)


@dataclass(eq=False)
class _Cluster:
    """A group under construction, with the clusters that must run before it."""

    group: Group
    number: int
    before: set[_Cluster] = field(default_factory=set)


def join_rows(groups: list[Group], aliases: dict[Value, Value], late: Mapping[str, Value] | None = None) -> list[Group]:
    """Merges a computation into the group that produces what it reads, where both walk the same rows.

    Softmax and normalisations become one kernel this way: reductions are scalars of a row, maps in between
    are rows in a thread's scratch. `late` maps symbols that are bound in mid-run to the tensors they are read from.
    """
    clusters: list[_Cluster] = []
    writers: dict[Value, set[_Cluster]] = {}
    for group in groups:
        reads = set().union(*(writers.get(resolve(value, aliases), set()) for value in group.reads()))
        sizes: set[_Cluster] = set()
        for name in _symbols(group) & (late or {}).keys():
            sizes |= writers.get(resolve((late or {})[name], aliases), set())
        home = _joinable(group, reads - sizes, aliases, sizes)
        reads |= sizes
        if home is None:
            cluster = _Cluster(group, len(clusters))
            cluster.before = set().union(reads, *(other.before for other in reads))
            clusters.append(cluster)
        else:
            cluster, cluster.group = home[1], home[0]
            others = reads - {cluster}
            cluster.before |= set().union(others, *(other.before for other in others))
            for other in clusters:
                if cluster in other.before:
                    other.before |= cluster.before
        for value in group.outputs:
            writers.setdefault(value, set()).add(cluster)
    return _ordered(clusters)


def _joinable(
    group: Group, reads: set[_Cluster], aliases: dict[Value, Value], sizes: set[_Cluster]
) -> tuple[LoopGroup, _Cluster] | None:
    """A cluster of `reads` that `group` may join; those of `sizes` end before it can begin."""
    if not isinstance(group, LoopGroup):
        return None
    for cluster in sorted(reads, key=lambda cluster: (-len(cluster.group.outputs), cluster.number)):
        if any(cluster in other.before for other in reads | sizes) or not isinstance(cluster.group, LoopGroup):
            continue
        merged = merge(cluster.group, group, aliases)
        if merged is not None:
            return merged, cluster
    return None


def _symbols(group: Group) -> set[str]:
    """The symbols in sizes, indices and operators' attributes of a group."""
    sizes = [size for value in (*group.outputs, *group.reads()) for size in value.shape]
    stages: tuple[Stage, ...] = ()
    match group:
        case LoopGroup():
            stages = group.stages
        case CallGroup():
            sizes += [size for call in group.calls for size in sizes_in((call.arguments, call.tiles, call.scratch))]
            sizes += [size for value in group.temporaries for size in value.shape]
        case ContractGroup():
            sizes += sizes_in(group.contract.kernel)
            stages = () if group.epilogue is None else (group.epilogue,)
    for stage in stages:
        computation = stage.computation
        sizes += computation.store or ()
        sizes += [axis.extent for axis in (*computation.axes, *computation.reduce)]
        for expression in computation.expressions():
            sizes += [size for node in loop.walk(expression) for size in node.index_dims]
    return set().union(*map(dims.symbols_of, sizes))


def merge(group: LoopGroup, reader: LoopGroup, aliases: dict[Value, Value]) -> LoopGroup | None:
    """`group` with the only stage of `reader` at its end, if that walks the same rows."""
    (stage,) = reader.stages
    if len(group.stages) >= MOST_STAGES or any(s.computation.store is not None for s in (*group.stages, stage)):
        return None
    rows = _common_rows(group, reader)
    if rows is None:
        return None
    extents = [axis.extent for axis in row_axes(stage.computation)[:rows]]
    members = set(group.outputs)
    for other in (*group.stages, stage):
        axes = row_axes(other.computation)
        if [axis.extent for axis in axes[:rows]] != extents or not _same_row(other, members, axes[:rows], aliases):
            return None
    return LoopGroup((*group.stages, stage), rows, group.vertical)


def _common_rows(group: LoopGroup, reader: LoopGroup) -> int | None:
    """How many outer axes both walk together, None where the two have no use for one kernel."""
    (stage,) = reader.stages
    rank = len(row_axes(stage.computation))
    if reader.vertical or stage.computation.combine.startswith("arg"):
        return None
    if any(s.computation.combine.startswith("arg") for s in group.stages):
        return None
    folds = any(s.computation.reduce for s in group.stages)
    if group.vertical:
        return group.rows if not stage.computation.reduce and rank == group.rows else None
    if stage.computation.reduce:
        rows = rank if not folds or rank == group.rows else None
        return rows if rows or folds else None  # one row is one tile: maps are better off apart
    return group.rows if folds and (rank >= group.rows > 0 or rank == group.rows) else None


def _same_row(stage: Stage, members: set[Value], axes: tuple[LoopIndex, ...], aliases: dict[Value, Value]) -> bool:
    """Whether the stage reads the members at its own row only."""
    here = [dims.from_atom(axis) for axis in axes]
    for load in loop.loads(stage.computation.body):
        if resolve(load.value, aliases) not in members:
            continue
        if load.value not in members:
            return False
        positions = [p for p, extent in zip(load.index, load.value.shape, strict=True) if extent != 1]
        if positions[: len(axes)] != here or any(_mentions(p, axes) for p in positions[len(axes) :]):
            return False
    return True


def _mentions(position: Dim, axes: tuple[LoopIndex, ...]) -> bool:
    return any(dims.depends_on(position, axis) for axis in axes)


def is_vertical(stage: Stage) -> bool:
    """Whether a reduction's loads are contiguous along the last output axis, not along the reduced ones."""
    computation = stage.computation
    axes = row_axes(computation)
    if not axes:
        return False
    along_row = along_reduce = 0
    for load in loop.loads(computation.body):
        offset = loop.linear_offset(load.value.shape, load.index)
        along_row += dims.coefficient_of(offset, axes[-1]) == 1
        along_reduce += any(dims.coefficient_of(offset, axis) == 1 for axis in computation.reduce)
    return along_row > along_reduce


def _ordered(clusters: list[_Cluster]) -> list[Group]:
    """The groups, each after those it depends on, otherwise in the order they were met."""
    done: set[_Cluster] = set()
    result: list[Group] = []

    def visit(cluster: _Cluster) -> None:
        if cluster in done:
            return
        for other in clusters:
            if other in cluster.before:
                visit(other)
        done.add(cluster)
        result.append(cluster.group)

    for cluster in clusters:
        visit(cluster)
    return result
