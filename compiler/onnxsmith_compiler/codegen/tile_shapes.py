"""The shapes of register tiles: which there are, and which one a product of a target gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ir.dtype import BFLOAT16, BY_NAME, DType

STORED: Mapping[str, str] = MappingProxyType({"bfloat16": "bf16", "float16": "f16"})
"""The types that panels of tiles of float32 may have instead, with what names of tiles say of them."""


@dataclass(frozen=True)
class TileShape:
    """The largest tile of a kind: `rows` by `vectors` vectors of `lanes` elements of type `dtype`, a name.

    `stored` is the name of the type of the panels' elements: one of STORED for a tile of float32, or None for `dtype`.
    A tile of several `passes` reads panels that are as wide as another CPU's vectors want them: it runs over k once
    for each pass, with `vectors` further vectors of the panel.
    `pairs`: A is bfloat16 like the panels, whose rows are interleaved two by two, and the depth is even.
    """

    rows: int
    vectors: int
    lanes: int
    dtype: str
    stored: str | None = field(default=None, kw_only=True)
    passes: int = field(default=1, kw_only=True)
    pairs: bool = field(default=False, kw_only=True)

    @property
    def columns(self) -> int:
        return self.passes * self.vectors * self.lanes

    @property
    def panel_columns(self) -> int:
        """The width of the panels that the tile reads."""
        return self.columns

    @property
    def name(self) -> str:
        """The name that printed kernels call: `tile_14x2_f32x16`, `tile_6x2x2_f32x8` for one of two passes."""
        return f"tile_{self.rows}x{self.width}_{self.types}"

    @property
    def width(self) -> str:
        """What names say of the width: vectors, and passes where there are several."""
        return f"{self.vectors}" if self.passes == 1 else f"{self.vectors}x{self.passes}"

    @property
    def types(self) -> str:
        """What names say of the types: `f32x16`, `bf16_f32x16` where panels are bfloat16, `bf16x2_f32x16` of pairs."""
        stored = "" if self.stored is None else f"{STORED[self.stored]}{'x2' if self.pairs else ''}_"
        return f"{stored}f{self.element.bits}x{self.lanes}"

    @property
    def element(self) -> DType:
        return BY_NAME[self.dtype]

    @property
    def left(self) -> DType:
        """The type of the elements of A."""
        return BFLOAT16 if self.pairs else self.element

    @property
    def terms(self) -> int:
        """How many k one step takes."""
        return 2 if self.pairs else 1

    @property
    def panel_element(self) -> DType:
        return BY_NAME[self.stored or self.dtype]

    @property
    def wide(self) -> TileShape | None:
        """The tile that reads panels of this one's once they are widened; None where there is nothing to widen."""
        return None if self.stored is None or self.pairs else replace(self, stored=None)

    @property
    def panel_row_bytes(self) -> int:
        """Bytes of a panel that the tile reads for one k."""
        return self.columns * self.panel_element.itemsize

    @property
    def table_stride(self) -> int:
        """Entries of the table of row addresses from one tap to the next: `rows`, in whole vectors."""
        return -(-self.rows // 8) * 8

    @property
    def heights(self) -> tuple[int, ...]:
        """Numbers of rows there is code for, ascending; another number takes the next higher one's.

        Few, because each takes time to compile, and only the last block of a matrix has fewer than `rows`.
        """
        return (*(height for height in (2, 4, 8) if height < self.rows), self.rows)


@dataclass(frozen=True)
class NarrowTileShape(TileShape):
    """A tile of the first of the `panel_vectors` vectors of a panel: for a last panel that is not full."""

    panel_vectors: int

    @property
    def panel_columns(self) -> int:
        return self.panel_vectors * self.lanes

    @property
    def name(self) -> str:
        return f"tile_{self.rows}x{self.width}of{self.panel_vectors}_{self.types}"

    @property
    def heights(self) -> tuple[int, ...]:
        """One: rows too many in a narrow panel cost less than the time to compile more."""
        return (self.rows,)


def narrow_tile(shape: TileShape, columns: int) -> NarrowTileShape | None:
    """The tile for the first `columns` columns of the panels of `shape`; None where it takes as long as `shape`."""
    panel_vectors = shape.columns // shape.lanes
    vectors = 1 if columns <= shape.lanes else shape.vectors
    passes = -(-columns // (vectors * shape.lanes))
    if passes * vectors >= panel_vectors:
        return None
    return NarrowTileShape(
        *(shape.rows, vectors, shape.lanes, shape.dtype, panel_vectors),
        stored=shape.stored, passes=passes, pairs=shape.pairs,
    )  # fmt: skip


def _tile_shapes() -> tuple[TileShape, ...]:
    shapes = []
    # (lanes of float32, rows, vectors, passes): AVX-512, AVX2, and NEON or SSE; those of several passes read what is
    # packed for AVX-512.
    for lanes, rows, vectors, passes in (
        (16, 14, 2, 1),
        (16, 14, 1, 1),
        (8, 6, 2, 1),
        (8, 6, 2, 2),
        (8, 12, 1, 1),
        (4, 8, 3, 1),
        (4, 6, 2, 1),
        (4, 6, 2, 2),
        (4, 6, 2, 4),
        (4, 12, 1, 1),
    ):
        shapes.append(TileShape(rows, vectors, lanes, "float32", passes=passes))
        shapes += [TileShape(rows, vectors, lanes, "float32", stored=name, passes=passes) for name in STORED]
        shapes.append(TileShape(rows, vectors, lanes // 2, "float64", passes=passes))
        if lanes == 16:
            shapes.append(TileShape(rows, vectors, lanes, "float32", stored="bfloat16", pairs=True))
    return tuple(shapes)


def tile_shape(target: Target, dtype: str, columns: int | None = None) -> TileShape:
    """The tile that a B of `columns` columns (None: many) of `dtype`, "float32" or "float64", is packed for."""
    candidates = [shape for shape in _shapes_of(target, dtype, None) if shape.passes == 1]
    few = [shape for shape in candidates if columns is not None and columns <= shape.columns]
    if few:
        return min(few, key=lambda shape: shape.columns)
    fitting = [shape for shape in candidates if _registers(shape) <= target.vector_registers]
    return max(fitting, key=lambda shape: shape.rows * shape.vectors)


def panel_tile(
    target: Target, dtype: str, columns: int, stored: DType | None = None, *, pairs: bool = False
) -> TileShape:
    """The tile for panels of `columns` columns, as `tile_shape` of this target or of one of wider vectors has them.

    `stored` is the type of their elements (None: `dtype`). ValueError where there is none.
    """
    fitting = [shape for shape in _shapes_of(target, dtype, stored, pairs=pairs) if shape.columns == columns]
    if not fitting:
        raise ValueError(f"{target.cpu} has no tile for panels of {columns} columns of {dtype}")
    return min(fitting, key=lambda shape: shape.passes)


def _shapes_of(target: Target, dtype: str, stored: DType | None, *, pairs: bool = False) -> list[TileShape]:
    """The tiles of the target's vectors for a type, and a type of panels."""
    lanes = target.vector_bits // BY_NAME[dtype].bits
    kind = (lanes, BY_NAME[dtype], stored or BY_NAME[dtype], pairs)
    return [s for s in TILE_SHAPES if (s.lanes, s.element, s.panel_element, s.pairs) == kind]


def _registers(shape: TileShape) -> int:
    """Accumulators, a row of B and one broadcast element of A."""
    return shape.rows * shape.vectors + shape.vectors + 1


TILE_SHAPES: tuple[TileShape, ...] = _tile_shapes()
NARROW_TILE_SHAPES: tuple[NarrowTileShape, ...] = tuple(
    narrow
    for shape in TILE_SHAPES
    for columns in sorted(
        {shape.lanes, *range(shape.vectors * shape.lanes, shape.columns, shape.vectors * shape.lanes)}
    )
    if (narrow := narrow_tile(shape, columns)) is not None
)
