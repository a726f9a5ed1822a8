"""Prints the kernel of a recurrent layer: every step a product of the states with packed weights, then the cell.

A tile of the kernel is one worker for one group of sequences. Each step's units are cut into `parts`; workers
of a group claim parts by a counter of their own, and begin a step only when all parts of the one before are
done. A worker never waits for a part that nobody has claimed, so any number of threads, one too, gets through.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import CACHE_LINE, indent, kernel_source, sizes
from onnxsmith_compiler.codegen.recurrent_cell import cell_loop
from onnxsmith_compiler.codegen.row_tile import ROW_TILE_PANELS, row_tile_name
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.codegen.tiling import ceil_to
from onnxsmith_compiler.ops.recurrent import COUNTER_WORDS, Cell


@dataclass(frozen=True)
class RecurrentForm:
    """What is baked into the kernel: the cell, which optional operands there are, whether steps are shared.

    `activations` in the cell are those of all directions that the kernel serves: its first entry counts.
    """

    tile: TileShape
    cell: Cell
    has_lengths: bool
    has_peepholes: bool
    shared: bool

    @property
    def has_bias(self) -> bool:
        return self.cell.kind == "gru" and self.cell.resets_late

    @property
    def phases(self) -> int:
        return len(self.cell.phase_gates)

    def strip(self, phase: int) -> int:
        """Blocks of units that are computed together: enough panels for a row tile."""
        return max(1, ROW_TILE_PANELS // self.cell.phase_gates[phase])

    def pointers(self) -> tuple[Parameter, ...]:
        """The parameters that are addresses, in order."""
        dtype = self.tile.dtype
        cell_state = self.cell.has_cell_state
        wanted = (
            ("gates", True),
            ("panels", True),
            ("late_panels", self.phases > 1),
            ("bias", self.has_bias),
            ("peepholes", self.has_peepholes),
            ("lengths", self.has_lengths),
            ("first_h", True),
            ("first_c", cell_state),
            ("y", True),
            ("last_h", True),
            ("last_c", cell_state),
            ("counters", True),
            ("kept", self.phases > 1),
        )
        types = {"lengths": "int32*", "counters": "int64*"}
        # What other workers write meanwhile is not this one's alone.
        shared = {"y", "last_h", "last_c", "counters", "kept"}
        return tuple(Parameter(n, types.get(n, f"{dtype}*"), n not in shared) for n, there in wanted if there)

    @property
    def size_names(self) -> tuple[str, ...]:
        """The parameters that are sizes, in order; strides are in elements, of a step, direction or sequence."""
        cell_state = ("first_c_direction", "first_c_row") if self.cell.has_cell_state else ()
        return (
            "steps", "batch", "hidden", "all_directions", "first_direction", "directions", "backward_from",
            "gates_step", "gates_row", "y_step", "y_direction", "y_row", "first_h_direction", "first_h_row",
            *cell_state, "last_direction", "last_row", "rows_per_group", "groups_per_direction", "parts",
        )  # fmt: skip


def recurrent_source(form: RecurrentForm) -> KernelSource:
    """The kernel of `form`; its tiles are workers: groups * parts of them, those of different groups first."""
    tile = form.tile
    panels = max(form.strip(phase) * gates for phase, gates in enumerate(form.cell.phase_gates))
    body = [
        f"table = stack(int64, {ceil_to(tile.rows, 8)})",
        f"sums = stack({tile.dtype}, {panels * tile.rows * tile.columns})",
        f"fresh = stack({tile.dtype}, {2 * tile.columns})",
        f"blocks = (hidden + {tile.columns - 1}) // {tile.columns}",
        "groups = directions * groups_per_direction",
        "for worker in range(begin, end):",
        "    group = int_rem(worker, groups)",
        "    preferred = int_div(worker, groups)",
        "    direction = first_direction + int_div(group, groups_per_direction)",
        "    backward = direction >= backward_from",
        "    first_row = int_rem(group, groups_per_direction) * rows_per_group",
        "    row_count = min(rows_per_group, batch - first_row)",
        "    if row_count > 0:",
        *indent(_worker(form), 2),
    ]
    return kernel_source(form.cell.kind, (*form.pointers(), *sizes(*form.size_names)), body)


def _worker(form: RecurrentForm) -> list[str]:
    """Lines that take one worker through all phases of all steps."""
    if form.phases == 1:
        phases = ["step = phase", *_table_of_states(form), *_claims(form, 0)]
    else:
        phases = [
            "step = phase // 2",
            "if phase % 2 == 0:",
            *indent([*_table_of_states(form), *_claims(form, 0)]),
            "else:",
            *indent([*_table_of_reset_states(form), *_claims(form, 1)]),
        ]
    if not form.shared:
        return [f"for phase in range(steps * {form.phases}):", *indent(phases)]
    return [
        f"counter = address(counters) + (direction * groups_per_direction + int_rem(group, groups_per_direction))"
        f" * (parts + 1) * {COUNTER_WORDS * 8}",
        f"for phase in range(steps * {form.phases}):",
        f"    while load_acquire(counter, parts * {COUNTER_WORDS}) < phase * parts:",
        "        pause()",
        *indent(phases),
    ]


def _claims(form: RecurrentForm, phase: int) -> list[str]:
    """Lines that compute every part of a phase that no other worker has claimed."""
    if not form.shared:
        return [f"for block in range(0, blocks, {form.strip(phase)}):", *indent(_strip(form, phase, "blocks"))]
    return [
        "for turn in range(parts):",
        "    part = int_rem(preferred + turn, parts)",
        f"    if compare_swap(counter, part * {COUNTER_WORDS}, phase, phase + 1):",
        "        end_block = int_div((part + 1) * blocks, parts)",
        f"        for block in range(int_div(part * blocks, parts), end_block, {form.strip(phase)}):",
        *indent(_strip(form, phase, "end_block"), 3),
        f"        add_ordered(counter, parts * {COUNTER_WORDS}, 1)",
    ]


def _table_of_states(form: RecurrentForm) -> list[str]:
    """Lines that write the addresses of the states before `step` to the table, which is filled up with the last."""
    return [
        f"for i in range({form.tile.rows}):",
        "    row = first_row + min(i, row_count - 1)",
        *indent(_position(form, "step - 1")),
        "    state = offset(first_h, direction * first_h_direction + row * first_h_row)",
        "    if step > 0:",
        "        state = offset(y, position * y_step + direction * y_direction + row * y_row)",
        "    store(table, i, address(state))",
    ]


def _table_of_reset_states(form: RecurrentForm) -> list[str]:
    return [
        f"for i in range({form.tile.rows}):",
        "    row = first_row + min(i, row_count - 1)",
        "    store(table, i, address(offset(kept, ((direction * batch + row) * 2 + 1) * hidden)))",
    ]


def _position(form: RecurrentForm, step: str) -> list[str]:
    """Lines that find where `row`'s elements of a step stand on the axis of steps: past its length, as they come."""
    length = "int64(load(lengths, row))" if form.has_lengths else "steps"
    return [
        f"length = {length}",
        f"position = {step}",
        "if backward and position < length:",
        "    position = length - 1 - position",
    ]


def _strip(form: RecurrentForm, phase: int, end: str) -> list[str]:
    """Lines that compute the gates of `phase`, and from them what follows, for the units of a few blocks."""
    tile, gates = form.tile, form.cell.phase_gates[phase]
    source = "panels" if phase == 0 else "late_panels"
    size = f"hidden * {tile.columns}"
    panel_bytes = f"hidden * {tile.columns * tile.element.itemsize}"
    pitch = tile.rows * tile.columns
    return [
        f"block_count = min({form.strip(phase)}, {end} - block)",
        f"first_panel = offset({source}, (direction * blocks + block) * {gates} * {size})",
        *_prefetch_gates(form, phase),
        "if row_count == 1:",
        f"    {row_tile_name(tile)}(load(table, 0), hidden, first_panel, block_count * {gates}, sums, {pitch})",
        "else:",
        f"    for number in range(block_count * {gates}):",
        f"        panel = offset(first_panel, number * {size})",
        f"        out = offset(sums, number * {pitch})",
        f"        {tile.name}(table, row_count, 1, hidden, panel, out, address(panel) + {panel_bytes}, 64, 0)",
        "for part_block in range(block_count):",
        f"    first_unit = (block + part_block) * {tile.columns}",
        f"    units = min({tile.columns}, hidden - first_unit)",
        "    for i in range(row_count):",
        f"        products = offset(sums, part_block * {gates * pitch} + i * {tile.columns})",
        *indent(_row(form, phase), 2),
    ]


def _prefetch_gates(form: RecurrentForm, phase: int) -> list[str]:
    """Lines that ask for the gates of the inputs that the strip needs once its products are done."""
    gates = range(sum(form.cell.phase_gates[:phase]), sum(form.cell.phase_gates[: phase + 1]))
    line = CACHE_LINE // form.tile.element.itemsize
    return [
        "for i in range(row_count):",
        "    row = first_row + i",
        *indent(_position(form, "step")),
        *indent(_gate_row(form, f"block * {form.tile.columns}")),
        f"    for unit in range(0, block_count * {form.tile.columns}, {line}):",
        *(f"        prefetch(gate_row, {gate} * hidden + unit)" for gate in gates),
    ]


def _gate_row(form: RecurrentForm, first_unit: str) -> list[str]:
    """The line that finds the gates of the inputs of `row` at `position`, from a unit on."""
    place = "position * gates_step + row * gates_row"
    return [f"gate_row = offset(gates, {place} + direction * {form.cell.gates} * hidden + {first_unit})"]


def _row(form: RecurrentForm, phase: int) -> list[str]:
    """Lines that compute the states of sequence i of the group, units from first_unit on."""
    return [
        "row = first_row + i",
        *_position(form, "step"),
        "y_start = position * y_step + direction * y_direction + row * y_row + first_unit",
        "state_start = direction * last_direction + row * last_row + first_unit",
        *_gate_row(form, "first_unit"),
        "if step < length:",
        *indent(cell_loop(form.cell, phase, form.tile, peepholes=form.has_peepholes)),
        "else:",
        "    for j in range(units):",
        f"        store(y, y_start + j, {form.tile.dtype}(0.0))",
    ]
