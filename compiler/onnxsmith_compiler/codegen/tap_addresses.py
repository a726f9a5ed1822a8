"""A routine that finds the input pixels of a block of output pixels, for all taps of a window at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from llvmlite import ir

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.routines import routine
from onnxsmith_compiler.codegen.storage import array_pointer
from onnxsmith_compiler.codegen.target import Target

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_MOST_AXES = 3
_ARGUMENTS_OF_AXIS = 5


def tap_addresses_name(axes: int, pixels: int) -> str:
    return f"tap_addresses_{axes}x{pixels}"


def tap_addresses(axes: int, pixels: int) -> Intrinsic:
    """The routine `tap_addresses_{axes}x{pixels}(table, starts, nowhere, (at, size, extent, dilation,
    step), ...)`.

    Fills table[tap, i], dense, for `pixels` output pixels i and all taps of a window over `axes` axes, in
    row-major order. Of each axis, outermost first, at[i] is where the window of pixel i begins, `size` that
    of the image, `extent` the number of taps, `dilation` the pixels and `step` the bytes from one to the
    next. A tap's address is starts[i] plus its steps where it is inside the image on every axis, else
    `nowhere`. The pointers are int64*, all else int64.
    """
    pointer, number = "int64*", "int64"
    arguments = (pointer, pointer, number, *(pointer, number, number, number, number) * axes)

    def build(function: ir.Function, target: Target) -> None:
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        _Emitter(builder, pixels, function.args).emit()
        builder.ret_void()

    return routine(tap_addresses_name(axes, pixels), arguments, build, _reference(pixels))


def _groups(arguments: Sequence[Any]) -> list[Sequence[Any]]:
    """The arguments of each axis."""
    return [arguments[i : i + _ARGUMENTS_OF_AXIS] for i in range(3, len(arguments), _ARGUMENTS_OF_AXIS)]


def _reference(pixels: int) -> Callable[..., None]:
    def reference(table: Any, starts: Any, nowhere: int, *axes: Any) -> None:
        def row(pointer: Any, first: int = 0) -> Any:
            at = array_pointer(pointer)
            return at.array[at.start + first :][:pixels]

        groups = _groups((None, None, None, *axes))
        for number, tap in enumerate(itertools.product(*(range(int(group[2])) for group in groups))):
            address, inside = row(starts).copy(), np.ones(pixels, bool)
            for index, (at, size, _, dilation, step) in zip(tap, groups, strict=True):
                place = row(at) + index * dilation
                inside &= (place >= 0) & (place < size)
                address += index * step
            row(table, number * pixels)[:] = np.where(inside, address, nowhere)

    return reference


class _Emitter:
    """Writes a nest of loops over the taps; the pixels are one vector."""

    def __init__(self, builder: ir.IRBuilder, pixels: int, arguments: Sequence[ir.Value]) -> None:
        self.builder, self.pixels = builder, pixels
        self.vector = ir.VectorType(_I64, pixels)
        self.table, starts, nowhere = arguments[:3]
        self.axes = _groups(arguments)
        self.starts = self._load(starts)
        self.nowhere = self._splat(nowhere)

    def emit(self) -> None:
        everywhere = ir.Constant(ir.VectorType(ir.IntType(1), self.pixels), [1] * self.pixels)
        self._axis(0, self.starts, everywhere, _I64(0))

    def _axis(self, depth: int, address: ir.Value, inside: ir.Value, tap: ir.Value) -> None:
        builder = self.builder
        if depth == len(self.axes):
            first = builder.mul(tap, _I64(self.pixels))
            place = builder.bitcast(builder.gep(self.table, [first]), self.vector.as_pointer())
            builder.store(builder.select(inside, address, self.nowhere), place, align=8)
            return
        at, size, extent, dilation, step = self.axes[depth]
        positions, limit = self._load(at), self._splat(size)
        before, loop = builder.block, builder.append_basic_block(f"tap.{depth}")
        after = builder.append_basic_block(f"taps.{depth}")
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(_I64)
        index.add_incoming(_I64(0), before)
        place = builder.add(positions, self._splat(builder.mul(index, dilation)))
        # Unsigned: positions before the image are greater than any size.
        is_inside = builder.and_(inside, builder.icmp_unsigned("<", place, limit))
        moved = builder.add(address, self._splat(builder.mul(index, step)))
        self._axis(depth + 1, moved, is_inside, builder.add(builder.mul(tap, extent), index))
        following = builder.add(index, _I64(1))
        index.add_incoming(following, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, extent), loop, after)
        builder.position_at_end(after)

    def _load(self, pointer: ir.Value) -> ir.Value:
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=8)

    def _splat(self, value: ir.Value) -> ir.Value:
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, value, _I32(0))
        lanes = ir.Constant(ir.VectorType(_I32, self.pixels), [0] * self.pixels)
        return self.builder.shuffle_vector(first, nothing, lanes)


TAP_ADDRESSES: Mapping[str, Intrinsic] = MappingProxyType(
    {
        tap_addresses_name(axes, pixels): tap_addresses(axes, pixels)
        for axes in range(_MOST_AXES + 1)
        for pixels in (8, 16, 24)
    }
)
"""Every such routine that printed kernels may call, by name."""
