"""The tilings that `--tune` tries beside the one that a template's model of the machine chose."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxsmith_compiler.codegen.tiling import Tiling, ceil_to, part_count
from onnxsmith_compiler.ir.dim import Dim

MOST_OTHERS = 8
# Factors of the chosen rows and panels: neighbours first, then tiles of about the same size of quite another form.
_FACTORS = (
    (2, 1), (1 / 2, 1), (1, 2), (1, 1 / 2), (2, 1 / 2), (1 / 2, 2), (16, 1 / 16), (1 / 16, 16),
    (4, 1), (1 / 4, 1), (1, 4), (1, 1 / 4), (4, 1 / 4), (1 / 4, 4),
)  # fmt: skip


@dataclass(frozen=True)
class TilingSpace:
    """All `rows` and `panels` of a step, and what a tile may take of them.

    Rows are taken in multiples of `row_unit`, `most_units` of it at the most, which bounds scratch memory; panels in
    multiples of `panel_unit`.
    """

    rows: Dim
    panels: Dim
    row_unit: int
    most_units: int = 32
    panel_unit: int = 1

    def others(self, chosen: Tiling) -> tuple[Tiling, ...]:
        """Up to MOST_OTHERS tilings that cut the work into even parts, others than `chosen` does.

        None where only a run knows how much there is.
        """
        rows, panels = self.rows, self.panels
        if not (isinstance(rows, int) and isinstance(panels, int)):
            return ()
        most = self.most_units * self.row_unit
        found: dict[tuple[int, int], Tiling] = {}
        for row_factor, panel_factor in _FACTORS:
            tiling = replace(
                chosen,
                rows=min(most, _even(rows, min(most, chosen.rows * row_factor), self.row_unit)),
                panels=_even(panels, chosen.panels * panel_factor, self.panel_unit),
            )
            found.setdefault((part_count(rows, tiling.rows), part_count(panels, tiling.panels)), tiling)
        found.pop((part_count(rows, chosen.rows), part_count(panels, chosen.panels)), None)
        return tuple(found.values())[:MOST_OTHERS]


def _even(whole: int, wanted: float, unit: int) -> int:
    """About `wanted`, a multiple of `unit`, so that `whole` is cut into even parts."""
    parts = max(1, round(whole / max(unit, wanted)))
    return ceil_to(max(1, part_count(whole, parts)), unit)
